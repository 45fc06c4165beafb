#include "registry.hpp"

#include <mergen/sdk/error.hpp>

namespace mergen::engine {

std::shared_ptr<Vm> Registry::find(const std::string& id) const {
    const std::lock_guard lock(mutex_);
    const auto found = byId_.find(id);
    return found == byId_.end() ? nullptr : found->second;
}

std::shared_ptr<Vm> Registry::findByUuid(const Uuid& uuid) const {
    const std::lock_guard lock(mutex_);
    const auto found = byUuid_.find(uuid);
    return found == byUuid_.end() ? nullptr : found->second;
}

std::vector<std::shared_ptr<Vm>> Registry::all() const {
    const std::lock_guard lock(mutex_);
    std::vector<std::shared_ptr<Vm>> vms;
    vms.reserve(byId_.size());
    for (const auto& [id, vm] : byId_) vms.push_back(vm);
    return vms;
}

std::size_t Registry::size() const {
    const std::lock_guard lock(mutex_);
    return byId_.size();
}

void Registry::refuseTaken(const RecordId& id) const {
    const std::lock_guard lock(mutex_);
    refuseTakenLocked(id);
}

void Registry::refuseTakenLocked(const RecordId& id) const {
    if (byId_.contains(id.str())) {
        throw Error(ErrorKind::AlreadyExists, "there is a VM '" + id.str() + "' already").about("id");
    }
}

void Registry::add(const std::shared_ptr<Vm>& vm, std::size_t limit) {
    const std::lock_guard lock(mutex_);
    refuseTakenLocked(vm->id);
    if (byUuid_.contains(vm->uuid)) {
        throw Error(ErrorKind::AlreadyExists, "another VM has the UUID " + vm->uuid.str());
    }
    if (byId_.size() >= limit) {
        throw Error(ErrorKind::ResourceExhausted,
                    "there are " + std::to_string(limit) + " VMs, the limit (vm.max_vms)");
    }
    byId_.emplace(vm->id.str(), vm);
    byUuid_.emplace(vm->uuid, vm);
}

void Registry::remove(const Vm& vm) {
    const std::lock_guard lock(mutex_);
    const auto found = byId_.find(vm.id.str());
    if (found == byId_.end() || found->second.get() != &vm) return;  // the id is another's by now
    byId_.erase(found);
    byUuid_.erase(vm.uuid);
}

}  // namespace mergen::engine
