// What is said of VMs and of the parts that they stand on.
#include <algorithm>
#include <unistd.h>

#include "engine_impl.hpp"

namespace mergen::engine {

namespace {

std::vector<VmInterface> interfacesOf(const VmRecord& record) {
    std::vector<VmInterface> all{{"eth0", record.guest.str(), record.mac.str(), record.tap}};
    for (const FurtherNic& nic : record.further) {
        all.push_back({"eth" + std::to_string(all.size()), nic.guest.str(), nic.mac.str(), nic.tap.str()});
    }
    return all;
}

}  // namespace

VmView Engine::Impl::view(const Vm& vm) const {
    VmView view;
    Vm::Restarts restarts;
    VmRecord record = [&] {
        const std::lock_guard lock(vm.mutex);
        view.holder = vm.holder;
        view.pid = vm.pid;
        restarts = vm.restarts;
        if (vm.pid != 0 && vm.probe.pid == vm.pid) view.unresponsive = vm.probe.unresponsive;
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
    view.drives = record.drives;
    view.nics = record.nics;
    view.options = record.options;
    if (const VmmBackend* vmm = findVmm(record); vmm != nullptr && record.options.vsock)
        view.vsock = vmm->vsockPath(vmmPlace(config_, record));
    view.ports = record.ports;
    view.httpPort = record.httpPort;
    view.autoStart = record.autoStart;
    if (record.state != VmState::Corrupt) {
        view.guestAddress = record.guest.str();
        view.mac = record.mac.str();
        view.interfaces = interfacesOf(record);
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
    view.onUnresponsive = record.onUnresponsive;
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
    // What is sorted is small: views are made in their order.
    std::vector<std::pair<SystemTime, std::shared_ptr<Vm>>> order;
    for (auto& vm : registry_.all()) {
        const SystemTime createdAt = [&] {
            const std::lock_guard lock(vm->mutex);
            return vm->record.createdAt;
        }();
        order.emplace_back(createdAt, std::move(vm));
    }
    std::ranges::stable_sort(order, std::ranges::greater{}, [](const auto& each) { return each.first; });
    std::vector<VmView> views;
    views.reserve(order.size());
    for (const auto& [createdAt, vm] : order) views.push_back(view(*vm));
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

}  // namespace mergen::engine
