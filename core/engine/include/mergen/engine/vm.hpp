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

struct PortRequest {
    std::uint16_t guest = 0;
    std::uint16_t host = 0;  ///< 0: the first free one of the range
    Protocol protocol = Protocol::Tcp;
};

/// A VM as asked for. Whoever makes one has checked types and ranges; the engine checks what needs the host or other
/// VMs.
struct CreateRequest {
    std::optional<RecordId> id;  ///< none: the internal UUID
    std::string name;            ///< unique among VMs; empty: none
    std::filesystem::path rootfs;
    std::filesystem::path kernel;
    std::optional<std::filesystem::path> dataDisk;
    unsigned vcpus = 1;
    MiB memory{512};
    std::vector<PortRequest> ports;
    std::uint16_t httpPort = 0;  ///< 0: none
    bool autoStart = false;
    std::optional<std::string> bootArguments;  ///< none: the default ones
    std::map<std::string, std::string> extraEnv;
    std::map<std::string, std::string> tags;
    std::string metadata;  ///< text of a JSON object; empty: none
    std::string hooks;     ///< text of a JSON object; empty: none
};

/// The places of a VM on the host (L22).
struct VmPaths {
    std::filesystem::path configDir, vmConfig, meta, hooks, env, runDir, socket, lock, dataDir, logsDir;
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
    std::optional<std::filesystem::path> dataDisk;
    unsigned vcpus = 0;
    MiB memory{};
    std::vector<PortBinding> ports;
    std::uint16_t httpPort = 0;
    bool autoStart = false;
    std::string guestAddress, mac, tapName, netns;
    std::map<std::string, std::string> extraEnv, tags;
    std::string metadata;  ///< text of a JSON object, never empty
    std::string hooks;     ///< text of a JSON object, or empty
    std::string bootArguments;
    VmPaths paths;
    int pid = 0;  ///< of the VMM, 0 while none runs
    std::optional<ExitStatus> lastExit;
    std::optional<Holder> holder;
    bool socketPresent = false;
};

/// One line of a VM's timeline.
struct Event {
    std::uint64_t sequence = 0;  ///< grows by one over all VMs of this server process
    SystemTime at{};
    std::string vm;           ///< id
    std::string operation;    ///< "create", "start", "stop", "delete", "recover", "exit"
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
