#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <mergen/sdk/supervisor.hpp>
#include <mergen/sdk/types.hpp>
#include <mergen/sdk/vmm.hpp>

/// What the engine says of a VM and takes of a caller: plain values, without JSON and without HTTP.
namespace mergen::engine {

/// created → starting → running ⇄ paused → stopping → stopped; failed from any of them; deleting at the end. Corrupt is
/// a record that cannot be read: it is listed and can be deleted, nothing else.
enum class VmState : std::uint8_t {
    Creating,
    Created,
    Starting,
    Running,
    Paused,
    Stopping,
    Stopped,
    Failed,
    Deleting,
    Corrupt
};
[[nodiscard]] std::string_view toString(VmState state) noexcept;
[[nodiscard]] std::optional<VmState> parseVmState(std::string_view text) noexcept;

/// Who or what ended a run of a VMM.
enum class EndedBy : std::uint8_t {
    Guest,   ///< it shut down or rebooted: the VMM exited with 0
    Panic,   ///< as Guest, but the last lines of the console are a panic of the guest's kernel
    Vmm,     ///< it failed: another exit status, or a signal of its own fault such as SIGSEGV
    Mergen,  ///< a signal that an operation sent
    Other,   ///< a signal that Mergen did not send: of another program, or of the kernel's OOM killer
    Lost,    ///< nobody was there to see it: the host was restarted, or the VM's parent was killed
};
[[nodiscard]] std::string_view toString(EndedBy by) noexcept;
[[nodiscard]] std::optional<EndedBy> parseEndedBy(std::string_view text) noexcept;

/// How a VM's VMM ended last.
struct VmEnd {
    EndedBy by = EndedBy::Lost;
    std::optional<ExitStatus> exit;  ///< none if it is lost
    std::string operation;           ///< that ended it, or that the guest obeyed; else empty
    SystemTime at{};                 ///< when it ended; if that is lost, when it was noticed
    std::string detail;              ///< all of this as a sentence
};

/// Which step of a stop or a delete ended a VM: they come in this order, each after its own deadline.
enum class StoppedBy : std::uint8_t {
    Nothing,  ///< it did not run
    Guest,    ///< it shut down when asked to (Ctrl-Alt-Del)
    Sigterm,  ///< the VMM ended on that
    Sigkill,  ///< it had to
    Other,    ///< none of them: in that moment it failed, or another program ended it; VmView::lastEnd says how
};
[[nodiscard]] std::string_view toString(StoppedBy by) noexcept;  ///< "none", "guest", "SIGTERM", "SIGKILL", "other"

/// What is done with a VM whose VMM does not answer any more.
enum class OnUnresponsive : std::uint8_t {
    Nothing,  ///< it is only said
    Restart,  ///< the VMM is killed and the VM started again
    Stop,     ///< the VMM is killed, and the VM is failed
};
[[nodiscard]] std::string_view toString(OnUnresponsive policy) noexcept;  ///< "none", "restart", "stop"
[[nodiscard]] std::optional<OnUnresponsive> parseOnUnresponsive(std::string_view text) noexcept;

/// A VMM that lives and does not answer.
struct Unresponsive {
    SystemTime since{};
    std::string cause;
};

struct PortRequest {
    std::uint16_t guest = 0;
    std::uint16_t host = 0;  ///< 0: the first free one of the range
    Protocol protocol = Protocol::Tcp;
};

/// A drive as asked for. That of the id "rootfs" or "data" says more of the one that `rootfs` or `dataDisk` names, and
/// has no path of its own.
struct DriveRequest {
    std::string id;              ///< [A-Za-z0-9_]{1,32}
    std::filesystem::path path;  ///< a raw image; of a read-only drive a copy is made, another one is used in place
    bool readOnly = false;
    DiskCache cache = DiskCache::Writeback;
    IoEngine engine = IoEngine::Sync;
    RateLimiter limit{};
    bool operator==(const DriveRequest&) const = default;
};

/// A network card as asked for: "eth0" is the first one, which a VM has in any case; the others have an address each.
struct NicRequest {
    std::string id;  ///< "eth<n>", n as its place in the list
    RateLimiter receive{}, transmit{};
    bool operator==(const NicRequest&) const = default;
};

/// What a guest's machine has beside processors, memory, disks and network cards.
struct GuestOptions {
    bool smt = false;
    HugePages hugePages = HugePages::None;
    std::string cpuTemplate;  ///< empty: none
    std::optional<VsockSpec> vsock;
    std::optional<BalloonSpec> balloon;
    std::optional<EntropySpec> entropy;
    std::optional<MmdsSpec> mmds;
    bool metrics = false;
    bool operator==(const GuestOptions&) const = default;
};

/// A VM as asked for. Whoever makes one has checked types and ranges; the engine checks what needs the host or other
/// VMs.
struct CreateRequest {
    std::optional<RecordId> id;  ///< none: the internal UUID
    std::string name;            ///< unique among VMs; empty: none
    std::string vmm;             ///< name of a VMM backend; empty: the server's choice
    std::filesystem::path rootfs;
    std::filesystem::path kernel;
    std::optional<std::filesystem::path> initrd;
    std::optional<std::filesystem::path> dataDisk;
    unsigned vcpus = 1;
    MiB memory{512};
    std::vector<DriveRequest> drives{};
    std::vector<NicRequest> nics{};  ///< empty: "eth0" without limits
    GuestOptions options{};
    std::vector<PortRequest> ports;
    std::uint16_t httpPort = 0;  ///< 0: none
    bool autoStart = false;
    RestartPolicy restartPolicy = RestartPolicy::No;
    unsigned maxRestarts = 0;  ///< in a row; 0: without end
    OnUnresponsive onUnresponsive = OnUnresponsive::Nothing;
    std::optional<std::string> bootArguments;  ///< none: the default ones
    std::map<std::string, std::string> extraEnv;
    std::map<std::string, std::string> tags;
    std::string metadata;  ///< text of a JSON object; empty: none
    std::string hooks;     ///< text of a JSON object; empty: none
};

/// What is to be changed of a VM; what is absent stays.
struct ChangeRequest {
    struct Drive {
        std::string id;
        std::optional<std::filesystem::path> path;  ///< the one that it has in place: the guest is told of the new size
        std::optional<RateLimiter> limit;
    };
    struct Nic {
        std::string id;
        std::optional<RateLimiter> receive, transmit;
    };
    std::vector<Drive> drives;
    std::vector<Nic> nics;
    std::optional<MiB> balloonAmount;
    std::optional<std::chrono::seconds> balloonStatsInterval;
    std::optional<std::string> mmdsContent;  ///< text of a JSON object, in place of the former one
};

/// The places of a VM on the host (L22).
struct VmPaths {
    std::filesystem::path configDir, vmConfig, meta, hooks, env, runDir, socket, lock, dataDir, logsDir;
    [[nodiscard]] std::filesystem::path console() const { return logsDir / "console.log"; }
};

/// How much of a console's end is asked for.
struct ConsoleTail {
    std::size_t bytes = 64U << 10U;
    std::optional<std::size_t> lines{};  ///< so many at most, within those bytes
};

/// A network card of a VM as it stands on the wire.
struct VmInterface {
    std::string id;  ///< "eth0"
    std::string guestAddress, mac, tapName;
    bool operator==(const VmInterface&) const = default;
};

/// An operation in progress: who holds the VM.
struct Holder {
    std::string operation;    ///< "start"
    std::string operationId;  ///< as in the timeline
    SystemTime since{};
};

/// One VM as it is now. A copy: it does not change.
struct VmView {
    std::string id;
    std::string uuid;
    std::string name;
    VmState state = VmState::Created;
    std::string failure;  ///< why it is Failed or Corrupt; else what went wrong last, or empty
    SystemTime createdAt{};
    std::string vmm;  ///< backend's name
    std::filesystem::path rootfs, kernel;
    std::optional<std::filesystem::path> initrd, dataDisk;
    unsigned vcpus = 0;
    MiB memory{};
    std::vector<DriveRequest> drives;  ///< as asked for
    std::vector<NicRequest> nics;      ///< as asked for
    GuestOptions options;
    std::filesystem::path vsock;  ///< where the host reaches the guest's vsock; empty: it has none
    std::vector<PortBinding> ports;
    std::uint16_t httpPort = 0;
    bool autoStart = false;
    RestartPolicy restartPolicy = RestartPolicy::No;
    unsigned maxRestarts = 0;
    OnUnresponsive onUnresponsive = OnUnresponsive::Nothing;
    std::optional<Unresponsive> unresponsive{};     ///< while it runs or is paused, and its VMM does not answer
    unsigned restarts = 0;                          ///< by the policy, since it was last started
    std::string guestAddress, mac, tapName, netns;  // of the first network card
    std::vector<VmInterface> interfaces;            ///< all network cards; empty if it is Corrupt
    std::map<std::string, std::string> extraEnv, tags;
    std::string metadata;  ///< text of a JSON object, never empty
    std::string hooks;     ///< text of a JSON object, or empty
    std::string bootArguments;
    VmPaths paths;
    int pid = 0;  ///< of the VMM, 0 while none runs: also while the VM is running and waits to be started again
    std::optional<ExitStatus> lastExit;
    std::optional<VmEnd> lastEnd;  ///< of the last run that ended, also if another one has followed
    std::optional<Holder> holder;
    bool socketPresent = false;
};

/// One line of a VM's timeline.
struct Event {
    std::uint64_t sequence = 0;  ///< grows by one over all VMs of this server process
    SystemTime at{};
    std::string vm;  ///< id
    /// "create", "start", "stop", "pause", "resume", "change", "delete", "recover", "exit",
    /// "restart", "probe"
    std::string operation;
    std::string operationId;  ///< the same for all events of one operation
    std::string step;         ///< "" for the operation as a whole
    std::string outcome;      ///< "started", "ok", "failed", "undone", "skipped", "note"
    std::chrono::microseconds duration{};
    std::string cause;  ///< the error's text, or what a note says
    std::string by{};   ///< who asked, as AskedBy says; empty: the server itself
};

/// One part of the server and whether it can work.
struct ComponentHealth {
    std::string kind, name;
    bool ok = true;
    std::string detail;
};

}  // namespace mergen::engine
