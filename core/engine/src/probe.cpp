// Whether a VMM still answers, and what follows if it does not.
#include <algorithm>
#include <array>
#include <signal.h>
#include <utility>

#include "ending.hpp"
#include "engine_impl.hpp"

namespace mergen::engine {

namespace {

/// A VM that does not answer again after it was killed for that is given twice the time before the next kill, and so on
/// up to 128 times (64 minutes with the default settings): on a host that is overloaded a VM that is killed and booted
/// for ever would only add to the load.
constexpr unsigned mostDoublings = 7;

}  // namespace

bool Engine::Impl::isToBeProbed(const Vm& vm) {
    const std::lock_guard lock(vm.mutex);
    const bool up = vm.record.state == VmState::Running || vm.record.state == VmState::Paused;
    return up && vm.pid != 0 && !vm.holder && !vm.postponed && !vm.erased;
}

std::vector<std::shared_ptr<Vm>> Engine::Impl::vmsToProbe() const {
    std::vector<std::shared_ptr<Vm>> vms = registry_.all();
    std::erase_if(vms, [](const std::shared_ptr<Vm>& vm) { return !isToBeProbed(*vm); });
    return vms;
}

void Engine::Impl::probe(const std::shared_ptr<Vm>& vm) noexcept {
    int pid = 0;
    try {
        if (!isToBeProbed(*vm)) return;
        const VmRecord record = [&] {
            const std::lock_guard lock(vm->mutex);
            pid = vm->pid;
            return vm->record;
        }();
        const VmmBackend* const vmm = findVmm(record);
        if (vmm == nullptr) return;  // it can neither answer nor be started again
        std::string cause;
        try {
            static_cast<void>(vmm->query(vmmPlace(config_, record), config_.probeTimeout));
        } catch (const Error& error) {
            // A server that is out of descriptors or memory must not take its VMs for dead.
            if (error.kind() != ErrorKind::Timeout && error.kind() != ErrorKind::Unavailable) throw;
            cause = error.what();
        }
        if (noteProbe(*vm, pid, cause) && record.onUnresponsive != OnUnresponsive::Nothing) enforcer_->add(vm);
    } catch (const std::exception& error) {  // says nothing of the VMM: it is asked again
        sayTrouble(*vm, pid, error.what());
    }
}

void Engine::Impl::sayTrouble(Vm& vm, int pid, const std::string& cause) {
    // Not in every round, nor for each of a thousand VMs: the cause would be lost among its repetitions.
    const bool ofThisVm = [&] {
        const std::lock_guard lock(vm.mutex);
        if (vm.probe.pid != pid) vm.probe = {.pid = pid};
        return std::exchange(vm.probe.trouble, cause) != cause;
    }();
    const bool ofTheServer = [&] {
        const std::lock_guard lock(troubleMutex_);
        return ofThisVm && std::exchange(trouble_, cause) != cause;
    }();
    if (ofTheServer) log_.warning("vm.probe.failed", {{"vm", vm.id.str()}, {"cause", cause}});
}

unsigned Engine::Impl::patience(const Vm& vm) const {
    return config_.probeFailures << std::min(vm.enforcements.inARow, mostDoublings);
}

bool Engine::Impl::noteProbe(Vm& vm, int pid, const std::string& cause) {
    {
        const std::lock_guard lock(troubleMutex_);
        trouble_.clear();  // the question could be asked
    }
    std::string news;
    bool due = false;
    {
        const std::lock_guard lock(vm.mutex);
        // An operation has begun or another run: what was asked was not asked of this one.
        if (vm.holder || vm.pid != pid) return false;
        Vm::Probe& probe = vm.probe;
        if (probe.pid != pid) probe = {.pid = pid};
        probe.trouble.clear();
        if (cause.empty()) {
            if (probe.unresponsive) news = "the VMM answers again";
            probe = {.pid = pid};
            if (++vm.enforcements.answers >= patience(vm)) vm.enforcements = {};
        } else {
            vm.enforcements.answers = 0;
            if (++probe.failures >= config_.probeFailures && !probe.unresponsive) {
                probe.unresponsive = Unresponsive{std::chrono::system_clock::now(), cause};
                news = "the VMM does not answer: " + cause;
            }
            due = probe.failures >= patience(vm);
        }
        if (news.empty()) return due;
        // Under the lock: who sees the word in the view come or go finds why in the timeline.
        Event event;
        event.vm = vm.id.str();
        event.operation = probeOperation;
        event.operationId = Uuid::random().str();
        event.outcome = "note";
        event.cause = news;
        vm.timeline.append(std::move(event));
    }
    log_.write(cause.empty() ? LogLevel::Info : LogLevel::Warning, "vm.probe",
               std::array<LogField, 2>{LogField{"vm", vm.id.str()}, {"cause", news}});
    return due;
}

void Engine::Impl::enforce(const std::shared_ptr<Vm>& vm) noexcept {
    try {
        const Guard guard(*this);
        bool startDue = false;
        int pid = 0;
        {
            const std::lock_guard lock(vm->mutex);
            startDue = isStartDue(vm->record);
            if (vm->probe.unresponsive && vm->probe.failures >= patience(*vm)) pid = vm->probe.pid;
        }
        if (startDue) runOrAskAgain(vm, std::string(probeOperation), [&](Operation& op) { startDueVm(op); });
        // It may have answered again while it waited for us.
        if (pid != 0) run(vm, std::string(probeOperation), [&](Operation& op) { endUnresponsive(op, pid); });
    } catch (const std::exception& error) {
        // Held by another operation, or the server stops: asked again if the VMM still does not answer then. What
        // failed of this one is in its events and in the log.
        log_.debug("vm.probe.left", {{"vm", vm->id.str()}, {"cause", error.what()}});
    }
}

void Engine::Impl::permitRestarts(Operation& op, bool permitted) {
    VmRecord next = op.record();
    const bool news = next.restartsWithdrawn == permitted;
    next.restartsWithdrawn = !permitted;
    // A hung VMM is killed on a full disk, too.
    if (news && !permitted) static_cast<void>(persistIfRoom(op, next));
    backends_.supervisor.permitRestarts(tagOf(next), permitted);
    if (news && permitted) static_cast<void>(persistIfRoom(op, std::move(next)));
}

void Engine::Impl::endUnresponsive(Operation& op, int pid) {
    const VmRecord record = op.record();
    const OwnerTag owner = tagOf(record);
    const bool up = record.state == VmState::Running || record.state == VmState::Paused;
    if (!up || backends_.supervisor.status(owner).pid != pid) {
        op.note("skipped", "its VMM is another one by now");
        return;
    }
    // There is no intent to write first but that the restart policy is withdrawn: a server that dies in between leaves
    // a VM whose end names this operation, or that has not been killed. Its successor does what is due after either
    // end, as the exit watcher does if the VMM ends later than we wait.
    {
        const std::lock_guard lock(op.vm().mutex);
        op.vm().enforcements = {.inARow = op.vm().enforcements.inARow + 1};
        op.vm().probe.failures = 0;  // a kill that fails is not tried in every round either
    }
    const bool restarts = record.restartPolicy != RestartPolicy::No;
    if (restarts) op.step("withdraw-restarts", [&] { permitRestarts(op, false); });
    op.step("kill", [&] {
        try {
            if (backends_.supervisor.signal(owner, SIGKILL, probeOperation)) {
                const std::lock_guard lock(op.vm().mutex);
                op.vm().killSent = true;
            }
        } catch (const Error&) {
            // It lives on. One that the signal was sent to does not, however late it ends: its parent must not go by a
            // policy that this one overrules.
            if (restarts) op.attempt("permit-restarts", [&] { permitRestarts(op, true); });
            throw;
        }
        if (backends_.supervisor.waitExit(owner, config_.killGrace).state == ProcessState::Running)
            throw Error(ErrorKind::Timeout, "the VMM of '" + record.id.str() + "' outlives SIGKILL");
    });
    settleEnded(op, backends_.supervisor.status(owner));
    startDueVm(op);
}

ProcessStatus Engine::Impl::knowingKill(const Vm& vm, ProcessStatus process) {
    const bool killed = process.exit && process.exit->signalled && process.exit->code == SIGKILL;
    const std::lock_guard lock(vm.mutex);
    if (vm.killSent && killed && !process.sent) process.sent = SentSignal{SIGKILL, std::string(probeOperation)};
    return process;
}

bool Engine::Impl::isStartDueAfter(const VmRecord& record, const VmEnd& end, bool exhausted) {
    if (end.operation == probeOperation) return record.onUnresponsive == OnUnresponsive::Restart;
    if (!record.restartsWithdrawn || exhausted) return false;
    return record.restartPolicy == RestartPolicy::Always ||
           (record.restartPolicy == RestartPolicy::OnFailure && end.by != EndedBy::Guest);
}

bool Engine::Impl::isStartDue(const VmRecord& record) noexcept {
    const bool atRest = record.state == VmState::Stopped || record.state == VmState::Failed;
    return atRest && record.operation == probeOperation;
}

void Engine::Impl::startDueVm(Operation& op) {
    const VmRecord record = op.record();
    if (!isStartDue(record)) return;  // its guest has ended, or somebody was faster
    try {
        startVm(op);
    } catch (const Error& error) {
        // Also where it fails before its intent: it is tried once.
        if (isStartDue(op.record())) persistBestEffort(op.vm(), settled(record, VmState::Failed, error.what()));
        throw;
    }
}

}  // namespace mergen::engine
