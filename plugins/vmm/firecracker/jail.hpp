#pragma once

#include <filesystem>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <mergen/base/fd.hpp>
#include <mergen/sdk/types.hpp>
#include <mergen/sdk/vmm.hpp>

/// The folders that a jailed Firecracker sees as its root, and what stands in them.
///
///     <data root>/.jail/<program>/<uuid>/root       the VM's: Firecracker's "/"
///                                        root/vm    root's: the guest's files under names of ours
///                                        root/run   the VM's: sockets
///
/// All above `root` is root's and 0700. The guest's files are hard links to the VM's own, so that a write to a disk is
/// a write to the disk, whatever happens to the jail; what lies on another file system is bound onto an empty file.
namespace mergen::vmm {

/// Names within the jail, as Firecracker is told them.
namespace jailed {
inline constexpr auto socket = "/run/firecracker.socket";
inline constexpr auto vsock = "/run/vsock.sock";
inline constexpr auto configuration = "/vm/firecracker.json";
inline constexpr auto metadata = "/vm/metadata.json";
inline constexpr auto metrics = "/vm/metrics.fifo";
}  // namespace jailed

/// The guest as a jailed Firecracker is told of it: the same, with the paths of its files as they are in the jail.
[[nodiscard]] GuestSpec seenFromJail(GuestSpec guest);

/// The host's path of a file of "/vm", named as within the jail, by the open folder.
[[nodiscard]] std::filesystem::path inFolder(const UniqueFd& files, const std::filesystem::path& inside);

/// The jails of one server. Holds nothing but paths. Threads: any, for different VMs.
///
/// No name below the data root is followed if it is a link, and folders must be root's (openat2(2), RESOLVE_BENEATH,
/// RESOLVE_NO_SYMLINKS): whoever could plant something there would choose what root changes the owner of.
class JailYard {
public:
    explicit JailYard(std::filesystem::path dataRoot);

    /// As the jailer's --chroot-base-dir takes it.
    [[nodiscard]] const std::filesystem::path& base() const noexcept { return base_; }
    /// Where a jail's "/" is; `program`: the file name of the program that is jailed.
    [[nodiscard]] std::filesystem::path rootOf(const std::string& program, const Uuid& vm) const;
    /// The one that there is; empty if the VM has none.
    [[nodiscard]] std::filesystem::path find(const Uuid& vm) const;

    /// Makes the VM's jail with all files of `guest`, which are seenFromJail() then. What is there from an earlier run
    /// is removed first. Throws InvalidArgument about the GuestSpec member whose file cannot be brought in: it is no
    /// regular file, or a writable disk does not belong to the VM's user. After a throw remove() clears what there is.
    void make(const std::string& program, const GuestSpec& guest, const VmmPlace& place) const;

    /// The folder "/vm" of the jail, or nothing if the VM has none. The jail's root belongs to the VM's user, who may
    /// have put something else at the place of our folder: PermissionDenied then.
    [[nodiscard]] std::optional<UniqueFd> files(const Uuid& vm) const;

    /// Writes a file of "/vm", named as within the jail, for the VM's user to read, also while the VM runs. Throws as
    /// files(), and NotFound without a jail; nothing is written then.
    void write(const Uuid& vm, const std::filesystem::path& inside, std::string_view text,
               const Credentials& owner) const;

    /// Unmounts what is mounted in the VM's jails, and removes them. If something stays mounted the tree is left alone,
    /// for it may be a disk: FailedPrecondition. Does nothing if there is none.
    void remove(const Uuid& vm) const;

    /// What root can still write where the jails are, of which there must be one.
    [[nodiscard]] std::uint64_t freeBytes() const;

    /// VMs that have a jail.
    [[nodiscard]] std::vector<Uuid> list() const;

private:
    const std::filesystem::path dataRoot_, base_;
    /// Held over the making of the folders above a jail and their removal with the last one.
    mutable std::mutex mutex_;
};

/// What a jailed Firecracker leaves in its jail that would keep the next one from starting, to be removed before it;
/// paths of the host. Each is a name in the jail's own root, which cannot be led elsewhere by what is in the jail.
[[nodiscard]] std::vector<std::filesystem::path> leftInJail(const std::filesystem::path& root,
                                                            const std::string& program);

}  // namespace mergen::vmm
