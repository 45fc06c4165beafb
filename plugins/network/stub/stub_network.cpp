#include "stub_network.hpp"

namespace mergen::network {

const mergen_key StubNetwork::keys[] = {{nullptr, MERGEN_KEY_STRING, nullptr, nullptr}};

void StubNetwork::configure(Host& host) {
    instance_ = host.instance();
}

void StubNetwork::checkOwner(const OwnerTag& owner) const {
    if (owner.instance != instance_) {
        throw Error(ErrorKind::InvalidArgument, "VM " + owner.vm.str() + " belongs to another server");
    }
}

StubNetwork::Wire StubNetwork::wireOf(const NetworkSpec& spec) {
    Wire wire{spec.netns, {spec.guest}};
    for (const FurtherNic& nic : spec.further) {
        if (!wire.guests.insert(nic.guest).second) {
            throw Error(ErrorKind::InvalidArgument, "the address " + nic.guest.str() + " is that of two network cards");
        }
    }
    return wire;
}

void StubNetwork::checkNamesLocked(const NetworkSpec& spec) const {
    checkOwner(spec.owner);
    const Wire asked = wireOf(spec);
    for (const auto& [owner, wire] : wires_) {
        if (owner == spec.owner) continue;
        if (wire.netns == spec.netns) {
            throw Error(ErrorKind::AlreadyExists,
                        "the network namespace '" + spec.netns + "' is VM " + owner.vm.str() + "'s");
        }
        for (const Ipv4Address guest : asked.guests) {
            if (!wire.guests.contains(guest)) continue;
            throw Error(ErrorKind::AlreadyExists,
                        "the guest's address " + guest.str() + " is VM " + owner.vm.str() + "'s");
        }
    }
}

void StubNetwork::checkNames(const NetworkSpec& spec) const {
    const std::lock_guard lock(mutex_);
    checkNamesLocked(spec);
}

bool StubNetwork::holdPort(Protocol protocol, std::uint16_t port) {
    const std::lock_guard lock(mutex_);
    held_.emplace(protocol, port);
    return true;  // there are no other programs here
}

void StubNetwork::releasePort(Protocol protocol, std::uint16_t port) noexcept {
    const std::lock_guard lock(mutex_);
    held_.erase({protocol, port});
}

NetworkAttachment StubNetwork::attach(const NetworkSpec& spec) {
    const std::lock_guard lock(mutex_);
    checkNamesLocked(spec);
    wires_.insert_or_assign(spec.owner, wireOf(spec));
    return {};
}

std::optional<NetworkAttachment> StubNetwork::inspect(const NetworkSpec& spec) const {
    const std::lock_guard lock(mutex_);
    const auto wire = wires_.find(spec.owner);
    if (wire == wires_.end() || wire->second.guests != wireOf(spec).guests) return std::nullopt;
    return NetworkAttachment{};
}

void StubNetwork::publish(const NetworkSpec& spec) {
    checkOwner(spec.owner);
    const std::lock_guard lock(mutex_);
    // All is looked at before anything is changed: all or none.
    for (const PortBinding& port : spec.ports) {
        const auto taken = ports_.find({port.protocol, port.host});
        if (taken != ports_.end() && taken->second != spec.owner) {
            throw Error(ErrorKind::AlreadyExists, "host port " + std::to_string(port.host) + " (" +
                                                      std::string(toString(port.protocol)) + ") leads to VM " +
                                                      taken->second.vm.str())
                .about("ports");
        }
    }
    forgetPorts(spec.owner);
    for (const PortBinding& port : spec.ports) ports_.emplace(Port{port.protocol, port.host}, spec.owner);
}

void StubNetwork::forgetPorts(const OwnerTag& owner) {
    std::erase_if(ports_, [&](const auto& port) { return port.second == owner; });
}

void StubNetwork::unpublish(const NetworkSpec& spec) {
    const std::lock_guard lock(mutex_);
    forgetPorts(spec.owner);
}

void StubNetwork::detach(const NetworkSpec& spec) {
    removeStray(spec.owner);
}

std::vector<NetworkFinding> StubNetwork::list() const {
    const std::lock_guard lock(mutex_);
    std::map<OwnerTag, std::vector<std::string>> found;
    for (const auto& [owner, wire] : wires_) {
        for (const Ipv4Address guest : wire.guests) found[owner].push_back("wire of " + guest.str());
    }
    for (const auto& [port, owner] : ports_) {
        found[owner].push_back("port " + std::string(toString(port.first)) + " " + std::to_string(port.second));
    }
    std::vector<NetworkFinding> findings;
    findings.reserve(found.size());
    for (auto& [owner, objects] : found) findings.push_back({owner, std::move(objects)});
    return findings;
}

void StubNetwork::removeStray(const OwnerTag& owner) {
    checkOwner(owner);
    const std::lock_guard lock(mutex_);
    forgetPorts(owner);
    wires_.erase(owner);
}

}  // namespace mergen::network
