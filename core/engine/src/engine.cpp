#include <algorithm>
#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <sys/stat.h>
#include <unistd.h>

#include <mergen/base/file.hpp>
#include <mergen/base/rollback.hpp>
#include <mergen/base/text.hpp>
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
    workers_.clear();
    exitWatcher_ = {};
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

void Engine::Impl::reconfigure(const EngineConfig& next) noexcept {
    config_.maxVms = next.maxVms;
    config_.startTimeout = next.startTimeout;
    config_.stopGrace = next.stopGrace;
    config_.killGrace = next.killGrace;
    config_.controlTimeout = next.controlTimeout;
    config_.consoleLimit = next.consoleLimit;
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
    if (postponed()) settle(vm, backends_.supervisor.status(OwnerTag{config_.instance, vm->uuid}));
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
    } catch (const Error& error) {
        if (error.kind() != ErrorKind::Conflict) throw;
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
    const std::optional<Revision> expected = [&] {
        const std::lock_guard lock(vm.mutex);
        return vm.revision;
    }();
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

void Engine::Impl::persistIfRoom(Operation& op, VmRecord next) {
    try {
        persist(op.vm(), next);
    } catch (const Error& error) {
        // What gives room back must not need room. If the server ends meanwhile, recover() finds the VMM gone.
        if (error.kind() != ErrorKind::ResourceExhausted) throw;
        op.note("note", std::string("not written down: ") + error.what());
        const std::lock_guard lock(op.vm().mutex);
        op.vm().record = std::move(next);
    }
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

namespace {

/// An id in the shape of a UUID is what Mergen gives: a chosen one could be another VM's internal identity.
void refuseUuid(const RecordId& id) {
    if (!uuidOf(id)) return;
    throw Error(ErrorKind::InvalidArgument, "'" + id.str() + "' is a UUID; leave the id out to be given one")
        .about("id");
}

/// What a caller calls the member of GuestSpec that a VMM refuses.
std::string requestMember(const std::string& guestMember) {
    static const std::map<std::string, std::string> names{
        {"vcpus", "vcpu"}, {"memory", "memMiB"}, {"bootArguments", "bootArgs"}};
    const auto name = names.find(guestMember);
    return name == names.end() ? guestMember : name->second;
}

}  // namespace

Created Engine::Impl::create(const CreateRequest& request) {
    const Guard guard(*this);
    const OpenedImages images = openImages(config_, request);

    VmRecord record(request.id.value_or(RecordId::parse("unnamed")), Uuid{});  // reserve() gives it what is missing
    record.name = request.name;
    record.createdAt = std::chrono::system_clock::now();
    record.vmm = request.vmm.empty() ? config_.vmm : request.vmm;
    if (!backends_.vmms.contains(record.vmm)) {
        std::string loaded;
        for (const auto& [name, vmm] : backends_.vmms) loaded += (loaded.empty() ? "" : ", ") + name;
        throw Error(ErrorKind::InvalidArgument,
                    "'" + printable(record.vmm) + "' is none of the VMMs that are loaded: " + loaded)
            .about("vmm");
    }
    record.rootfs = request.rootfs;
    record.kernel = request.kernel;
    record.initrd = request.initrd;
    record.dataDisk = request.dataDisk;
    record.vcpus = request.vcpus;
    record.memory = request.memory;
    record.httpPort = request.httpPort;
    record.autoStart = request.autoStart;
    record.restartPolicy = request.restartPolicy;
    record.maxRestarts = request.maxRestarts;
    record.bootArguments = request.bootArguments;
    record.extraEnv = request.extraEnv;
    record.tags = request.tags;
    record.metadata = request.metadata;
    record.hooks = request.hooks;

    refuseUnpublishable(request.ports);
    // Before the ports, which the VM of that id may hold: the id is what is wrong then.
    if (request.id) {
        refuseUuid(*request.id);
        registry_.refuseTaken(*request.id);
    }
    identities_.reserve(record, request.ports, request.id.has_value());
    Rollback undo;
    undo.add([&] { identities_.release(record); });
    try {
        const VmmBackend& vmm = vmmOf(record);
        const GuestSpec guest = guestSpec(config_, record, backends_.network.traits().touchesHost);
        GuestSpec given = guest;
        given.kernel = request.kernel;  // its own copy is not made yet, and its kind is looked at
        vmm.check(given);
        if (record.restartPolicy != RestartPolicy::No) {
            try {
                refuseUnattended(record, vmm.plan(guest, vmmPlace(config_, record)));
            } catch (const Error& error) {
                // Where the VMM's program is missing, a VM can be made all the same, and its start says so.
                if (error.kind() != ErrorKind::FailedPrecondition) throw;
            }
        }
    } catch (const Error& error) {
        throw error.about(requestMember(error.field()));
    }

    const auto vm = std::make_shared<Vm>(record, config_.eventsPerVm);
    {
        // Held before it can be seen: nobody deletes a VM that is half made.
        Operation op(vm, "create", log_, [this](const Uuid& uuid) { queueExit(uuid); });
        registry_.add(vm, config_.maxVms);
        undo.add([&] { registry_.remove(*vm); });
        undo.add([&] { disks_.release(record.id); });
        claimDisks(record, images);
        op.lock(lockFile(*vm), tagOf(record));
        try {
            runHeld(op, [&] { createVm(op, images); });
        } catch (const Error&) {
            if (!discardUnfinished(*vm)) undo.commit();
            throw;
        }
        adoptDisks(record);
    }
    undo.commit();
    log_.info("vm.created", {{"vm", record.id.str()}, {"guest", record.guest.str()}});
    if (!record.hooks.empty()) noteHooks(*vm);
    Created created;
    if (request.autoStart) {
        try {
            run(vm, "start", [&](Operation& op) { startVm(op); });
        } catch (const Error& error) {
            created.startFailure = error.within("VM '" + record.id.str() + "' was created but could not be started");
        }
    }
    created.vm = view(*vm);
    return created;
}

bool Engine::Impl::discardUnfinished(Vm& vm) {
    try {
        const VmRecord record = [&] {
            const std::lock_guard lock(vm.mutex);
            vm.erased = true;  // for who waits to delete it
            return vm.record;
        }();
        removeDisks(config_, record);
        // The record goes last: while it is there, a restart would undo the rest. And only if it is ours: a create that
        // was refused because the id is taken in storage has none.
        if (vm.revision) static_cast<void>(backends_.storage.erase(record.id));
        return true;
    } catch (const std::exception& error) {
        // Then the VM stays visible as it is, and a DELETE or the next start of the server removes it.
        log_.error("vm.create.leftover", {{"vm", vm.id.str()}, {"cause", error.what()}});
        const std::lock_guard lock(vm.mutex);
        vm.erased = false;
        return false;
    }
}

void Engine::Impl::refuseUnpublishable(const std::vector<PortRequest>& ports) const {
    if (backends_.network.traits().udp) return;
    for (std::size_t i = 0; i < ports.size(); ++i) {
        if (ports[i].protocol == Protocol::Udp) {
            throw Error(ErrorKind::NotSupported, "the network backend publishes TCP ports only")
                .about("ports[" + std::to_string(i) + "].protocol");
        }
    }
}

void Engine::Impl::noteHooks(Vm& vm) {
    Event event;
    event.vm = vm.id.str();
    event.operation = "create";
    event.outcome = "note";
    event.cause = "the hooks are stored; nothing runs them, because no hooks plugin is loaded";
    vm.timeline.append(std::move(event));
}

void Engine::Impl::noteLostPorts(Vm& vm, const std::vector<std::string>& lost) {
    for (const std::string& why : lost) {
        log_.warning("vm.port.lost",
                     {{"vm", vm.id.str()}, {"cause", why}, {"effect", "the VM cannot be started until it is free"}});
        Event event;
        event.vm = vm.id.str();
        event.operation = "adopt";
        event.outcome = "note";
        event.cause = why;
        vm.timeline.append(std::move(event));
    }
}

namespace {

struct stat inspect(const UniqueFd& fd, const std::string& what) {
    struct stat status {};
    if (::fstat(fd.get(), &status) != 0) throw Error::fromErrno(errno, "cannot inspect the " + what);
    return status;
}

void refuseWritten(const UniqueFd& fd, const std::filesystem::path& path, const std::string& field) {
    if (!isOpenForWriting(fd.get())) return;
    throw Error(ErrorKind::Conflict, "another program has " + path.string() + " open for writing").about(field);
}

}  // namespace

void Engine::Impl::claimDisks(const VmRecord& record, const OpenedImages& images) {
    struct Image {
        const char* field;
        const UniqueFd& fd;
        std::filesystem::path path;
    };
    std::vector<Image> copied{{"rootfs", images.rootfs, record.rootfs}, {"kernel", images.kernel, record.kernel}};
    if (record.initrd) copied.push_back({"initrd", images.initrd, *record.initrd});
    for (const Image& image : copied) {
        disks_.refuseForeign(inspect(image.fd, image.field), image.path, record.id, image.field);
        refuseWritten(image.fd, image.path, image.field);
    }
    if (!record.dataDisk) return;
    const struct stat disk = inspect(images.dataDisk, "data disk");
    for (const Image& image : copied) {
        const struct stat given = inspect(image.fd, image.field);
        if (given.st_dev != disk.st_dev || given.st_ino != disk.st_ino) continue;
        throw Error(ErrorKind::InvalidArgument, "the data disk is the file that is given as " +
                                                    std::string(image.field) + ", which the guest would write to")
            .about("dataDisk");
    }
    disks_.claim(disk, *record.dataDisk, record.id, "dataDisk");
    refuseWritten(images.dataDisk, *record.dataDisk, "dataDisk");
}

void Engine::Impl::adoptDisks(const VmRecord& record) {
    const auto adopt = [&](const std::filesystem::path& path) {
        struct stat status {};
        if (::lstat(path.c_str(), &status) == 0) {
            disks_.claim(status, path, record.id, "dataDisk");
        } else {
            disks_.claimName(path, record.id);  // not mounted yet, perhaps
        }
    };
    try {
        adopt(pathsOf(config_, record.id, record.uuid).dataDir / "rootfs.ext4");
        if (record.dataDisk) adopt(*record.dataDisk);
    } catch (const Error& error) {
        log_.error("vm.disk.shared", {{"vm", record.id.str()},
                                      {"cause", error.what()},
                                      {"effect", "it cannot be started while the other VM is there"}});
    }
}

DiskOwner Engine::Impl::claimDataDisk(const VmRecord& record) {
    try {
        const UniqueFd fd = openDataDisk(config_, record);
        disks_.claim(inspect(fd, "data disk"), *record.dataDisk, record.id, "dataDisk");
        refuseWritten(fd, *record.dataDisk, "dataDisk");
        return ownerBeforeLoan(fd, record);
    } catch (const Error& error) {
        throw Error(error.kind(), std::string("the data disk: ") + error.what());
    }
}

VmView Engine::Impl::start(const std::string& id) {
    const Guard guard(*this);
    const auto vm = need(id);
    run(vm, "start", [&](Operation& op) { startVm(op); });
    return view(*vm);
}

VmView Engine::Impl::stop(const std::string& id) {
    const Guard guard(*this);
    const auto vm = need(id);
    try {
        run(vm, "stop", [&](Operation& op) { stopVm(op); });
    } catch (const Error& error) {
        if (error.kind() != ErrorKind::Conflict && error.kind() != ErrorKind::FailedPrecondition) {
            noteFailure(*vm, error.what());
        }
        throw;
    }
    return view(*vm);
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

void Engine::Impl::remove(const std::string& id, bool retainData) {
    const Guard guard(*this);
    const auto vm = need(id);
    try {
        run(vm, "delete", [&](Operation& op) { removeVm(op, retainData); });
    } catch (const Error& error) {
        if (error.kind() != ErrorKind::Conflict) noteFailure(*vm, error.what());
        throw;
    }
}

VmView Engine::Impl::view(const Vm& vm) const {
    VmView view;
    Vm::Restarts restarts;
    VmRecord record = [&] {
        const std::lock_guard lock(vm.mutex);
        view.holder = vm.holder;
        view.pid = vm.pid;
        restarts = vm.restarts;
        return vm.record;
    }();
    view.id = record.id.str();
    view.uuid = record.uuid.str();
    view.name = record.name;
    view.state = record.state;
    view.failure = record.failure;
    view.createdAt = record.createdAt;
    view.vmm = record.vmm;
    view.rootfs = record.rootfs;
    view.kernel = record.kernel;
    view.initrd = record.initrd;
    view.dataDisk = record.dataDisk;
    view.vcpus = record.vcpus;
    view.memory = record.memory;
    view.ports = record.ports;
    view.httpPort = record.httpPort;
    view.autoStart = record.autoStart;
    if (record.state != VmState::Corrupt) {
        view.guestAddress = record.guest.str();
        view.mac = record.mac.str();
        view.bootArguments = bootArguments(config_, record);
    }
    view.tapName = record.tap;
    view.netns = record.netns;
    view.extraEnv = record.extraEnv;
    view.tags = record.tags;
    view.metadata = record.metadata.empty() ? "{}" : record.metadata;
    view.hooks = record.hooks;
    view.paths = pathsOf(config_, record.id, record.uuid);
    view.lastExit = record.lastExit;
    view.restartPolicy = record.restartPolicy;
    view.maxRestarts = record.maxRestarts;
    // The record is behind while the VM runs, and ahead when it has ended.
    view.restarts = std::max(record.restarts, restarts.count);
    view.lastEnd = record.lastEnd;
    if (restarts.lastEnd && (!view.lastEnd || view.lastEnd->at < restarts.lastEnd->at)) {
        view.lastEnd = restarts.lastEnd;
        view.lastExit = restarts.lastEnd->exit;
    }
    view.socketPresent = view.pid != 0 && ::access(view.paths.socket.c_str(), F_OK) == 0;
    return view;
}

std::vector<VmView> Engine::Impl::list() const {
    std::vector<VmView> views;
    for (const auto& vm : registry_.all()) views.push_back(view(*vm));
    std::ranges::stable_sort(views, std::ranges::greater{}, &VmView::createdAt);
    return views;
}

std::vector<ComponentHealth> Engine::Impl::health() const {
    std::vector<ComponentHealth> all;
    const auto ask = [&](const std::string& kind, const std::string& name, const Plugin& plugin) {
        try {
            const Health health = plugin.health();
            all.push_back(ComponentHealth{kind, name, health.ok, health.detail});
        } catch (const std::exception& error) {
            all.push_back(ComponentHealth{kind, name, false, error.what()});
        }
    };
    ask("storage", backends_.storageName, backends_.storage);
    ask("supervisor", backends_.supervisorName, backends_.supervisor);
    ask("network", backends_.networkName, backends_.network);
    for (const auto& [name, vmm] : backends_.vmms) {
        ask("vmm", name, *vmm);
        all.back() = vmmHealth(name, std::move(all.back()));
    }
    std::size_t corrupt = 0;
    for (const auto& vm : registry_.all()) {
        const std::lock_guard lock(vm->mutex);
        corrupt += vm->record.state == VmState::Corrupt ? 1 : 0;
    }
    if (corrupt > 0) {
        // Not a reason to take no requests: every other VM works.
        all.push_back(
            ComponentHealth{"engine", "", true,
                            std::to_string(corrupt) + " records cannot be read" +
                                (strangersPossible() ? "; what might be theirs on the host is left alone" : "")});
    }
    return all;
}

ComponentHealth Engine::Impl::vmmHealth(const std::string& name, ComponentHealth found) const {
    if (name == config_.vmm) {
        if (!config_.vmmChoice.empty()) found.detail = config_.vmmChoice + "; " + found.detail;
        return found;
    }
    const bool used = std::ranges::any_of(registry_.all(), [&](const std::shared_ptr<Vm>& vm) {
        const std::lock_guard lock(vm->mutex);
        return vm->record.vmm == name;
    });
    if (!found.ok && !used) {
        found.ok = true;
        found.detail = "no VM needs it; " + found.detail;
    }
    return found;
}

std::string Engine::Impl::vmConfig(const std::string& id) const {
    const auto vm = need(id);
    const VmRecord record = [&] {
        const std::lock_guard lock(vm->mutex);
        return vm->record;
    }();
    if (record.state == VmState::Corrupt) {
        throw Error(ErrorKind::FailedPrecondition, "the record of VM '" + id + "' cannot be read: " + record.failure);
    }
    return vmConfigDocument(config_, record, backends_.network.traits().touchesHost);
}

Engine::Engine(EngineConfig config, Backends backends, Log& log)
    : impl_(std::make_unique<Impl>(std::move(config), std::move(backends), log)) {}
Engine::~Engine() = default;
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
VmView Engine::stop(const std::string& id) {
    return impl_->stop(id);
}
VmView Engine::pause(const std::string& id) {
    return impl_->pause(id);
}
VmView Engine::resume(const std::string& id) {
    return impl_->resume(id);
}
void Engine::remove(const std::string& id, bool retainData) {
    impl_->remove(id, retainData);
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
