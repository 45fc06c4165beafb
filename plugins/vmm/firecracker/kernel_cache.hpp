#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <utility>

#include <mergen/base/fd.hpp>

namespace mergen::vmm {

/// How much a KernelCache keeps. What was used least recently goes first.
struct KernelCacheLimits {
    std::uint64_t bytes = 0;  ///< of all entries; 0: nothing is kept, and nothing is used
    std::size_t entries = 32;
};

/// The SHA-256 of an open file's whole content, as 64 hexadecimal digits.
[[nodiscard]] std::string contentDigest(int file);

/// The ELF files that compressed kernels were unpacked to, each under the digest of what it was unpacked from:
///
///     <data root>/.cache/kernels/<digest>-<bytes>      an ELF file of that size, 0400
///                                .aside-<pid>-<n>      one that is being written
///
/// Folders and files are the server's user's and nobody else can write there: what is otherwise is not used, as its
/// content would be a guest's kernel. No VM has an entry itself, so one can go at any time: a VM gets a copy.
///
/// The room is the VMs' first: nothing is kept where less than the limit would be left free, and drop() gives back
/// what is.
///
/// Threads: any. An entry appears by a rename, whole and durable, and whoever reads one has it open; a lock is held
/// only while room is made for one, and while it is renamed. Errors: any method may throw Error if the medium fails;
/// nothing half-made is left under an entry's name then.
class KernelCache {
public:
    KernelCache(std::filesystem::path dataRoot, KernelCacheLimits limits)
        : dataRoot_(std::move(dataRoot)), limits_(limits) {}

    [[nodiscard]] bool enabled() const noexcept { return limits_.bytes != 0; }

    /// Removes what a crash left half-made, and what is beyond the limits. Only while no other call runs: what another
    /// one is making would be taken for left. What cannot be removed is thrown when all else is done.
    void sweep() const;

    /// Removes all that can be removed; false if there was nothing. Throws if there was, and none of it could be.
    bool drop() const;

    /// What the file of this digest unpacks to, open for reading; nothing if that is not known, or must not be used.
    /// Counts as a use, to the minute, where that can be written.
    [[nodiscard]] std::optional<UniqueFd> find(const std::string& digest) const;

    /// Keeps a copy of the ELF file `elf`, for which room is made before it is written. Under this digest a sound entry
    /// stays, and another one is replaced. It is not kept if it is larger than the limit, or if afterwards fewer bytes
    /// than the limit were free on the file system, although what was used least recently goes for it.
    void keep(const std::string& digest, int elf) const;

private:
    /// Evicts what is in the way of an entry of that size, and counts it until giveRoomBack() or publish(); false if
    /// there is no room.
    bool takeRoom(const UniqueFd& folder, const std::string& aside, std::uint64_t bytes) const;
    /// How many more bytes must be free, that as many as the limit are when a new entry of that size, and all that
    /// come, are written. With mutex_.
    [[nodiscard]] std::uint64_t missingRoom(const UniqueFd& folder, std::uint64_t bytes) const;
    void giveRoomBack(const std::string& aside) const;
    void publish(const UniqueFd& folder, const std::string& aside, const std::string& name, std::uint64_t size) const;

    const std::filesystem::path dataRoot_;
    const KernelCacheLimits limits_;
    mutable std::mutex mutex_;
    /// The sizes of entries that are being written, by the names of their files aside; guarded by mutex_.
    mutable std::map<std::string, std::uint64_t> coming_;
    mutable std::atomic<unsigned> next_{0};  ///< number of the next file aside
};

}  // namespace mergen::vmm
