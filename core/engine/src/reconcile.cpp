// What is true after a restart of the server, and after the end of a VMM: the record says what was meant, the host says
// what is, and the two are brought together. Memory is never asked.
#include <algorithm>
#include <atomic>
#include <map>
#include <set>
#include <thread>
#include <vector>

#include <mergen/base/file.hpp>
#include <mergen/base/process.hpp>
#include <mergen/base/text.hpp>

#include "engine_impl.hpp"

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
    loadRecords();

    std::map<Uuid, ProcessStatus> processes;
    for (ProcessStatus& process : backends_.supervisor.list()) processes.emplace(process.owner.vm, std::move(process));

    const auto vms = registry_.all();
    std::atomic<std::size_t> next{0};
    {
        std::vector<std::jthread> workers;
        for (std::size_t i = 0; i < std::min(adopters, vms.size()); ++i) {
            workers.emplace_back([&] {
                for (std::size_t at = next++; at < vms.size(); at = next++) {
                    const auto process = processes.find(vms[at]->uuid);
                    settle(vms[at], process == processes.end() ? ProcessStatus{} : process->second);
                }
            });
        }
    }
    removeStrays();
    removeStrayLocks(config_.runRoot, config_.instance,
                     [&](const std::string& id) { return registry_.find(id) != nullptr; });
    exitWatcher_ = std::jthread([this](const std::stop_token& stop) { watchExits(stop); });
    // A VMM that ended between list() and here has sent its event already, and the queue has it.
    log_.info("engine.recovered", {{"vms", vms.size()}});
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
    try {
        if (corrupt.empty()) {
            record = fromDocuments(stored.record);
            identities_.adopt(*record);
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
            identities_.adopt(*record);
            holds = true;
        } catch (const Error& error) {
            log_.warning("vm.record.holds_nothing", {{"vm", id.str()}, {"cause", error.what()}});
        }
    }
    const auto vm = std::make_shared<Vm>(*record, config_.eventsPerVm);
    vm->revision = stored.revision;
    vm->nameless = nameless;
    vm->holds = holds;
    registry_.add(vm, static_cast<std::size_t>(-1));
    adoptDisks(*record);
}

void Engine::Impl::settle(const std::shared_ptr<Vm>& vm, const ProcessStatus& process) {
    const auto failed = [&](const std::exception& error) {
        log_.error("vm.recover.failed", {{"vm", vm->id.str()}, {"cause", error.what()}});
        noteFailure(*vm, error.what());
    };
    try {
        reconcile(vm, process);
    } catch (const Error& error) {
        const bool held = [&] {
            const std::lock_guard lock(vm->mutex);
            return vm->holder.has_value();
        }();
        if (error.kind() != ErrorKind::Conflict || !held) failed(error);  // who holds the VM has settled it first
    } catch (const std::exception& error) {
        failed(error);
    }
}

void Engine::Impl::reconcile(const std::shared_ptr<Vm>& vm, const ProcessStatus& process) {
    const VmRecord record = [&] {
        const std::lock_guard lock(vm->mutex);
        return vm->record;
    }();
    const VmState state = record.state;
    if (state == VmState::Corrupt) return;
    if ((state == VmState::Created || state == VmState::Stopped || state == VmState::Failed) &&
        process.state == ProcessState::Absent && !backends_.network.inspect(networkSpec(config_, record)).has_value()) {
        return;  // at rest, as its record says
    }
    runOrPostpone(vm, "recover", [&](Operation& op) {
        switch (state) {
            case VmState::Creating:
                op.step("undo-create", [&] {
                    removeDisks(config_, op.record());
                    static_cast<void>(backends_.storage.erase(vm->id));
                });
                forgetVm(*vm);
                return;
            case VmState::Starting:
                finishOrUndoStart(op, process);
                return;
            case VmState::Running:
            case VmState::Paused:
                if (process.state == ProcessState::Running) {
                    adoptRunning(op, process);
                } else {
                    settleEnded(op, process);
                }
                return;
            case VmState::Stopping:
                completeStop(op, VmState::Stopped, {});
                return;
            case VmState::Deleting:
                removeVm(op, /*retainData=*/false);
                return;
            case VmState::Created:
            case VmState::Stopped:
            case VmState::Failed:
                completeStop(op, state, op.record().failure);
                return;
            case VmState::Corrupt:
                return;
        }
    });
}

void Engine::Impl::adoptRunning(Operation& op, const ProcessStatus& process) {
    const VmRecord record = op.record();
    const NetworkSpec network = networkSpec(config_, record);
    op.step("adopt", [&] {
        try {
            const GuestState guest = vmmOf(record).query(vmmPlace(config_, record), adoptionTimeout);
            const VmState seen = guest == GuestState::Paused ? VmState::Paused : VmState::Running;
            if (seen != record.state) persist(op.vm(), settled(record, seen));
        } catch (const Error& error) {
            // It is alive, so it is not ours to end: the operator sees it and may stop it.
            op.note("note", std::string("the VMM runs but does not answer: ") + error.what());
        }
        const std::lock_guard lock(op.vm().mutex);
        op.vm().pid = process.pid;
    });
    // Whatever somebody did to the host's rules while the server was down: made whole again, and a no-op otherwise.
    op.attempt("network", [&] {
        if (!backends_.network.inspect(network)) {
            static_cast<void>(backends_.network.attach(network));
            op.note("note", "the wire was incomplete and has been completed");
        }
        backends_.network.publish(network);
    });
    op.rethrowFirst();
}

void Engine::Impl::settleEnded(Operation& op, const ProcessStatus& process) {
    const VmRecord record = op.record();
    if (process.exit) {
        const bool guestEnded = !process.exit->signalled && process.exit->code == 0;
        op.note("note", "the VMM ended with " + describeExit(*process.exit));
        completeStop(op, guestEnded ? VmState::Stopped : VmState::Failed,
                     guestEnded ? "" : "the VMM ended with " + describeExit(*process.exit));
        return;
    }
    if (record.bootId != bootId()) {
        op.note("note", "the host was restarted");
        completeStop(op, VmState::Stopped, {});
        return;
    }
    const std::string why = process.note.empty() ? "the VMM is gone and left no exit status" : process.note;
    op.note("note", why);
    completeStop(op, VmState::Failed, why);
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
            op.step("finish-start", [&] { persist(op.vm(), settled(op.record(), VmState::Running)); });
            return;
        }
        op.step("kill", [&] { killVmm(record); });  // its guest has not run: nothing is lost
    }
    op.note("note", "the server ended during the start, which is undone");
    completeStop(op, VmState::Stopped, {});
}

bool Engine::Impl::strangersPossible() const {
    return std::ranges::any_of(registry_.all(), [](const std::shared_ptr<Vm>& vm) {
        const std::lock_guard lock(vm->mutex);
        return vm->nameless;
    });
}

std::set<Uuid> Engine::Impl::ownersOfDisks() const {
    std::set<Uuid> owners;
    for (const std::string& name : listDirectory(config_.dataRoot)) {
        try {
            const auto owner = engine::ownerOfDisks(config_, RecordId::parse(name));
            if (owner) owners.insert(*owner);
        } catch (const Error&) {
            continue;  // no folder of a VM
        }
    }
    return owners;
}

void Engine::Impl::removeStrays() {
    if (strangersPossible()) {
        log_.warning("engine.strays.kept", {{"cause", "a record cannot be read: what is on the host may be its VM's"}});
        return;
    }
    // A VM whose disks are there and whose record is not: somebody took the records away, or named another folder for
    // them. Killing it would lose what it does; it is told of and left.
    const std::set<Uuid> disks = backends_.storage.traits().durable ? ownersOfDisks() : std::set<Uuid>();
    const auto isStray = [&](const OwnerTag& owner) {
        if (owner.instance != config_.instance || registry_.findByUuid(owner.vm) != nullptr) return false;
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
            killVmm(VmRecord(RecordId::parse(process.owner.vm.str()), process.owner.vm));
            removeRunDirectory(config_, process.owner.vm);
        });
    }
    for (const NetworkFinding& finding : backends_.network.list()) {
        if (!isStray(finding.owner)) continue;
        std::string objects;
        for (const std::string& object : finding.objects) objects += (objects.empty() ? "" : ", ") + object;
        clear(finding.owner, objects, [&] { backends_.network.removeStray(finding.owner); });
    }
}

void Engine::Impl::onExit(const ProcessStatus& status) noexcept {
    try {
        queueExit(status.owner.vm);
    } catch (const std::exception& error) {
        log_.error("vm.exit.missed", {{"vm", "?"}, {"cause", error.what()}});
    }
}

void Engine::Impl::queueExit(const Uuid& uuid) {
    const std::lock_guard lock(exitMutex_);
    exits_.push_back(uuid);
    exitQueued_.notify_one();
}

void Engine::Impl::watchExits(const std::stop_token& stop) {
    for (;;) {
        std::optional<Uuid> uuid;
        {
            std::unique_lock lock(exitMutex_);
            const auto any = [&] { return !exits_.empty(); };
            if (postponed_.empty()) {
                exitQueued_.wait(lock, stop, [&] { return any() || !postponed_.empty(); });
            } else {
                exitQueued_.wait_for(lock, stop, retryInterval, any);
            }
            if (stop.stop_requested()) return;  // what is still queued is found by the next server's recover()
            if (any()) {
                uuid = exits_.front();
                exits_.pop_front();
            }
        }
        if (!uuid) {
            retryPostponed();
            continue;
        }
        try {
            afterExit(*uuid);
        } catch (const std::exception& error) {
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
            const auto vm = registry_.findByUuid(uuid);
            if (!vm) continue;  // deleted meanwhile
            {
                const std::lock_guard lock(vm->mutex);
                if (!vm->postponed) continue;  // settled by who asked for something
            }
            settle(vm, backends_.supervisor.status(OwnerTag{config_.instance, uuid}));
        } catch (const std::exception& error) {
            log_.error("vm.recover.failed", {{"uuid", uuid.str()}, {"cause", error.what()}});
        }
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
        // Not to be taken for nothing: a client's next request would meet us as the holder.
        const VmState state = vm->record.state;
        if (state != VmState::Running && state != VmState::Paused && state != VmState::Stopping &&
            state != VmState::Deleting) {
            return;
        }
    }
    const ProcessStatus process = backends_.supervisor.status(OwnerTag{config_.instance, uuid});
    if (process.state == ProcessState::Running) return;
    bool ours = false;
    try {
        runOrPostpone(vm, "exit", [&](Operation& op) {
            ours = true;
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
        });
    } catch (const Error& error) {
        if (ours || error.kind() != ErrorKind::Conflict) throw;
        // Somebody was faster: their release asks again, or we do if they are done already.
        const bool held = [&] {
            const std::lock_guard lock(vm->mutex);
            vm->exitPending = vm->holder.has_value();
            return vm->exitPending;
        }();
        if (!held) queueExit(uuid);
    }
}

}  // namespace mergen::engine
