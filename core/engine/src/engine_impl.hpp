#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include <mergen/engine/engine.hpp>

#include "borrowed_disks.hpp"
#include "disk_owners.hpp"
#include "disks.hpp"
#include "enforcer.hpp"
#include "identity.hpp"
#include "monitor.hpp"
#include "operation.hpp"
#include "registry.hpp"

namespace mergen::engine {

/// The engine's parts in one place. engine.cpp has how an operation runs and what is asked from outside, create.cpp
/// what a create looks at and claims, change.cpp what can be changed of a VM, lifecycle.cpp the steps of every
/// operation, reconcile.cpp what happens after a restart of the server and after the end of a VMM, probe.cpp what
/// follows if one does not answer, views.cpp what is said of it all.
class Engine::Impl final : public ExitListener {
public:
    Impl(EngineConfig config, Backends backends, Log& log);
    ~Impl() override;

    // reconcile.cpp
    void recover();
    void onExit(const ProcessStatus& status) noexcept override;
    void onRestart(const OwnerTag& owner) noexcept override;

    // create.cpp
    Created create(const CreateRequest& request);

    // change.cpp
    VmView change(const std::string& id, const ChangeRequest& request);
    [[nodiscard]] std::string metrics(const std::string& id) const;

    // engine.cpp
    bool drain(std::chrono::milliseconds limit);
    VmView start(const std::string& id);
    Stopped stop(const std::string& id);
    VmView pause(const std::string& id);
    VmView resume(const std::string& id);
    StoppedBy remove(const std::string& id, bool retainData);
    [[nodiscard]] std::shared_ptr<Vm> need(const std::string& id) const;
    [[nodiscard]] const EngineConfig& config() const noexcept { return config_; }
    void reconfigure(const EngineConfig& next) noexcept;

    // views.cpp
    [[nodiscard]] VmView view(const Vm& vm) const;
    [[nodiscard]] std::vector<VmView> list() const;
    [[nodiscard]] std::string vmConfig(const std::string& id) const;
    [[nodiscard]] std::vector<ComponentHealth> health() const;

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
    [[nodiscard]] bool draining() const;
    /// Stops and removes every VM; false if that takes longer than to `deadline`.
    bool removeAll(SteadyTime deadline);
    /// Calls `action`, which throws nothing, for each number below `count` on threads of its own. Returns when all are
    /// through, or at `deadline`, with how many are not; those go on behind it, and the engine's end waits for them.
    std::size_t workOff(std::size_t count, std::size_t atOnce, SteadyTime deadline,
                        const std::function<void(std::size_t)>& action);
    /// Runs one operation from its "started" to its "ok" or "failed" event, undoing on failure.
    void run(const std::shared_ptr<Vm>& vm, const std::string& name, const std::function<void(Operation&)>& body);
    /// run() of what the server does by itself. While the VM's lock file cannot be had (another program holds it) it is
    /// postponed: noted, tried again every second, and before anything else that is asked for.
    void runOrPostpone(const std::shared_ptr<Vm>& vm, const std::string& name,
                       const std::function<void(Operation&)>& body);
    void runHeldOrPostpone(Operation& op, const std::function<void()>& body);
    /// run() of an operation that holds its VM already.
    void runHeld(Operation& op, const std::function<void()>& body);
    /// Writes `next` to storage and, once it is there, to memory. What is lent by it is in the VM's folder before, if
    /// the record does not survive the server.
    void persist(Vm& vm, VmRecord next);
    /// persist() of a state that is only news: an error is logged, for the truth is found again by recover().
    void persistBestEffort(Vm& vm, VmRecord next) noexcept;
    /// persist() for what takes away: on a full medium it is done in memory alone, with a note in the timeline.
    /// False in that case.
    bool persistIfRoom(Operation& op, VmRecord next);
    /// Says in memory what went wrong with an operation that will be continued.
    static void noteFailure(Vm& vm, const std::string& text);
    /// `record` in `state` with this operation written into it: the intent that recovery goes by.
    [[nodiscard]] static VmRecord intent(const Operation& op, VmRecord record, VmState state);
    /// `record` in `state` with no operation in it.
    [[nodiscard]] static VmRecord settled(VmRecord record, VmState state, std::string failure = {});
    [[nodiscard]] VmmBackend& vmmOf(const VmRecord& record) const;
    /// Null if it is not loaded.
    [[nodiscard]] const VmmBackend* findVmm(const VmRecord& record) const noexcept;
    [[nodiscard]] OwnerTag tagOf(const VmRecord& record) const { return {config_.instance, record.uuid}; }
    [[nodiscard]] std::filesystem::path lockFile(const Vm& vm) const { return pathsOf(config_, vm.id, vm.uuid).lock; }

    // create.cpp
    /// Removes what a create that failed has made; false if something stays, and the VM with it.
    bool discardUnfinished(Operation& op);
    static void noteHooks(Vm& vm);
    /// Throws NotSupported about "ports[i].protocol" for a protocol that the network backend lacks.
    void refuseUnpublishable(const std::vector<PortRequest>& ports) const;
    /// Makes the disks that are used in place the VM's, and throws about the member whose file is a disk of another VM
    /// (AlreadyExists), is written to by another program now (Conflict), or is given twice, once to be written to.
    void claimDisks(const VmRecord& record, const OpenedImages& images);
    /// The same of the disks of a record of an earlier server; what cannot be claimed is logged.
    void adoptDisks(const VmRecord& record);
    /// The same before a start, as another file may lie there by now. The disks as they were looked at.
    std::vector<OpenedDisk> claimBorrowed(const VmRecord& record);

    // change.cpp
    void changeVm(Operation& op, const ChangeRequest& request);
    /// Brings the guest, if there is one, to what its record says. `reread`: drives whose file was named, and may have
    /// another size by now.
    void adjustGuest(const VmRecord& record, const std::set<std::string>& reread = {});

    // views.cpp
    [[nodiscard]] ComponentHealth vmmHealth(const std::string& name, ComponentHealth found) const;

    // lifecycle.cpp
    void createVm(Operation& op, const OpenedImages& images);
    /// makeDisks(), and once more if there is no room for them and a VMM gave some up.
    void makeDisksOf(const VmRecord& record, const OpenedImages& images);
    /// Whether any VMM had something to give up: the data root is everybody's. What cannot be given up is logged.
    bool giveUpRoom(const VmRecord& record);
    void startVm(Operation& op);
    /// Throws if the host cannot give the VM's guest at this moment what it was made with.
    void refuseUnfitHost(const VmRecord& record, const VmmBackend& vmm) const;
    /// Throws AlreadyExists if another program took a port of the VM while no server held it: published, the port would
    /// be taken from that program.
    void refuseBusyPorts(const VmRecord& record);
    /// The VMM's plan, which its restart policy must fit.
    static LaunchPlan launchPlan(const VmRecord& record, const VmmBackend& vmm, const GuestSpec& guest,
                                 const VmmPlace& place);
    /// Starts the VMM on the wire, and forgets its earlier run.
    ProcessStatus launch(Operation& op, const VmRecord& record, const LaunchPlan& plan, const NetworkAttachment& wire);
    /// Throws NotSupported about "restartPolicy" if it cannot be kept with this plan.
    static void refuseUnattended(const VmRecord& record, const LaunchPlan& plan);
    StoppedBy stopVm(Operation& op);
    void pauseVm(Operation& op);
    void resumeVm(Operation& op);
    /// pause and resume: from the one state to the other.
    void freeze(Operation& op, VmState from, VmState to);
    /// All of a stop after its intent; leaves the VM in `final`. `lost`: what is said of its end if the supervisor
    /// knows nothing of it. `startDue`: it is written down that the server is to start it again.
    StoppedBy completeStop(Operation& op, VmState final, const std::string& failure,
                           const std::optional<VmEnd>& lost = {}, bool startDue = false);
    /// Takes over how a process that is Exited ended.
    void noteEnd(VmRecord& record, const ProcessStatus& process) const;
    StoppedBy removeVm(Operation& op, bool retainData);
    /// Ends the VMM if it runs, and its restarts: asks the guest, then SIGTERM, then SIGKILL, each with a deadline of
    /// its own. Throws Timeout if it outlives all three.
    StoppedBy endGuest(Operation& op, const VmRecord& record);
    /// Ends it by SIGKILL, which `by` sends, and forgets it.
    void killVmm(const VmRecord& record, const std::string& by);
    /// How the VMM ended, if it did, and what it printed last: "; ..." to be added to an error's text.
    [[nodiscard]] std::string lastWords(const VmRecord& record) const;
    /// What it printed last, as lastWords(); empty if it printed nothing.
    [[nodiscard]] std::string lastOutput(const VmRecord& record) const;
    /// Says in the log which disks are still owed, for somebody to see to. `forgotten`: with this, nothing else knows
    /// of it any more.
    void warnAway(const std::string& vm, const std::vector<AwayDisk>& away, bool forgotten);
    /// The same, and in the timeline.
    void tellAway(Operation& op, const std::vector<AwayDisk>& away, bool forgotten);
    /// Every step of taking a VM off the host but its end, each run whatever the ones before did. In `record` a
    /// borrowed disk that is back is no longer noted as lent. Gives the disks that are not there.
    std::vector<AwayDisk> tearDown(Operation& op, VmRecord& record);
    /// Throws what failed first in a teardown. Before, what `record` says of lent disks is written down: one that is
    /// back is its owner's to change, and nothing of it may be taken for a loan when the teardown is tried again.
    void rethrowFirst(Operation& op, const VmRecord& record);
    void forgetVm(Operation& op);

    // probe.cpp
    /// Whether it runs, or is paused, and nobody has it in hand.
    [[nodiscard]] static bool isToBeProbed(const Vm& vm);
    [[nodiscard]] std::vector<std::shared_ptr<Vm>> vmsToProbe() const;
    /// Asks its VMM, notes what comes of it, and has done what the VM's policy says.
    void probe(const std::shared_ptr<Vm>& vm) noexcept;
    /// Notes an answer (`cause` empty) or the lack of one of the run with this pid; true if the VM's policy is due.
    bool noteProbe(Vm& vm, int pid, const std::string& cause);
    /// So many questions in a row must be without an answer before the VM's policy is carried out, and as many with one
    /// before that is forgotten. Under the VM's mutex.
    [[nodiscard]] unsigned patience(const Vm& vm) const;
    /// Says in the log that the VM could not be asked, once for each cause.
    void sayTrouble(Vm& vm, int pid, const std::string& cause);
    /// What is due of it now, as an operation: startDueVm(), or endUnresponsive() unless another one holds the VM.
    void enforce(const std::shared_ptr<Vm>& vm) noexcept;
    /// Whether its restart policy holds, in the record as on the host. Withdrawn in the record first and permitted
    /// there last: a server that dies in between leaves a policy that its successor carries out in its parent's place.
    void permitRestarts(Operation& op, bool permitted);
    /// Kills the VMM, if it is still that one, and starts the VM again if its policy says so.
    void endUnresponsive(Operation& op, int pid);
    /// `process` with who killed it, if that was endUnresponsive() of this server and the supervisor could not note it.
    [[nodiscard]] static ProcessStatus knowingKill(const Vm& vm, ProcessStatus process);
    /// Whether the server is to start the VM, whose run has ended so, again: it was killed because it did not answer
    /// and its policy wants it back, or it ended by itself while that kill kept its restart policy from holding.
    [[nodiscard]] static bool isStartDueAfter(const VmRecord& record, const VmEnd& end, bool exhausted);
    /// Whether the record says so: it stays said until the start, or a stop, or that start's failure.
    [[nodiscard]] static bool isStartDue(const VmRecord& record) noexcept;
    void startDueVm(Operation& op);

    // reconcile.cpp
    void loadRecords();
    void addRecord(const StoredRecord& stored);
    /// Says in the log and in the timeline that ports of an adopted VM are not held.
    void noteLostPorts(Vm& vm, const std::vector<std::string>& lost);
    /// recoverOne() of a VM that was postponed, unless somebody holds it.
    void settlePostponed(const std::shared_ptr<Vm>& vm);
    /// What the host has of a VM when its server comes back.
    struct Remains {
        ProcessStatus process;
        bool wire = false;  ///< something of its network
    };
    /// What one VM needs after a restart of the server, while `op` holds it.
    void reconcile(Operation& op, const Remains& remains);
    /// reconcile() with its events, and whatever fails said.
    void recoverOne(Operation& op, const Remains& remains);
    void adoptRunning(Operation& op, const ProcessStatus& process);
    /// After the end of a VMM: an operation that was begun is gone on with, an end that none wanted is settled.
    void followEnd(Operation& op, const ProcessStatus& process);
    void settleEnded(Operation& op, const ProcessStatus& found);
    void finishOrUndoStart(Operation& op, const ProcessStatus& process);
    /// Whether a corrupt record hides which things on the host are its VM's.
    [[nodiscard]] bool strangersPossible() const;
    void postpone(Operation& op, const Error& why);
    /// Settles what was postponed, as far as it can be now.
    void retryPostponed();
    /// Removes what bears this instance's tag and belongs to none of `known`; `wires`: what the network backend found.
    void removeStrays(const std::set<Uuid>& known, const std::vector<NetworkFinding>& wires);
    /// Puts what the VM's parent did by the restart policy into the timeline, as far as it is not there yet.
    void tellRestarts(Vm& vm, const ProcessStatus& process);
    /// runOrPostpone(), or, if another operation holds the VM, afterExit() once more when it is free.
    void runOrAskAgain(const std::shared_ptr<Vm>& vm, const std::string& name,
                       const std::function<void(Operation&)>& body);
    /// After an end or a restart.
    void afterExit(const Uuid& uuid);
    void afterRestart(const std::shared_ptr<Vm>& vm, const ProcessStatus& process);
    void watchExits(const std::stop_token& stop);
    void queueExit(const Uuid& uuid);

    EngineConfig config_;  // after the constructor only its Adjustables change
    const Backends backends_;
    Log& log_;
    Registry registry_;
    Identities identities_;
    DiskOwners disks_;

    mutable std::mutex drainMutex_;
    std::condition_variable drained_;
    std::size_t running_ = 0;  // operations in progress; guarded by drainMutex_
    bool draining_ = false;    // guarded by drainMutex_

    std::mutex troubleMutex_;
    std::string trouble_;  // why a VM could not be asked, as last said; guarded by troubleMutex_

    std::mutex exitMutex_;
    std::condition_variable_any exitQueued_;
    std::deque<Uuid> exits_;    // guarded by exitMutex_
    std::set<Uuid> postponed_;  // guarded by exitMutex_
    // Last: they end before what they use.
    std::jthread exitWatcher_;
    std::vector<std::jthread> workers_;  // of recover() and drain()
    // From recover() on.
    std::optional<Enforcer> enforcer_;
    std::optional<Monitor> monitor_;
};

}  // namespace mergen::engine
