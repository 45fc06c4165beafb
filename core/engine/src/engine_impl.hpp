#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>

#include <mergen/engine/engine.hpp>

#include "disks.hpp"
#include "identity.hpp"
#include "operation.hpp"
#include "registry.hpp"

namespace mergen::engine {

/// "exit status 1", "signal 9 (Killed)".
[[nodiscard]] std::string describeExit(const ExitStatus& exit);

/// The engine's parts in one place. engine.cpp has what is asked from outside, lifecycle.cpp the steps of create,
/// start, stop and delete, reconcile.cpp what happens after a restart of the server and after the end of a VMM.
class Engine::Impl final : public ExitListener {
public:
    Impl(EngineConfig config, Backends backends, Log& log);
    ~Impl() override;

    // reconcile.cpp
    void recover();
    void onExit(const ProcessStatus& status) noexcept override;

    // engine.cpp
    bool drain(std::chrono::milliseconds limit);
    Created create(const CreateRequest& request);
    VmView start(const std::string& id);
    VmView stop(const std::string& id);
    void remove(const std::string& id, bool retainData);
    [[nodiscard]] std::shared_ptr<Vm> need(const std::string& id) const;
    [[nodiscard]] VmView view(const Vm& vm) const;
    [[nodiscard]] std::vector<VmView> list() const;
    [[nodiscard]] std::string readConsole(const VmRecord& record, std::size_t limit) const;
    [[nodiscard]] std::vector<ComponentHealth> health() const;
    [[nodiscard]] const EngineConfig& config() const noexcept { return config_; }

private:
    /// Counts an operation as in progress for drain(); throws Unavailable once that has begun.
    class Guard {
    public:
        explicit Guard(Impl& impl);
        ~Guard();
        Guard(const Guard&) = delete;
        Guard& operator=(const Guard&) = delete;

    private:
        Impl& impl_;
    };

    // engine.cpp
    /// Runs one operation from its "started" to its "ok" or "failed" event, undoing on failure.
    void run(const std::shared_ptr<Vm>& vm, const std::string& name, const std::function<void(Operation&)>& body);
    /// The same of an operation that holds its VM already.
    void runHeld(Operation& op, const std::function<void()>& body);
    /// Removes what a create that failed has made; false if something stays, and the VM with it.
    bool discardUnfinished(Vm& vm);
    /// Writes `next` to storage and, once it is there, to memory.
    void persist(Vm& vm, VmRecord next);
    /// persist() of a state that is only news: an error is logged, for the truth is found again by recover().
    void persistBestEffort(Vm& vm, VmRecord next) noexcept;
    /// persist() for what takes away: on a full medium it is done in memory alone, with a note in the timeline.
    void persistIfRoom(Operation& op, VmRecord next);
    /// Says in memory what went wrong with an operation that will be continued.
    static void noteFailure(Vm& vm, const std::string& text);
    /// `record` in `state` with this operation written into it: the intent that recovery goes by.
    [[nodiscard]] static VmRecord intent(const Operation& op, VmRecord record, VmState state);
    /// `record` in `state` with no operation in it.
    [[nodiscard]] static VmRecord settled(VmRecord record, VmState state, std::string failure = {});
    static void noteHooks(Vm& vm);
    /// Says in the log and in the timeline that ports of an adopted VM are not held.
    void noteLostPorts(Vm& vm, const std::vector<std::string>& lost);
    /// Throws NotSupported about "ports[i].protocol" for a protocol that the network backend lacks.
    void refuseUnpublishable(const std::vector<PortRequest>& ports) const;
    /// Throws AlreadyExists about "dataDisk" if it is another VM's: a writable disk has one owner.
    void refuseSharedDisk(const VmRecord& record, const OpenedImages& images) const;
    [[nodiscard]] VmmBackend& vmmOf(const VmRecord& record) const;
    [[nodiscard]] OwnerTag tagOf(const VmRecord& record) const { return {config_.instance, record.uuid}; }

    // lifecycle.cpp
    void createVm(Operation& op, const OpenedImages& images);
    void startVm(Operation& op);
    /// Throws AlreadyExists if another program took a port of the VM while no server held it: published, the port would
    /// be taken from that program.
    void refuseBusyPorts(const VmRecord& record);
    void stopVm(Operation& op);
    /// All of a stop after its intent; leaves the VM in `final`.
    void completeStop(Operation& op, VmState final, const std::string& failure);
    void removeVm(Operation& op, bool retainData);
    /// Ends the VMM if it runs: asks the guest, then SIGTERM, then SIGKILL. Throws Timeout if it outlives all three.
    void endGuest(Operation& op, const VmRecord& record);
    void killVmm(const VmRecord& record);
    /// How the VMM ended, if it did, and what it printed last: "; ..." to be added to an error's text.
    [[nodiscard]] std::string lastWords(const VmRecord& record) const;
    /// Every step of taking a VM off the host, each run whatever the ones before did. Fills `lastExit`.
    void tearDown(Operation& op, VmRecord& record);
    void forgetVm(Vm& vm);

    // reconcile.cpp
    void loadRecords();
    void addRecord(const StoredRecord& stored);
    /// The VMs that data folders say they belong to.
    [[nodiscard]] std::set<Uuid> ownersOfDisks() const;
    void reconcile(const std::shared_ptr<Vm>& vm, const ProcessStatus& process);
    void adoptRunning(Operation& op, const ProcessStatus& process);
    void settleEnded(Operation& op, const ProcessStatus& process);
    void finishOrUndoStart(Operation& op, const ProcessStatus& process);
    /// Whether a corrupt record hides which things on the host are its VM's.
    [[nodiscard]] bool strangersPossible() const;
    void removeStrays();
    void afterExit(const Uuid& uuid);
    void watchExits(const std::stop_token& stop);
    void queueExit(const Uuid& uuid);

    const EngineConfig config_;
    const Backends backends_;
    Log& log_;
    Registry registry_;
    Identities identities_;

    std::mutex drainMutex_;
    std::condition_variable drained_;
    std::size_t running_ = 0;  // operations in progress; guarded by drainMutex_
    bool draining_ = false;    // guarded by drainMutex_

    std::mutex exitMutex_;
    std::condition_variable_any exitQueued_;
    std::deque<Uuid> exits_;    // guarded by exitMutex_
    std::jthread exitWatcher_;  // last: it ends before what it uses
};

}  // namespace mergen::engine
