#include <algorithm>
#include <atomic>
#include <condition_variable>

#include <mergen/engine/engine.hpp>

#include "console.hpp"
#include "engine_impl.hpp"

namespace mergen::engine {

namespace {

EngineConfig withGuestSettings(EngineConfig config, const NetworkBackend& network) {
    config.guestSettings = network.guestSettings();
    return config;
}

}  // namespace

Engine::Impl::Impl(EngineConfig config, Backends backends, Log& log)
    : config_(withGuestSettings(std::move(config), backends.network)),
      backends_(std::move(backends)),
      log_(log),
      identities_(config_, backends_.network) {
    if (!backends_.vmms.contains(config_.vmm)) {
        throw Error(ErrorKind::InvalidArgument, "the VMM '" + config_.vmm + "' for new VMs is not loaded");
    }
    backends_.supervisor.setExitListener(this);
}

Engine::Impl::~Impl() {
    backends_.supervisor.setExitListener(nullptr);
    {
        const std::lock_guard lock(drainMutex_);
        draining_ = true;  // workers of a recovery leave what they have not begun to the next server
    }
    monitor_.reset();
    workers_.clear();
    exitWatcher_ = {};
    enforcer_.reset();  // after those that give it work
}

Engine::Impl::Guard::Guard(Impl& impl) : impl_(impl) {
    const std::lock_guard lock(impl_.drainMutex_);
    if (impl_.draining_) throw Error(ErrorKind::Unavailable, "the server is stopping");
    ++impl_.running_;
}

Engine::Impl::Guard::~Guard() {
    const std::lock_guard lock(impl_.drainMutex_);
    --impl_.running_;
    impl_.drained_.notify_all();
}

bool Engine::Impl::draining() const {
    const std::lock_guard lock(drainMutex_);
    return draining_;
}

void Engine::Impl::reconfigure(const EngineConfig& next) noexcept {
    config_.maxVms = next.maxVms;
    config_.startTimeout = next.startTimeout;
    config_.stopGrace = next.stopGrace;
    config_.killGrace = next.killGrace;
    config_.controlTimeout = next.controlTimeout;
    const std::chrono::milliseconds before = config_.probeInterval;
    config_.probeInterval = next.probeInterval;
    config_.probeTimeout = next.probeTimeout;
    config_.probeFailures = next.probeFailures;
    config_.consoleLimit = next.consoleLimit;
    if (monitor_ && before != std::chrono::milliseconds{next.probeInterval}) monitor_->wake();
}

bool Engine::Impl::drain(std::chrono::milliseconds limit) {
    const SteadyTime deadline = std::chrono::steady_clock::now() + limit;
    {
        std::unique_lock lock(drainMutex_);
        draining_ = true;
        if (!drained_.wait_until(lock, deadline, [&] { return running_ == 0; })) return false;
    }
    return backends_.storage.traits().durable || removeAll(deadline);
}

bool Engine::Impl::removeAll(SteadyTime deadline) {
    const auto vms = registry_.all();
    if (vms.empty()) return true;
    log_.warning("engine.vms.removed",
                 {{"vms", vms.size()}, {"cause", "the storage keeps no records: nobody would know of them any more"}});
    constexpr std::size_t atOnce = 16;  // most of the time each waits for a guest to shut down
    return workOff(vms.size(), atOnce, deadline, [this, vms](std::size_t at) {
               try {
                   run(vms[at], "delete", [&](Operation& op) { removeVm(op, /*retainData=*/false); });
               } catch (const std::exception& error) {
                   log_.error("vm.remove.failed", {{"vm", vms[at]->id.str()}, {"cause", error.what()}});
               }
           }) == 0;
}

std::size_t Engine::Impl::workOff(std::size_t count, std::size_t atOnce, SteadyTime deadline,
                                  const std::function<void(std::size_t)>& action) {
    struct Work {
        std::function<void(std::size_t)> action;
        std::atomic<std::size_t> next{0};
        std::mutex mutex;
        std::condition_variable done;
        std::size_t left = 0;  // guarded by mutex
    };
    const auto work = std::make_shared<Work>();  // shared with those that go on behind this call
    work->action = action;
    work->left = count;
    for (std::size_t i = 0; i < std::min(atOnce, count); ++i) {
        workers_.emplace_back([work, count] {
            for (std::size_t at = work->next++; at < count; at = work->next++) {
                work->action(at);
                const std::lock_guard lock(work->mutex);
                if (--work->left == 0) work->done.notify_all();
            }
        });
    }
    std::unique_lock lock(work->mutex);
    work->done.wait_until(lock, deadline, [&] { return work->left == 0; });
    return work->left;
}

void Engine::Impl::run(const std::shared_ptr<Vm>& vm, const std::string& name,
                       const std::function<void(Operation&)>& body) {
    const auto postponed = [&] {
        const std::lock_guard lock(vm->mutex);
        return vm->postponed;
    };
    if (postponed()) settlePostponed(vm);
    Operation op(vm, name, log_, [this](const Uuid& uuid) { queueExit(uuid); });
    op.lock(lockFile(*vm), OwnerTag{config_.instance, vm->uuid});
    if (postponed()) throw Error(ErrorKind::Conflict, "VM '" + vm->id.str() + "' was locked until now; ask again");
    runHeld(op, [&] { body(op); });
}

void Engine::Impl::runOrPostpone(const std::shared_ptr<Vm>& vm, const std::string& name,
                                 const std::function<void(Operation&)>& body) {
    Operation op(vm, name, log_, [this](const Uuid& uuid) { queueExit(uuid); });
    runHeldOrPostpone(op, [&] { body(op); });
}

void Engine::Impl::runHeldOrPostpone(Operation& op, const std::function<void()>& body) {
    try {
        op.lock(lockFile(op.vm()), tagOf(op.record()));
    } catch (const Error& error) {  // held by another program, or the lock cannot be had just now
        postpone(op, error);
        return;
    }
    {
        const std::lock_guard lock(op.vm().mutex);
        op.vm().postponed = false;
    }
    runHeld(op, body);
}

void Engine::Impl::runHeld(Operation& op, const std::function<void()>& body) {
    op.note("started");
    try {
        body();
    } catch (const Error& error) {
        op.undoAll();
        op.note("failed", error.what());
        throw;
    }
    op.commit();
    op.note("ok");
}

VmRecord Engine::Impl::intent(const Operation& op, VmRecord record, VmState state) {
    record.state = state;
    record.operation = op.name();
    record.operationId = op.id();
    record.operationSince = op.since();
    return record;
}

VmRecord Engine::Impl::settled(VmRecord record, VmState state, std::string failure) {
    record.state = state;
    record.failure = std::move(failure);
    record.operation.clear();
    record.operationId.clear();
    return record;
}

void Engine::Impl::persist(Vm& vm, VmRecord next) {
    std::optional<Revision> expected;
    bool loansChange = false;
    {
        const std::lock_guard lock(vm.mutex);
        expected = vm.revision;
        loansChange = next.diskOwners != vm.record.diskOwners;
    }
    if (loansChange && !backends_.storage.traits().durable) noteLoans(config_, next);
    const Record documents = toDocuments(config_, next);
    const Revision revision = [&] {
        try {
            return backends_.storage.put(documents, expected);
        } catch (const Error& error) {
            // Somebody edited a file of the record. What stands there is replaced as any change replaces it, if it is
            // still this VM's.
            if (error.kind() != ErrorKind::Conflict || !expected) throw;
            const auto stored = backends_.storage.find(next.id);
            if (!stored || !stored->corrupt.empty() || fromDocuments(stored->record).uuid != next.uuid) throw;
            log_.warning("vm.record.edited", {{"vm", next.id.str()}, {"effect", "the edit is replaced"}});
            return backends_.storage.put(documents, stored->revision);
        }
    }();
    const std::lock_guard lock(vm.mutex);
    vm.revision = revision;
    vm.record = std::move(next);
}

void Engine::Impl::persistBestEffort(Vm& vm, VmRecord next) noexcept {
    try {
        persist(vm, next);
        return;
    } catch (const std::exception& error) {
        log_.error("vm.record.stale", {{"vm", vm.id.str()}, {"cause", error.what()}});
    }
    const std::lock_guard lock(vm.mutex);
    vm.record = std::move(next);
}

bool Engine::Impl::persistIfRoom(Operation& op, VmRecord next) {
    try {
        persist(op.vm(), next);
        return true;
    } catch (const Error& error) {
        // What gives room back must not need room. If the server ends meanwhile, recover() finds the VMM gone.
        if (error.kind() != ErrorKind::ResourceExhausted) throw;
        op.note("note", std::string("not written down: ") + error.what());
        const std::lock_guard lock(op.vm().mutex);
        op.vm().record = std::move(next);
    }
    return false;
}

void Engine::Impl::noteFailure(Vm& vm, const std::string& text) {
    const std::lock_guard lock(vm.mutex);
    vm.record.failure = text;
}

VmmBackend& Engine::Impl::vmmOf(const VmRecord& record) const {
    const auto found = backends_.vmms.find(record.vmm);
    if (found == backends_.vmms.end()) {
        throw Error(ErrorKind::FailedPrecondition,
                    "VM '" + record.id.str() + "' was made with the VMM '" + record.vmm + "', which is not loaded");
    }
    return *found->second;
}

const VmmBackend* Engine::Impl::findVmm(const VmRecord& record) const noexcept {
    const auto found = backends_.vmms.find(record.vmm);
    return found == backends_.vmms.end() ? nullptr : found->second;
}

std::shared_ptr<Vm> Engine::Impl::need(const std::string& id) const {
    auto vm = registry_.find(id);
    if (!vm) throw Error(ErrorKind::NotFound, "there is no VM '" + id + "'");
    return vm;
}

VmView Engine::Impl::start(const std::string& id) {
    const Guard guard(*this);
    const auto vm = need(id);
    run(vm, "start", [&](Operation& op) { startVm(op); });
    return view(*vm);
}

Stopped Engine::Impl::stop(const std::string& id) {
    const Guard guard(*this);
    const auto vm = need(id);
    StoppedBy by = StoppedBy::Nothing;
    try {
        run(vm, "stop", [&](Operation& op) { by = stopVm(op); });
    } catch (const Error& error) {
        if (error.kind() != ErrorKind::Conflict && error.kind() != ErrorKind::FailedPrecondition) {
            noteFailure(*vm, error.what());
        }
        throw;
    }
    return {view(*vm), by};
}

VmView Engine::Impl::pause(const std::string& id) {
    const Guard guard(*this);
    const auto vm = need(id);
    run(vm, "pause", [&](Operation& op) { pauseVm(op); });
    return view(*vm);
}

VmView Engine::Impl::resume(const std::string& id) {
    const Guard guard(*this);
    const auto vm = need(id);
    run(vm, "resume", [&](Operation& op) { resumeVm(op); });
    return view(*vm);
}

StoppedBy Engine::Impl::remove(const std::string& id, bool retainData) {
    const Guard guard(*this);
    const auto vm = need(id);
    StoppedBy by = StoppedBy::Nothing;
    try {
        run(vm, "delete", [&](Operation& op) { by = removeVm(op, retainData); });
    } catch (const Error& error) {
        if (error.kind() != ErrorKind::Conflict) noteFailure(*vm, error.what());
        throw;
    }
    return by;
}

void Engine::recover() {
    impl_->recover();
}
bool Engine::drain(std::chrono::milliseconds limit) {
    return impl_->drain(limit);
}
Created Engine::create(const CreateRequest& request) {
    return impl_->create(request);
}
VmView Engine::start(const std::string& id) {
    return impl_->start(id);
}
Stopped Engine::stop(const std::string& id) {
    return impl_->stop(id);
}
VmView Engine::pause(const std::string& id) {
    return impl_->pause(id);
}
VmView Engine::resume(const std::string& id) {
    return impl_->resume(id);
}
StoppedBy Engine::remove(const std::string& id, bool retainData) {
    return impl_->remove(id, retainData);
}
VmView Engine::change(const std::string& id, const ChangeRequest& request) {
    return impl_->change(id, request);
}
std::string Engine::metrics(const std::string& id) const {
    return impl_->metrics(id);
}
VmView Engine::get(const std::string& id) const {
    return impl_->view(*impl_->need(id));
}
std::vector<VmView> Engine::list() const {
    return impl_->list();
}
std::vector<Event> Engine::events(const std::string& id) const {
    return impl_->need(id)->timeline.events();
}
std::string Engine::console(const std::string& id, const ConsoleTail& tail) const {
    const auto vm = impl_->need(id);
    return readConsole(pathsOf(config(), vm->id, vm->uuid).console(), tail);
}
std::string Engine::vmConfig(const std::string& id) const {
    return impl_->vmConfig(id);
}
std::vector<ComponentHealth> Engine::health() const {
    return impl_->health();
}
const EngineConfig& Engine::config() const noexcept {
    return impl_->config();
}
void Engine::reconfigure(const EngineConfig& next) noexcept {
    impl_->reconfigure(next);
}

}  // namespace mergen::engine
