// What is true after a restart of the server, and after the end of a VMM: the record says what was meant, the host says
// what is, and the two are brought together. Memory is never asked.
#include <algorithm>
#include <array>
#include <atomic>
#include <map>
#include <set>
#include <thread>
#include <vector>

#include <mergen/base/file.hpp>
#include <mergen/base/process.hpp>
#include <mergen/base/text.hpp>
#include <mergen/engine/asked_by.hpp>

#include "ending.hpp"
#include "engine_impl.hpp"
#include "vm_lock.hpp"

namespace mergen::engine {

namespace {

constexpr std::size_t page = 500;
/// Of one question to a VMM during adoption: a frozen one must not hold up the start of the server.
constexpr std::chrono::milliseconds adoptionTimeout{500};
/// Between two looks at VMs whose lock file another program holds.
constexpr std::chrono::seconds retryInterval{1};
/// VMs that are adopted at once; most of the time each waits for its VMM or for the disk.
constexpr std::size_t adopters = 8;

/// The identity by which a corrupt record's VM is known on the host, as far as its data folder or its id tells.
std::optional<Uuid> ownerOf(const EngineConfig& config, const RecordId& id) {
    const auto owner = ownerOfDisks(config, id);
    return owner ? owner : uuidOf(id);
}

}  // namespace

void Engine::Impl::recover() {
    const SteadyTime begin = std::chrono::steady_clock::now();
    loadRecords();
    std::map<Uuid, ProcessStatus> processes;
    for (ProcessStatus& process : backends_.supervisor.list()) processes.emplace(process.owner.vm, std::move(process));
    // Of a VM at rest as well: its server may have been killed while traces of its wire were still being taken away.
    const std::vector<NetworkFinding> wires = backends_.network.list();
    std::set<Uuid> wired;
    for (const NetworkFinding& finding : wires) wired.insert(finding.owner.vm);

    // Each VM is held from before anybody can ask for it until it has been looked at.
    struct Task {
        std::unique_ptr<Operation> op;
        Remains remains;
    };
    const auto tasks = std::make_shared<std::vector<Task>>();
    std::set<Uuid> known;
    for (const std::shared_ptr<Vm>& vm : registry_.all()) {
        known.insert(vm->uuid);
        if (vm->record.state == VmState::Corrupt) continue;
        const auto process = processes.find(vm->uuid);
        tasks->push_back(
            {std::make_unique<Operation>(vm, "recover", log_, [this](const Uuid& uuid) { queueExit(uuid); }),
             {.process = process == processes.end() ? ProcessStatus{} : std::move(process->second),
              .wire = wired.contains(vm->uuid)}});
    }
    const std::size_t pending = workOff(tasks->size(), adopters, begin + config_.recoverLimit, [this, tasks](auto at) {
        Task& task = tasks->at(at);
        try {
            const Guard guard(*this);
            recoverOne(*task.op, task.remains);
        } catch (const Error& error) {  // the server is being stopped already: the next one looks at it
            log_.warning("vm.recover.left", {{"vm", task.op->vm().id.str()}, {"cause", error.what()}});
        }
        task.op.reset();
    });
    removeStrays(known, wires);
    removeStrayLocks(config_.runRoot, config_.instance,
                     [&](const std::string& id) { return registry_.find(id) != nullptr; });
    enforcer_.emplace([this](const std::shared_ptr<Vm>& vm) { enforce(vm); });
    exitWatcher_ = std::jthread([this](const std::stop_token& stop) { watchExits(stop); });
    monitor_.emplace(
        log_, config_.probeInterval, [this] { return vmsToProbe(); },
        [this](const std::shared_ptr<Vm>& vm) { probe(vm); });
    // A VMM that ended between list() and here has sent its event already, and the queue has it.
    const auto took = std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now() - begin);
    log_.write(pending == 0 ? LogLevel::Info : LogLevel::Warning, "engine.recovered",
               std::array<LogField, 3>{LogField{"vms", known.size()}, {"pending", pending}, {"took_ms", took.count()}});
}

void Engine::Impl::recoverOne(Operation& op, const Remains& remains) {
    try {
        reconcile(op, remains);
    } catch (const std::exception& error) {
        log_.error("vm.recover.failed", {{"vm", op.vm().id.str()}, {"cause", error.what()}});
        noteFailure(op.vm(), error.what());
        const std::lock_guard lock(op.vm().mutex);
        op.vm().postponed = false;  // it was looked at; a request may try what failed
    }
    if (isStartDue(op.record())) queueExit(op.vm().uuid);
}

void Engine::Impl::loadRecords() {
    std::optional<RecordId> after;
    for (;;) {
        const std::vector<StoredRecord> stored = backends_.storage.list(after, page);
        for (const StoredRecord& each : stored) addRecord(each);
        if (stored.size() < page) return;
        after = stored.back().record.id;
    }
}

void Engine::Impl::addRecord(const StoredRecord& stored) {
    const RecordId& id = stored.record.id;
    std::string corrupt = stored.corrupt;
    std::optional<VmRecord> record;
    bool nameless = false;
    bool holds = false;
    std::vector<std::string> lostPorts;
    try {
        if (corrupt.empty()) {
            record = fromDocuments(stored.record);
            lostPorts = identities_.adopt(*record);
        }
    } catch (const Error& error) {
        corrupt = error.what();
    }
    if (!corrupt.empty()) {
        log_.error("vm.record.corrupt", {{"vm", id.str()}, {"cause", corrupt}});
        std::optional<Uuid> uuid = ownerOf(config_, id);
        if (uuid && registry_.findByUuid(*uuid)) uuid.reset();
        nameless = !uuid;
        record.emplace(id, uuid.value_or(Uuid::random()));
        record->state = VmState::Corrupt;
        record->failure = corrupt;
        // Its VM may run, and it may be repaired: what it still tells is given to no other VM.
        salvage(stored.record, *record);
        record->mac = MacAddress::of(record->uuid);
        if (const auto user = userOfDisks(config_, id)) record->credentials = *user;
        try {
            lostPorts = identities_.adopt(*record);
            holds = true;
        } catch (const Error& error) {
            log_.warning("vm.record.holds_nothing", {{"vm", id.str()}, {"cause", error.what()}});
        }
    }
    const auto vm = std::make_shared<Vm>(*record, config_.eventsPerVm);
    vm->revision = stored.revision;
    vm->nameless = nameless;
    vm->holds = holds;
    noteLostPorts(*vm, lostPorts);
    registry_.add(vm, static_cast<std::size_t>(-1));
    adoptDisks(*record);
}

void Engine::Impl::noteLostPorts(Vm& vm, const std::vector<std::string>& lost) {
    for (const std::string& why : lost) {
        log_.warning("vm.port.lost",
                     {{"vm", vm.id.str()}, {"cause", why}, {"effect", "the VM cannot be started until it is free"}});
        Event event;
        event.vm = vm.id.str();
        event.operation = "recover";
        event.outcome = "note";
        event.cause = why;
        vm.timeline.append(std::move(event));
    }
}

void Engine::Impl::settlePostponed(const std::shared_ptr<Vm>& vm) {
    const AskedBy nobody{std::string()};  // also where a client's request is what makes us look
    std::optional<Operation> op;
    try {
        op.emplace(vm, "recover", log_, [this](const Uuid& uuid) { queueExit(uuid); });
    } catch (const Error&) {
        return;  // held, or deleted meanwhile
    }
    {
        const std::lock_guard lock(vm->mutex);
        if (!vm->postponed) return;  // settled by who held it just now
    }
    // That nothing of its wire is left is not known any more; to look for it costs little.
    recoverOne(*op, {.process = backends_.supervisor.status(OwnerTag{config_.instance, vm->uuid}), .wire = true});
}

void Engine::Impl::reconcile(Operation& op, const Remains& remains) {
    const ProcessStatus& process = remains.process;
    const VmRecord record = op.record();
    const VmState state = record.state;
    if ((state == VmState::Created || state == VmState::Stopped || state == VmState::Failed) &&
        process.state == ProcessState::Absent && !remains.wire && record.diskOwners.empty()) {
        const std::lock_guard lock(op.vm().mutex);
        op.vm().postponed = false;
        return;  // at rest, as its record says
    }
    runHeldOrPostpone(op, [&] {
        switch (state) {
            case VmState::Creating:
                op.step("undo-create", [&] {
                    removeDisks(config_, record);
                    static_cast<void>(backends_.storage.erase(record.id));
                });
                forgetVm(op);
                return;
            case VmState::Starting:
                finishOrUndoStart(op, process);
                return;
            case VmState::Running:
            case VmState::Paused:
                if (process.state == ProcessState::Running) {
                    adoptRunning(op, process);
                    return;
                }
                [[fallthrough]];
            case VmState::Stopping:
            case VmState::Deleting:
                followEnd(op, process);
                return;
            case VmState::Created:
            case VmState::Stopped:
            case VmState::Failed:
                completeStop(op, state, record.failure, {}, isStartDue(record));
                return;
            case VmState::Corrupt:
                return;
        }
    });
}

void Engine::Impl::adoptRunning(Operation& op, const ProcessStatus& process) {
    const VmRecord record = op.record();
    const NetworkSpec network = networkSpec(config_, record);
    bool withdrawn = record.restartsWithdrawn;
    tellRestarts(op.vm(), process);
    if (!record.operation.empty()) op.note("note", "the server ended during '" + record.operation + "'");
    if (record.operation == "change" && process.pid != 0) {
        // The record has the values from before: what was changed of the guest is taken back, while the intent stands.
        op.attempt("adjust", [&] { adjustGuest(record); });
    }
    op.step("adopt", [&] {
        const bool waits = process.pid == 0;
        std::optional<GuestState> guest;
        try {
            if (!waits) guest = vmmOf(record).query(vmmPlace(config_, record), adoptionTimeout);
        } catch (const Error& error) {
            // It is alive, so it is not ours to end: the operator sees it and may stop it.
            op.note("note", std::string("the VMM runs but does not answer: ") + error.what());
        }
        if (waits) op.note("note", "the VMM has ended and is about to be started again");
        VmState seen = record.state == VmState::Paused ? VmState::Paused : VmState::Running;
        if (guest || waits) seen = guest == GuestState::Paused ? VmState::Paused : VmState::Running;
        // Neither does one that was killed answer, nor would its parent have been left to wait. Any other is to be
        // taken for killed, however late it ends.
        withdrawn = withdrawn && !guest && !waits;
        if (seen != record.state || !record.operation.empty()) persist(op.vm(), settled(record, seen));
        const std::lock_guard lock(op.vm().mutex);
        op.vm().pid = process.pid;
        op.vm().restarts.whenPaused = process.restarts;
    });
    // Whatever somebody did to the host's rules while the server was down: made whole again, and a no-op otherwise.
    op.attempt("network", [&] {
        if (!backends_.network.inspect(network)) {
            static_cast<void>(backends_.network.attach(network));
            op.note("note", "the wire was incomplete and has been completed");
        }
        backends_.network.publish(network);
    });
    if (record.restartPolicy != RestartPolicy::No) {
        op.attempt("restarts", [&] { permitRestarts(op, !withdrawn); });
    }
    op.rethrowFirst();
}

void Engine::Impl::followEnd(Operation& op, const ProcessStatus& process) {
    switch (op.record().state) {
        case VmState::Running:
        case VmState::Paused:
            settleEnded(op, process);
            return;
        case VmState::Stopping:
            completeStop(op, VmState::Stopped, {});
            return;
        case VmState::Deleting:
            removeVm(op, /*retainData=*/false);
            return;
        default:
            op.note("skipped", "nothing of it was running");
            return;
    }
}

void Engine::Impl::settleEnded(Operation& op, const ProcessStatus& found) {
    const VmRecord record = op.record();
    const ProcessStatus process = knowingKill(op.vm(), found);
    tellRestarts(op.vm(), process);
    if (process.exit) {
        const VmEnd end = endOf(process, findVmm(record));
        std::string cause = end.detail;
        if (end.by == EndedBy::Vmm) cause += lastOutput(record);
        if (process.exhausted) {
            cause += "; it had been started again " + std::to_string(record.maxRestarts) +
                     " times in a row, as often as maxRestarts allows";
        }
        op.note("note", cause);
        const bool stopped = end.by == EndedBy::Guest && !process.exhausted;
        completeStop(op, stopped ? VmState::Stopped : VmState::Failed, stopped ? "" : cause, {},
                     isStartDueAfter(record, end, process.exhausted));
        return;
    }
    if (record.bootId != bootId()) {
        op.note("note", "the host was restarted");
        completeStop(op, VmState::Stopped, {}, lostEnd("the host was restarted"));
        return;
    }
    const std::string why = process.note.empty() ? "the VMM is gone and left no exit status" : process.note;
    op.note("note", why);
    const bool killed = [&] {
        const std::lock_guard lock(op.vm().mutex);
        return op.vm().killSent;
    }();
    completeStop(op, VmState::Failed, why, lostEnd(why), killed && record.onUnresponsive == OnUnresponsive::Restart);
}

void Engine::Impl::tellRestarts(Vm& vm, const ProcessStatus& process) {
    const std::vector<PastRun> runs = backends_.supervisor.pastRuns(OwnerTag{config_.instance, vm.uuid});
    const VmmBackend* const vmm = [&] {
        const std::lock_guard lock(vm.mutex);
        return findVmm(vm.record);
    }();
    const auto tell = [&](const std::string& operation, const std::string& outcome, SystemTime at, std::string cause) {
        Event event;
        event.at = at;
        event.vm = vm.id.str();
        event.operation = operation;
        event.operationId = Uuid::random().str();
        event.outcome = outcome;
        event.cause = std::move(cause);
        log_.info("vm." + operation, {{"vm", vm.id.str()}, {"cause", event.cause}});
        vm.timeline.append(std::move(event));
    };
    for (const PastRun& run : runs) {
        const VmEnd end = endOf(run, vmm);
        bool ended = false;
        bool restarted = false;
        {
            const std::lock_guard lock(vm.mutex);
            ended = run.number > vm.restarts.endsTold;
            restarted = run.restartedAt && run.number > vm.restarts.restartsTold;
            if (ended) vm.restarts.endsTold = run.number;
            if (restarted) vm.restarts.restartsTold = run.number;
            vm.restarts.lastEnd = end;
        }
        const std::string attempt = "restart " + std::to_string(run.attempt) + " in a row";
        if (ended) {
            tell("exit", "note", run.exit.at,
                 end.detail + "; " + attempt + " follows in " + std::to_string(run.delay.count()) + " ms");
        }
        if (restarted) tell("restart", "ok", *run.restartedAt, attempt + ", because " + end.detail);
    }
    const std::lock_guard lock(vm.mutex);
    vm.restarts.count = process.restarts;
    // Not of a VM that was stopped since its process was looked at.
    const bool up = vm.record.state == VmState::Running || vm.record.state == VmState::Paused;
    if (up && process.state == ProcessState::Running) vm.pid = process.pid;
}

void Engine::Impl::finishOrUndoStart(Operation& op, const ProcessStatus& process) {
    const VmRecord record = op.record();
    if (process.state == ProcessState::Running) {
        std::optional<GuestState> guest;
        try {
            guest = vmmOf(record).query(vmmPlace(config_, record), adoptionTimeout);
        } catch (const Error& error) {
            op.note("note", std::string("the VMM does not answer: ") + error.what());
        }
        if (guest == GuestState::Running || guest == GuestState::Paused) {
            adoptRunning(op, process);
            return;
        }
        op.step("kill", [&] { killVmm(record, op.name()); });  // its guest has not run: nothing is lost
    }
    op.note("note", "the server ended during the start, which is undone");
    completeStop(op, VmState::Stopped, {}, {}, /*startDue=*/record.operation == probeOperation);
}

bool Engine::Impl::strangersPossible() const {
    return std::ranges::any_of(registry_.all(), [](const std::shared_ptr<Vm>& vm) {
        const std::lock_guard lock(vm->mutex);
        return vm->nameless;
    });
}

void Engine::Impl::removeStrays(const std::set<Uuid>& known, const std::vector<NetworkFinding>& wires) {
    if (strangersPossible()) {
        log_.warning("engine.strays.kept", {{"cause", "a record cannot be read: what is on the host may be its VM's"}});
        return;
    }
    // A VM whose disks are there and whose record is not: somebody took the records away, or named another folder for
    // them. Killing it would lose what it does; it is told of and left. If its record was never meant to survive its
    // server, the disks say so, and they are as stray as the rest.
    std::vector<DataFolder> left;
    std::set<Uuid> disks;
    for (DataFolder& folder : listDisks(config_)) {
        if (known.contains(folder.vm)) continue;
        if (folder.transient || (!folder.whole && !backends_.storage.traits().durable)) {
            left.push_back(std::move(folder));
        } else if (folder.whole) {
            disks.insert(folder.vm);
        }
    }
    const auto isStray = [&](const OwnerTag& owner) {
        if (owner.instance != config_.instance || known.contains(owner.vm)) return false;
        if (!disks.contains(owner.vm)) return true;
        log_.error("engine.vm.without_record", {{"owner", owner.str()},
                                                {"effect", "it is left alone: its disks are in the data root"},
                                                {"hint", "is paths.config_root the right one?"}});
        return false;
    };
    const auto clear = [&](const OwnerTag& owner, const std::string& what, const std::function<void()>& action) {
        try {
            action();
            log_.warning("engine.stray.removed", {{"owner", owner.str()}, {"object", what}});
        } catch (const std::exception& error) {
            log_.error("engine.stray.stays", {{"owner", owner.str()}, {"object", what}, {"cause", error.what()}});
        }
    };
    for (const ProcessStatus& process : backends_.supervisor.list()) {
        if (!isStray(process.owner)) continue;
        clear(process.owner, "process " + std::to_string(process.pid), [&] {
            killVmm(VmRecord(RecordId::parse(process.owner.vm.str()), process.owner.vm), "recover");
            removeRunDirectory(config_, process.owner.vm);
        });
    }
    for (const NetworkFinding& finding : wires) {
        if (!isStray(finding.owner)) continue;
        std::string objects;
        for (const std::string& object : finding.objects) objects += (objects.empty() ? "" : ", ") + object;
        clear(finding.owner, objects, [&] { backends_.network.removeStray(finding.owner); });
    }
    // After the processes, whose they may be.
    for (const auto& [name, vmm] : backends_.vmms) {
        for (const Uuid& vm : vmm->list()) {
            const OwnerTag owner{config_.instance, vm};
            if (!isStray(owner)) continue;
            clear(owner, "what VMM '" + name + "' made", [&] {
                if (backends_.supervisor.status(owner).state == ProcessState::Running) {
                    throw Error(ErrorKind::FailedPrecondition, "its VMM still runs");
                }
                vmm->removeStray(vm);
            });
        }
    }
    for (const DataFolder& folder : left) {
        const OwnerTag owner{config_.instance, folder.vm};
        clear(owner, folder.path.string(), [&] {
            // Not while something uses them that could not be ended.
            if (backends_.supervisor.status(owner).state == ProcessState::Running) {
                throw Error(ErrorKind::FailedPrecondition, "its VMM still runs");
            }
            std::optional<VmLock> lock;  // somebody may be copying them
            if (folder.whole) lock.emplace(config_.runRoot / (folder.path.filename().string() + ".lock"), owner.str());
            removeRunDirectory(config_, folder.vm);
            warnAway(folder.path.filename(), removeLeftDisks(config_, folder), /*forgotten=*/true);
            if (lock) lock->remove();
        });
    }
}

void Engine::Impl::onExit(const ProcessStatus& status) noexcept {
    onRestart(status.owner);
}

void Engine::Impl::onRestart(const OwnerTag& owner) noexcept {
    try {
        queueExit(owner.vm);
    } catch (const std::exception& error) {
        log_.error("vm.exit.missed", {{"uuid", owner.vm.str()}, {"cause", error.what()}});
    }
}

void Engine::Impl::queueExit(const Uuid& uuid) {
    const std::lock_guard lock(exitMutex_);
    exits_.push_back(uuid);
    exitQueued_.notify_one();
}

void Engine::Impl::watchExits(const std::stop_token& stop) {
    SteadyTime nextRetry = std::chrono::steady_clock::now() + retryInterval;
    for (;;) {
        std::optional<Uuid> uuid;
        bool retry = false;
        {
            std::unique_lock lock(exitMutex_);
            const auto any = [&] { return !exits_.empty(); };
            if (postponed_.empty()) {
                exitQueued_.wait(lock, stop, [&] { return any() || !postponed_.empty(); });
            } else {
                exitQueued_.wait_until(lock, stop, nextRetry, any);
                retry = std::chrono::steady_clock::now() >= nextRetry;  // however many exits there are
            }
            if (stop.stop_requested()) return;  // what is still queued is found by the next server's recover()
            if (any()) {
                uuid = exits_.front();
                exits_.pop_front();
            }
        }
        if (retry) {
            retryPostponed();
            nextRetry = std::chrono::steady_clock::now() + retryInterval;
        }
        if (!uuid) continue;
        try {
            afterExit(*uuid);
        } catch (const std::exception& error) {
            if (draining()) continue;  // likewise found by the next server
            log_.error("vm.exit.unsettled", {{"uuid", uuid->str()}, {"cause", error.what()}});
        }
    }
}

void Engine::Impl::postpone(Operation& op, const Error& why) {
    const bool known = [&] {
        const std::lock_guard lock(op.vm().mutex);
        return std::exchange(op.vm().postponed, true);
    }();
    if (!known) {
        op.note("note", std::string("postponed: ") + why.what());
        log_.warning("vm.settling.postponed", {{"vm", op.vm().id.str()}, {"cause", why.what()}});
    }
    const std::lock_guard lock(exitMutex_);
    postponed_.insert(op.vm().uuid);
    exitQueued_.notify_one();
}

void Engine::Impl::retryPostponed() {
    std::set<Uuid> waiting;
    {
        const std::lock_guard lock(exitMutex_);
        waiting.swap(postponed_);
    }
    for (const Uuid& uuid : waiting) {
        try {
            const Guard guard(*this);
            if (const auto vm = registry_.findByUuid(uuid)) settlePostponed(vm);
        } catch (const std::exception& error) {
            log_.error("vm.recover.failed", {{"uuid", uuid.str()}, {"cause", error.what()}});
        }
        // Held by somebody just now, or not to be asked about: nobody else looks at it.
        const auto vm = registry_.findByUuid(uuid);
        const bool still = vm && [&] {
            const std::lock_guard lock(vm->mutex);
            return vm->postponed && !vm->erased;
        }();
        if (!still) continue;
        const std::lock_guard lock(exitMutex_);
        postponed_.insert(uuid);
    }
}

void Engine::Impl::afterExit(const Uuid& uuid) {
    const Guard guard(*this);
    const auto vm = registry_.findByUuid(uuid);
    if (!vm) return;
    {
        const std::lock_guard lock(vm->mutex);
        if (vm->holder) {
            vm->exitPending = true;  // asked for again when that operation ends
            return;
        }
        if (vm->postponed) return;  // looked at as a whole, soon
        if (isStartDue(vm->record)) {
            enforcer_->add(vm);
            return;
        }
        // Not to be taken for nothing: a client's next request would meet us as the holder.
        const VmState state = vm->record.state;
        if (state != VmState::Running && state != VmState::Paused && state != VmState::Stopping &&
            state != VmState::Deleting) {
            return;
        }
    }
    const ProcessStatus process = backends_.supervisor.status(OwnerTag{config_.instance, uuid});
    if (process.state == ProcessState::Running) {
        afterRestart(vm, process);
        return;
    }
    runOrAskAgain(vm, "exit", [&](Operation& op) {
        // Asked again while the VM is held: somebody may have started it meanwhile.
        const ProcessStatus now = backends_.supervisor.status(process.owner);
        if (now.state != ProcessState::Running) followEnd(op, now);
        if (isStartDue(op.record())) queueExit(op.vm().uuid);
    });
}

void Engine::Impl::afterRestart(const std::shared_ptr<Vm>& vm, const ProcessStatus& process) {
    tellRestarts(*vm, process);
    const auto needsNews = [&] {
        const std::lock_guard lock(vm->mutex);
        return vm->record.state == VmState::Paused && process.pid != 0 && process.restarts > vm->restarts.whenPaused;
    };
    if (!needsNews()) return;
    runOrAskAgain(vm, "restart", [&](Operation& op) {
        // The new run's guest was never paused.
        if (needsNews()) op.step("commit", [&] { persist(op.vm(), settled(op.record(), VmState::Running)); });
    });
}

void Engine::Impl::runOrAskAgain(const std::shared_ptr<Vm>& vm, const std::string& name,
                                 const std::function<void(Operation&)>& body) {
    bool ours = false;
    try {
        runOrPostpone(vm, name, [&](Operation& op) {
            ours = true;
            body(op);
        });
    } catch (const Error& error) {
        if (ours || error.kind() != ErrorKind::Conflict) throw;
        // Somebody was faster: their release asks again, or we do if they are done already.
        const bool held = [&] {
            const std::lock_guard lock(vm->mutex);
            vm->exitPending = vm->holder.has_value();
            return vm->exitPending;
        }();
        if (!held) queueExit(vm->uuid);
    }
}

}  // namespace mergen::engine
