// The steps of create, start, stop, pause, resume and delete. Each operation first writes its intent, then does steps
// that are idempotent and undoable, then writes the outcome: whatever happens in between, recover() reads the intent
// and finishes or undoes.
#include <cerrno>
#include <signal.h>
#include <unistd.h>

#include <mergen/base/process.hpp>
#include <mergen/base/text.hpp>

#include "console.hpp"
#include "ending.hpp"
#include "engine_impl.hpp"
#include "request_names.hpp"

namespace mergen::engine {

namespace {
/// Written as the operation of a delete that leaves the data folder.
constexpr auto deleteRetainingData = "delete-retaining-data";
}  // namespace

void Engine::Impl::createVm(Operation& op, const OpenedImages& images) {
    op.step("record", [&] { persist(op.vm(), intent(op, op.record(), VmState::Creating)); });
    op.step(
        "disks", [&] { makeDisksOf(op.record(), images); }, [&] { removeDisks(config_, op.record()); });
    op.step("commit", [&] { persist(op.vm(), settled(op.record(), VmState::Created)); });
}

void Engine::Impl::makeDisksOf(const VmRecord& record, const OpenedImages& images) {
    const auto make = [&] { makeDisks(config_, record, images, vmmOf(record), backends_.storage.traits().durable); };
    try {
        return make();
    } catch (const Error& error) {
        if (error.errnum() != ENOSPC && error.errnum() != EDQUOT) throw;
        if (!giveUpRoom(record)) throw;
        removeDisks(config_, record);  // what is half made
    }
    make();
}

bool Engine::Impl::giveUpRoom(const VmRecord& record) {
    bool any = false;
    for (const auto& [name, vmm] : backends_.vmms) {
        try {
            if (!vmm->giveUpRoom()) continue;
            any = true;
            log_.info("vm.create.room_given_up", {{"vm", record.id.str()}, {"by", name}});
        } catch (const Error& error) {
            log_.warning("vm.create.room_kept", {{"vm", record.id.str()}, {"by", name}, {"cause", error.what()}});
        }
    }
    return any;
}

void Engine::Impl::startVm(Operation& op) {
    const VmRecord before = op.record();
    switch (before.state) {
        case VmState::Running:
        case VmState::Paused:
            if (backends_.supervisor.status(tagOf(before)).state != ProcessState::Running) {
                throw Error(ErrorKind::Conflict,
                            "the VMM of '" + before.id.str() + "' has ended in this moment; ask again");
            }
            op.note("skipped", "it runs already");
            return;
        case VmState::Created:
        case VmState::Stopped:
        case VmState::Failed:
            break;
        default:
            throw Error(
                ErrorKind::FailedPrecondition,
                "VM '" + before.id.str() + "' is " + std::string(toString(before.state)) + " and cannot be started");
    }
    VmmBackend& vmm = vmmOf(before);
    const OwnerTag owner = tagOf(before);
    const NetworkSpec network = networkSpec(config_, before);
    const VmmPlace place = vmmPlace(config_, before);
    NetworkAttachment wire;
    ProcessStatus process;

    // If the VMM outlives its end, what it uses stays with it, and a later stop takes it away (T10).
    const auto unlessItRuns = [&](std::function<void()> undo) {
        return [this, owner, undo = std::move(undo)] {
            if (backends_.supervisor.status(owner).state == ProcessState::Running) {
                throw Error(ErrorKind::FailedPrecondition, "the VMM still runs");
            }
            undo();
        };
    };
    op.step("host", [&] { refuseUnfitHost(before, vmm); });
    op.step("ports", [&] { refuseBusyPorts(before); });
    std::vector<OpenedDisk> disks;  // held open until the end: those that were claimed are those that are lent
    std::map<std::string, DiskOwner> diskOwners;  // to whom they, as they are lent, are owed
    if (!borrowedDisks(before).empty()) {
        op.step("claim-disks", [&] {
            disks = claimBorrowed(before);
            diskOwners = ownersBeforeLoan(disks, before);
        });
    }
    try {
        op.step("intent", [&] {
            VmRecord next = intent(op, before, VmState::Starting);
            next.bootId = bootId();
            next.diskOwners = diskOwners;
            next.restarts = 0;
            persist(op.vm(), std::move(next));
        });
        tellAway(op, replacedDisks(disks, before), /*forgotten=*/true);
        op.step(
            "lend-disks", [&] { lendDisks(config_, before, disks); }, unlessItRuns([&] {
                const TakenBack back = takeBackDisks(op.record(), disks);
                diskOwners = back.owed;
                if (back.failure) throw Error(*back.failure);
            }));
        op.step(
            "run-directory", [&] { makeRunDirectory(config_, before); },
            unlessItRuns([&] { removeRunDirectory(config_, before.uuid); }));
        const auto detach = [&] { backends_.network.detach(network); };
        op.step(
            "reserve", [&] { wire = backends_.network.reserve(network); }, unlessItRuns(detach));
        const GuestSpec guest = guestSpec(config_, before, wire.tap);
        op.step(
            "prepare", [&] { vmm.prepare(guest, place); }, unlessItRuns([&] { vmm.cleanUp(place); }));
        LaunchPlan plan;
        op.step("plan", [&] { plan = launchPlan(before, vmm, guest, place); });
        Operation::Part wiring{"network", [&] { backends_.network.attach(network); }, unlessItRuns(detach)};
        Operation::Part launching{"launch", [&] { process = launch(op, before, plan, wire); },
                                  [&] { killVmm(before, op.name()); }};
        if (plan.taps.empty()) {
            // The VMM comes up while its wire is made: it looks for its tap only when it is booted.
            op.both(std::move(wiring), std::move(launching));
        } else {
            op.step(wiring.step, wiring.action, std::move(wiring.undo));
            op.step(launching.step, launching.action, std::move(launching.undo));
        }
        op.step("boot", [&] {
            const auto alive = [&] { return backends_.supervisor.status(owner).state == ProcessState::Running; };
            try {
                vmm.boot(place, guest, config_.startTimeout, alive);
            } catch (const Error& error) {
                throw Error(error.kind(), error.what() + lastWords(before));
            }
        });
        op.step(
            "publish", [&] { backends_.network.publish(network); }, [&] { backends_.network.unpublish(network); });
        op.step("commit", [&] { persist(op.vm(), settled(op.record(), VmState::Running)); });
        // Only now: what the server still boots must not be started again beside it.
        if (before.restartPolicy != RestartPolicy::No) {
            op.step("restarts", [&] {
                backends_.supervisor.permitRestarts(owner, true);
                if (backends_.supervisor.status(owner).state != ProcessState::Running) {
                    throw Error(ErrorKind::Unavailable,
                                "the VMM ended before its restart policy could take hold" + lastWords(before));
                }
            });
        }
    } catch (const Error& error) {
        op.undoAll();
        // Where not even the intent could be written, nothing has happened and the VM is what it was.
        if (op.record().state != before.state) {
            VmRecord failed = settled(op.record(), VmState::Failed, error.what());
            failed.diskOwners = diskOwners;
            persistBestEffort(op.vm(), std::move(failed));
        }
        if (error.field().empty()) throw;
        // About no member of this request: the host is not as it was when the VM was made.
        throw Error(error.kind() == ErrorKind::InvalidArgument ? ErrorKind::FailedPrecondition : error.kind(),
                    error.what());
    }
    const std::lock_guard lock(op.vm().mutex);
    op.vm().pid = process.pid;
}

LaunchPlan Engine::Impl::launchPlan(const VmRecord& record, const VmmBackend& vmm, const GuestSpec& guest,
                                    const VmmPlace& place) {
    LaunchPlan plan = vmm.plan(guest, place);
    try {
        refuseUnattended(record, plan);
    } catch (const Error& error) {
        throw Error(error.kind(), error.what());  // about no member of this request
    }
    return plan;
}

ProcessStatus Engine::Impl::launch(Operation& op, const VmRecord& record, const LaunchPlan& plan,
                                   const NetworkAttachment& wire) {
    ProcessSpec spec;
    spec.owner = tagOf(record);
    spec.arguments = plan.arguments;
    spec.environment = plan.environment;
    spec.workingDirectory = vmmPlace(config_, record).runDirectory;
    spec.netns = wire.netns;
    spec.taps = plan.taps;
    spec.credentials = plan.dropsPrivileges ? Credentials{::geteuid(), ::getegid()} : record.credentials;
    spec.groups = plan.groups;
    spec.pidNamespace = plan.pidNamespace;
    spec.console = pathsOf(config_, record.id, record.uuid).console();
    spec.consoleLimit = config_.consoleLimit;
    spec.restart = {record.restartPolicy, record.maxRestarts, plan.unattended, plan.stale};
    backends_.supervisor.forget(spec.owner);  // the exit of an earlier run
    {
        const std::lock_guard lock(op.vm().mutex);
        op.vm().restarts = {};
        op.vm().killSent = false;
    }
    return backends_.supervisor.launch(spec);
}

void Engine::Impl::refuseUnattended(const VmRecord& record, const LaunchPlan& plan) {
    if (record.restartPolicy == RestartPolicy::No || !plan.unattended.empty()) return;
    throw Error(ErrorKind::NotSupported, "restartPolicy is '" + std::string(toString(record.restartPolicy)) +
                                             "', but the VMM '" + record.vmm + "' cannot be started without the server")
        .about("restartPolicy");
}

void Engine::Impl::refuseUnfitHost(const VmRecord& record, const VmmBackend& vmm) const {
    try {
        vmm.checkStart(guestSpec(config_, record, backends_.network.traits().touchesHost));
    } catch (const Error& error) {
        if (error.field().empty()) throw;
        // About no member of this request, and in the words of the one that made the VM.
        throw Error(error.kind(), inRequestWords(error, record).field() + ": " + error.what());
    }
}

void Engine::Impl::refuseBusyPorts(const VmRecord& record) {
    for (const PortBinding& port : record.ports) {
        if (backends_.network.holdPort(port.protocol, port.host)) continue;
        throw Error(ErrorKind::AlreadyExists, "host port " + std::to_string(port.host) + "/" +
                                                  std::string(toString(port.protocol)) +
                                                  " is in use by another program of the host");
    }
}

StoppedBy Engine::Impl::stopVm(Operation& op) {
    VmRecord record = op.record();
    switch (record.state) {
        case VmState::Created:
        case VmState::Stopped:
            if (!record.diskOwners.empty()) return completeStop(op, record.state, record.failure);
            op.note("skipped", "it does not run");
            if (isStartDue(record)) {
                op.step("commit", [&] { static_cast<void>(persistIfRoom(op, settled(record, record.state))); });
            }
            return StoppedBy::Nothing;
        case VmState::Running:
        case VmState::Paused:
        case VmState::Stopping:
        case VmState::Failed:
            break;
        default:
            throw Error(
                ErrorKind::FailedPrecondition,
                "VM '" + record.id.str() + "' is " + std::string(toString(record.state)) + " and cannot be stopped");
    }
    op.step("intent", [&] { static_cast<void>(persistIfRoom(op, intent(op, record, VmState::Stopping))); });
    return completeStop(op, VmState::Stopped, {});
}

void Engine::Impl::pauseVm(Operation& op) {
    freeze(op, VmState::Running, VmState::Paused);
}

void Engine::Impl::resumeVm(Operation& op) {
    freeze(op, VmState::Paused, VmState::Running);
}

void Engine::Impl::freeze(Operation& op, VmState from, VmState to) {
    const VmRecord before = op.record();
    if (before.state == to) {
        op.note("skipped", "it is " + std::string(toString(to)) + " already");
        return;
    }
    const std::string vm = "VM '" + before.id.str() + "'";
    if (before.state != from) {
        throw Error(ErrorKind::FailedPrecondition,
                    vm + " is " + std::string(toString(before.state)) + " and cannot " + op.name());
    }
    VmmBackend& vmm = vmmOf(before);
    if (!vmm.traits().pause) {
        throw Error(ErrorKind::NotSupported, "the VMM '" + before.vmm + "' of " + vm + " cannot pause a guest");
    }
    const ProcessStatus process = backends_.supervisor.status(tagOf(before));
    if (process.pid == 0) {
        throw Error(ErrorKind::FailedPrecondition, vm + " has ended or waits to be started again");
    }
    const VmmPlace place = vmmPlace(config_, before);
    const auto set = [&](VmState state) {
        if (state == VmState::Paused) {
            vmm.pause(place, config_.controlTimeout);
        } else {
            vmm.resume(place, config_.controlTimeout);
        }
    };
    try {
        op.step("intent", [&] { persist(op.vm(), intent(op, before, from)); });
        op.step(
            "guest", [&] { set(to); }, [&] { set(from); });
        op.step("commit", [&] { persist(op.vm(), settled(op.record(), to)); });
    } catch (const Error&) {
        op.undoAll();
        persistBestEffort(op.vm(), settled(op.record(), from, before.failure));
        throw;
    }
    const std::lock_guard lock(op.vm().mutex);
    op.vm().restarts.whenPaused = process.restarts;
}

StoppedBy Engine::Impl::completeStop(Operation& op, VmState final, const std::string& failure,
                                     const std::optional<VmEnd>& lost, bool startDue) {
    VmRecord record = op.record();
    StoppedBy by = StoppedBy::Nothing;
    // Until the VMM has ended, its wire and its files must stay: only then is anything taken away (T10).
    op.step("guest", [&] { by = endGuest(op, record); });
    const ProcessStatus process = knowingKill(op.vm(), backends_.supervisor.status(tagOf(record)));
    noteEnd(record, process);
    if (lost && process.state == ProcessState::Absent) record.lastEnd = lost;
    tellAway(op, tearDown(op, record), /*forgotten=*/false);
    rethrowFirst(op, record);
    record = settled(std::move(record), final, failure);
    record.restartsWithdrawn = false;
    if (startDue) {
        record = intent(op, std::move(record), final);
        record.operation = probeOperation;
    }
    bool written = false;
    op.step("commit", [&] { written = persistIfRoom(op, std::move(record)); });
    // Only once the record has it: until then the supervisor alone knows how the VMM ended. The next start forgets,
    // too.
    if (written) op.attempt("forget", [&] { backends_.supervisor.forget(process.owner); });
    return by;
}

void Engine::Impl::noteEnd(VmRecord& record, const ProcessStatus& process) const {
    if (process.state != ProcessState::Exited) return;
    if (process.exit && process.exit == record.lastExit) return;  // noted before the server was killed
    record.restarts = process.restarts;
    if (process.exit) record.lastExit = process.exit;
    record.lastEnd = endOf(process, findVmm(record));
    // A guest that was asked to end has obeyed, whatever its kernel said of it. Not if it had ended before: its end may
    // be known no sooner, as that of one that waits to be started again.
    const bool ending = record.state == VmState::Stopping || record.state == VmState::Deleting;
    const bool asked =
        ending && record.lastEnd->at >= std::chrono::floor<std::chrono::milliseconds>(record.operationSince);
    const bool byItself = record.lastEnd->by == EndedBy::Guest || record.lastEnd->by == EndedBy::Panic;
    if (asked && byItself) record.lastEnd = obeyed(*record.lastEnd, record.operation);
}

StoppedBy Engine::Impl::removeVm(Operation& op, bool retainData) {
    VmRecord record = op.record();
    StoppedBy by = StoppedBy::Nothing;
    if (record.state != VmState::Corrupt) {
        // The point of no return: from here on recover() completes the delete. What was promised to be kept is kept,
        // also if the delete that is asked for again does not say so.
        if (record.state != VmState::Deleting) {
            VmRecord next = intent(op, record, VmState::Deleting);
            if (retainData) next.operation = deleteRetainingData;
            op.step("intent", [&] { static_cast<void>(persistIfRoom(op, std::move(next))); });
        } else {
            retainData = retainData || record.operation == deleteRetainingData;
        }
        op.step("guest", [&] { by = endGuest(op, record); });
        const std::vector<AwayDisk> away = tearDown(op, record);
        op.attempt("forget", [&] { backends_.supervisor.forget(tagOf(record)); });
        op.attempt("disks", [&] { retainData ? surrenderDisks(config_, record) : removeDisks(config_, record); });
        rethrowFirst(op, record);
        tellAway(op, away, /*forgotten=*/true);  // only now: a delete that is not done yet forgets nothing
    } else if (!op.vm().nameless) {
        // Nothing of the record can be relied on but whose it is: all that bears its tag goes.
        op.attempt("guest", [&] {
            const bool runs = backends_.supervisor.status(tagOf(record)).state == ProcessState::Running;
            killVmm(record, op.name());
            if (runs) by = StoppedBy::Sigkill;
        });
        op.attempt("network", [&] { backends_.network.removeStray(tagOf(record)); });
        for (const auto& [name, vmm] : backends_.vmms) {
            op.attempt("vmm", [&] { vmm->removeStray(record.uuid); });
        }
        op.attempt("run-directory", [&] { removeRunDirectory(config_, record.uuid); });
        op.attempt("disks", [&] { retainData ? surrenderDisks(config_, record) : removeDisks(config_, record); });
        op.rethrowFirst();
    }
    op.step("record", [&] { static_cast<void>(backends_.storage.erase(record.id)); });
    forgetVm(op);
    return by;
}

StoppedBy Engine::Impl::endGuest(Operation& op, const VmRecord& record) {
    const OwnerTag owner = tagOf(record);
    if (backends_.supervisor.status(owner).state != ProcessState::Running) return StoppedBy::Nothing;
    ProcessStatus last;
    const auto ended = [&](std::chrono::milliseconds limit) {
        last = backends_.supervisor.waitExit(owner, limit);
        return last.state != ProcessState::Running;
    };
    // First of all: whatever ends it from here on must not be taken for a failure to be repaired.
    backends_.supervisor.permitRestarts(owner, false);
    if (backends_.supervisor.status(owner).pid == 0 && ended(config_.killGrace)) {
        op.note("note", "nothing of it was running");
        return StoppedBy::Nothing;
    }
    try {
        VmmBackend& vmm = vmmOf(record);
        const VmmPlace place = vmmPlace(config_, record);
        // A VMM that does not answer is waited for no longer than a guest that does not obey, if that is given any
        // time.
        constexpr std::chrono::milliseconds least{1000};
        const std::chrono::milliseconds grace = config_.stopGrace;
        const std::chrono::milliseconds control = config_.controlTimeout;
        const auto limit = std::min(control, std::max(grace, least));
        // A paused guest cannot obey (T18).
        if (vmm.query(place, limit) == GuestState::Paused) vmm.resume(place, limit);
        vmm.requestStop(place, limit);
        if (ended(config_.stopGrace)) {
            const StoppedBy by = stoppedBy(last);
            op.note("note", by == StoppedBy::Guest ? "the guest shut down" : "the VMM ended otherwise in that moment");
            return by;
        }
        op.note("note", "the guest did not shut down in time");
    } catch (const Error& error) {
        op.note("note", std::string("the guest cannot be asked to shut down: ") + error.what());
    }
    for (const int signal : {SIGTERM, SIGKILL}) {
        static_cast<void>(backends_.supervisor.signal(owner, signal, op.name()));
        if (ended(config_.killGrace)) {
            const StoppedBy by = stoppedBy(last);
            op.note("note", "ended by " + std::string(toString(by)));
            return by;
        }
    }
    throw Error(ErrorKind::Timeout, "the VMM of '" + record.id.str() + "' outlives SIGKILL");
}

std::string Engine::Impl::lastWords(const VmRecord& record) const {
    std::string words;
    const ProcessStatus process = backends_.supervisor.status(tagOf(record));
    if (process.state == ProcessState::Exited) {
        words +=
            process.exit ? "; the VMM ended with " + describeExit(*process.exit, findVmm(record)) : "; " + process.note;
    }
    return words + lastOutput(record);
}

std::string Engine::Impl::lastOutput(const VmRecord& record) const {
    constexpr std::size_t enough = 400;
    const std::string console = readConsole(pathsOf(config_, record.id, record.uuid).console(), {.bytes = enough});
    const std::string_view words = trim(console);
    return words.empty() ? "" : "; its last output: " + printable(words, 4 * enough);  // the last word counts most
}

void Engine::Impl::killVmm(const VmRecord& record, const std::string& by) {
    const OwnerTag owner = tagOf(record);
    backends_.supervisor.permitRestarts(owner, false);
    static_cast<void>(backends_.supervisor.signal(owner, SIGKILL, by));
    if (backends_.supervisor.waitExit(owner, config_.killGrace).state == ProcessState::Running) {
        throw Error(ErrorKind::Timeout, "the VMM of '" + record.id.str() + "' outlives SIGKILL");
    }
    backends_.supervisor.forget(owner);
}

std::vector<AwayDisk> Engine::Impl::tearDown(Operation& op, VmRecord& record) {
    std::vector<AwayDisk> away;
    const NetworkSpec network = networkSpec(config_, record);
    op.attempt("network", [&] { backends_.network.detach(network); });
    op.attempt("run-directory", [&] {
        if (const auto vmm = backends_.vmms.find(record.vmm); vmm != backends_.vmms.end()) {
            vmm->second->cleanUp(vmmPlace(config_, record));
        }
        removeRunDirectory(config_, record.uuid);
    });
    op.attempt("take-back-disks", [&] {
        TakenBack back = takeBackDisks(config_, record);
        record.diskOwners = back.owed;
        away = std::move(back.away);
        if (back.failure) throw Error(*back.failure);
    });
    const std::lock_guard lock(op.vm().mutex);
    op.vm().pid = 0;
    op.vm().probe = {};
    return away;
}

void Engine::Impl::warnAway(const std::string& vm, const std::vector<AwayDisk>& away, bool forgotten) {
    for (const AwayDisk& disk : away) {
        log_.warning(
            "vm.disk.owed",
            {{"vm", vm},
             {"cause", toString(disk)},
             {"effect", forgotten ? "it is left to whoever operates this host, and Mergen forgets it"
                                  : "it is given back when the VM is stopped or deleted, or the server started, "
                                    "after it is there again"}});
    }
}

void Engine::Impl::tellAway(Operation& op, const std::vector<AwayDisk>& away, bool forgotten) {
    for (const AwayDisk& disk : away) op.note("note", toString(disk));
    warnAway(op.vm().id.str(), away, forgotten);
}

void Engine::Impl::rethrowFirst(Operation& op, const VmRecord& record) {
    try {
        op.rethrowFirst();
    } catch (const Error&) {
        VmRecord now = op.record();
        now.diskOwners = record.diskOwners;
        if (now.diskOwners != op.record().diskOwners) persistBestEffort(op.vm(), std::move(now));
        throw;
    }
}

void Engine::Impl::forgetVm(Operation& op) {
    Vm& vm = op.vm();
    const VmRecord record = op.record();
    op.removeLock();
    disks_.release(vm.id);  // while the id is still this VM's
    registry_.remove(vm);
    // A corrupt record may have reserved nothing but its id.
    if (record.state != VmState::Corrupt || vm.holds) identities_.release(record);
    const std::lock_guard lock(vm.mutex);
    vm.erased = true;  // only now: who is told that it is gone finds nothing of it
}

}  // namespace mergen::engine
