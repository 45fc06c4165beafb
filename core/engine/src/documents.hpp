#pragma once

#include <optional>
#include <string>
#include <vector>

#include <mergen/engine/engine.hpp>
#include <mergen/engine/vm.hpp>
#include <mergen/sdk/storage.hpp>
#include <mergen/sdk/vmm.hpp>

/// What is written down of a VM, and how it reads as documents (A16-A19, L23, L30, L31).
namespace mergen::engine {

/// Whose a disk was before it was lent to a VM.
struct DiskOwner {
    std::uint32_t uid = 0, gid = 0;
    std::uint32_t mode = 0;  ///< permission bits
    /// Of the file that is lent, 0 if a server that did not compare it has written this. Without its device: the number
    /// of that may be another one after the disk was away, and no mount below an image root is ever passed.
    std::uint64_t inode = 0;
    auto operator<=>(const DiskOwner&) const = default;
};

/// One VM's record: all that must survive the server. Host facts that a restart can look up (pid, socket) are not in
/// it.
struct VmRecord {
    VmRecord(RecordId recordId, Uuid internalId) : id(std::move(recordId)), uuid(internalId) {}

    RecordId id;
    Uuid uuid;
    std::string name;
    SystemTime createdAt{};
    VmState state = VmState::Creating;
    std::string failure;

    /// The operation in progress when this was written: what recovery finishes or undoes.
    std::string operation, operationId;
    SystemTime operationSince{};

    std::string vmm;
    std::filesystem::path rootfs, kernel;  // as given; the VM uses its own copies
    std::optional<std::filesystem::path> initrd;
    std::optional<std::filesystem::path> dataDisk;  // in place: there is no copy of it
    std::map<std::string, DiskOwner> diskOwners;    // by drive, of those that are lent to the VM's uid, or owed
    unsigned vcpus = 1;
    MiB memory{};
    std::vector<DriveRequest> drives;  // as given
    std::vector<NicRequest> nics;      // as given
    GuestOptions options;
    std::uint16_t httpPort = 0;
    bool autoStart = false;
    RestartPolicy restartPolicy = RestartPolicy::No;
    unsigned maxRestarts = 0;
    OnUnresponsive onUnresponsive = OnUnresponsive::Nothing;
    std::optional<std::string> bootArguments;  // as given
    std::map<std::string, std::string> extraEnv, tags;
    std::string metadata;  // text of a JSON object; empty: none
    std::string hooks;     // text of a JSON object; empty: none

    Ipv4Network network;
    Ipv4Address guest;
    MacAddress mac;
    std::string tap, netns;
    std::vector<FurtherNic> further;  // eth1 and so on, one for each of `nics` but the first
    std::vector<PortBinding> ports;   // sorted
    Credentials credentials;

    std::string bootId;  // boot of the host in which it was last started
    std::optional<ExitStatus> lastExit;
    std::optional<VmEnd> lastEnd;
    unsigned restarts = 0;  // of the run that ended last; while it runs its parent counts
    /// Its restart policy does not hold for the rest of this run: it does not answer, and is about to be killed or was.
    /// Written before the policy is withdrawn, so that it is known whichever server sees the end.
    bool restartsWithdrawn = false;
};

/// A disk beside the root disk, as a VM was asked for with it.
struct GivenDisk {
    std::string id;  ///< of the drive
    std::filesystem::path path;
    std::string field;      ///< the request's member that names the path
    bool borrowed = false;  ///< used in place; otherwise the VM has a copy, which nobody writes to
};
/// Those in the guest's order: the data disk, then the further drives as given.
[[nodiscard]] std::vector<GivenDisk> givenDisks(const std::optional<std::filesystem::path>& dataDisk,
                                                const std::vector<DriveRequest>& drives);

/// The UUID that an id is, if it is one.
[[nodiscard]] std::optional<Uuid> uuidOf(const RecordId& id) noexcept;

/// How many network cards the VM is to have: "eth0" in any case.
[[nodiscard]] std::size_t cardsAskedFor(const VmRecord& record) noexcept;
/// The further card of that number, 1 or more, with the names that it has by the VM's internal id.
[[nodiscard]] FurtherNic furtherNic(const Uuid& vm, std::size_t number, Ipv4Address guest);

/// What a record that cannot be read still tells of the addresses and ports that its VM holds: its `env` document.
void salvage(const Record& documents, VmRecord& record);

/// The folder of a VM's data in which its copies of further drives are.
inline constexpr const char* drivesFolder = "drives";
/// The VM's own copy of the drive `id`.
[[nodiscard]] std::filesystem::path driveCopy(const VmPaths& paths, const std::string& id);

/// The record's places below the roots of `config`.
[[nodiscard]] VmPaths pathsOf(const EngineConfig& config, const RecordId& id, const Uuid& uuid);

/// Kernel command line: the given or default arguments with blanks normalised, and "ip=" for the guest's address unless
/// the caller gave one (L32, L33). The gateway is host number 1 of the network, the mask that of its prefix (W14); name
/// servers follow where there are any to tell of. "mergen.ip<n>=ADDRESS/PREFIX" tells of a further card, unless the
/// caller gave that word: a kernel has ip= for one card only.
[[nodiscard]] std::string bootArguments(const EngineConfig& config, const VmRecord& record);
[[nodiscard]] Ipv4Address gatewayOf(const VmRecord& record);

[[nodiscard]] NetworkSpec networkSpec(const EngineConfig& config, const VmRecord& record);
/// The guest with the VM's own disk, kernel and initrd; `tap` says whether it has a wire.
[[nodiscard]] GuestSpec guestSpec(const EngineConfig& config, const VmRecord& record, bool tap);
[[nodiscard]] VmmPlace vmmPlace(const EngineConfig& config, const VmRecord& record);

/// The configuration as `firecracker --config-file` takes it (L31), whatever VMM runs the guest; `tap` says whether the
/// guest has a wire.
[[nodiscard]] std::string vmConfigDocument(const EngineConfig& config, const VmRecord& record, bool tap);

/// "meta.json", "vm.json", "env", and "hooks.json" if there are hooks.
[[nodiscard]] Record toDocuments(const EngineConfig& config, const VmRecord& record);

/// Reads meta.json back. Throws Error(InvalidArgument) with what is wrong: a member that is missing or breaks its rule,
/// another id than the record's own, a format that this server does not know.
[[nodiscard]] VmRecord fromDocuments(const Record& documents);

}  // namespace mergen::engine
