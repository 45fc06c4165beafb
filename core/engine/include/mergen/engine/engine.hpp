#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <mergen/engine/adjustable.hpp>
#include <mergen/engine/vm.hpp>
#include <mergen/sdk/error.hpp>
#include <mergen/sdk/log.hpp>
#include <mergen/sdk/network.hpp>
#include <mergen/sdk/storage.hpp>
#include <mergen/sdk/supervisor.hpp>
#include <mergen/sdk/vmm.hpp>

namespace mergen::engine {

/// All that the engine is told. `[vm]`, `[network]` and `[paths]` of the INI file stand behind it. What is Adjustable
/// can change later, by reconfigure(): an operation in progress sees that at its next step.
struct EngineConfig {
    std::string instance;  ///< Host::instance()
    std::filesystem::path configRoot, dataRoot, runRoot;
    std::vector<std::filesystem::path> imageRoots;  ///< where rootfs, kernel, initrd and dataDisk may lie
    Ipv4Network guestNetwork = Ipv4Network::parse("172.30.0.0/24");
    std::uint16_t portStart = 20000, portEnd = 40000;  ///< inclusive
    std::uint32_t uidStart = 1900000000,
                  uidCount = 65536;  ///< one uid, and gid of the same number, per VM; only as root
    using Duration = Adjustable<std::chrono::milliseconds>;
    Adjustable<std::size_t> maxVms{10000};
    Duration startTimeout{std::chrono::seconds(60)};   ///< launch to the VMM's "the guest runs"
    Duration stopGrace{std::chrono::seconds(10)};      ///< Ctrl-Alt-Del to SIGTERM
    Duration killGrace{std::chrono::seconds(2)};       ///< SIGTERM to SIGKILL, and SIGKILL to giving up
    Duration controlTimeout{std::chrono::seconds(5)};  ///< one question to a VMM
    Duration probeInterval{std::chrono::seconds(10)};  ///< between two questions whether a VMM still answers; 0: none
    Duration probeTimeout{std::chrono::seconds(2)};    ///< such a question
    Adjustable<unsigned> probeFailures{3U};            ///< so many without an answer in a row are "unresponsive"
    Adjustable<Bytes> consoleLimit{Bytes{1U << 20U}};  ///< of VMs that start from now on
    std::chrono::milliseconds recoverLimit{5000};      ///< how long recover() may keep the server from serving
    std::size_t eventsPerVm = 256;
    std::string unitPrefix = "fc";  ///< for the name of the unit in the `systemd` block
    std::string vmm;                ///< name of the VMM backend for new VMs
    std::string vmmChoice{};        ///< why it is that one, where the server has chosen; for the health page
    GuestSettings guestSettings{};  ///< the engine asks the network backend for them
};

/// The backends that the operator selected. Borrowed: started before the engine is made, stopped after it is gone.
struct Backends {
    StorageBackend& storage;
    SupervisorBackend& supervisor;
    NetworkBackend& network;
    std::map<std::string, VmmBackend*> vmms;  ///< by name
    // What the operator calls them, for the health page.
    std::string storageName{}, supervisorName{}, networkName{};
};

/// What create() made.
struct Created {
    VmView vm;
    std::optional<Error> startFailure;  ///< why it does not run although `autoStart` was asked for
};

/// What stop() found and did.
struct Stopped {
    VmView vm;
    StoppedBy by = StoppedBy::Nothing;
};

/// The life of VMs: the one room that knows what a VM is.
///
/// Every operation writes its intent into the record before its first effect, does idempotent steps that can be undone,
/// and leaves an event per step. One operation per VM at a time: a second one gets Error(Conflict) that names the
/// holder. VMs do not wait for each other, and no lock is held over I/O but the VM's own.
/// Threads: every method from any thread, after recover().
class Engine {
public:
    Engine(EngineConfig config, Backends backends, Log& log);
    ~Engine();
    Engine(const Engine&) = delete;
    Engine& operator=(const Engine&) = delete;

    /// Reads all records, compares each with the host, then adopts, finishes or undoes; removes what bears this
    /// instance's tag and belongs to no record. Call once, before anything else. Returns after `recoverLimit` at the
    /// latest (but for that removal): VMs that are not through then stay held by "recover" and are finished behind it.
    void recover();

    /// Begins no more operations and waits for those in progress, at most `limit`; VMs run on, unless the storage is
    /// not durable: then nobody would know of them any more, and they are stopped and removed. Operations asked for
    /// afterwards get Error(Unavailable). Returns false if something did not end in time; the process must end then,
    /// and the next server finds what is left.
    bool drain(std::chrono::milliseconds limit);

    /// Makes a VM, and starts it if `request.autoStart`. If only that start fails, the VM is kept.
    Created create(const CreateRequest& request);
    /// Does nothing if it runs already.
    VmView start(const std::string& id);
    /// Does nothing if it does not run.
    Stopped stop(const std::string& id);
    /// Freezes the guest. Does nothing if it is paused. Throws FailedPrecondition if it does not run, NotSupported if
    /// its VMM cannot.
    VmView pause(const std::string& id);
    /// Lets a paused guest go on. Does nothing if it runs.
    VmView resume(const std::string& id);
    /// Changes limits of drives and network cards, the balloon and the content of the metadata service: of a guest that
    /// runs or is paused at once, else from its next start on. All of it, or nothing. Throws InvalidArgument or
    /// NotFound about the member that names what the VM has not, FailedPrecondition with the VMM's words if that
    /// refuses.
    VmView change(const std::string& id, const ChangeRequest& request);
    /// Counters of the VM's VMM since the last call, text of a JSON object. Throws NotSupported if it was made without
    /// metrics or its VMM has none, FailedPrecondition if it does not run, Conflict while another call reads them.
    [[nodiscard]] std::string metrics(const std::string& id) const;
    /// Stops it if it runs and removes all that was its own; the data folder stays if `retainData`. Works in any state.
    StoppedBy remove(const std::string& id, bool retainData);

    [[nodiscard]] VmView get(const std::string& id) const;
    /// Newest first.
    [[nodiscard]] std::vector<VmView> list() const;
    /// Oldest first; the newest `eventsPerVm`. Events of a deleted VM are gone with it.
    [[nodiscard]] std::vector<Event> events(const std::string& id) const;
    /// The end of what the VM's console printed, as it came.
    [[nodiscard]] std::string console(const std::string& id, const ConsoleTail& tail) const;

    /// The VM's configuration as a file that `firecracker --config-file` takes, with its own paths. Throws
    /// FailedPrecondition for a corrupt record.
    [[nodiscard]] std::string vmConfig(const std::string& id) const;

    /// Storage, supervisor, network and VMMs. A VMM that neither makes new VMs nor has any is well in any case.
    [[nodiscard]] std::vector<ComponentHealth> health() const;

    [[nodiscard]] const EngineConfig& config() const noexcept;
    /// Takes over what is Adjustable in `next`, and nothing else of it.
    void reconfigure(const EngineConfig& next) noexcept;

private:
    class Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace mergen::engine
