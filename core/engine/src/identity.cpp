#include "identity.hpp"

#include <algorithm>
#include <unistd.h>

#include <mergen/base/rollback.hpp>
#include <mergen/sdk/error.hpp>

namespace mergen::engine {

namespace {

/// So many names or addresses that something foreign occupies are passed over before a create gives up.
constexpr int attempts = 16;

Error taken(std::string_view what, const std::string& value, const std::string& holder) {
    return {ErrorKind::AlreadyExists, std::string(what) + " " + value + " belongs to VM '" + holder + "'"};
}

std::vector<MacAddress> macsOf(const VmRecord& record) {
    std::vector<MacAddress> macs{record.mac};
    for (const FurtherNic& nic : record.further) macs.push_back(nic.mac);
    return macs;
}

/// Without those that a corrupt record does not tell.
std::vector<Ipv4Address> addressesOf(const VmRecord& record) {
    std::vector<Ipv4Address> addresses{record.guest};
    for (const FurtherNic& nic : record.further) addresses.push_back(nic.guest);
    std::erase(addresses, Ipv4Address());
    return addresses;
}

bool runsAsRoot() noexcept {
    return ::geteuid() == 0;
}

}  // namespace

Identities::Identities(const EngineConfig& config, NetworkBackend& network)
    : config_(config),
      network_(network),
      hosts_(2, config.guestNetwork.size() - 3),  // not the network, the gateway and the broadcast address (L36)
      tcpPorts_(config.portStart, static_cast<std::uint32_t>(config.portEnd - config.portStart + 1)),
      udpPorts_(config.portStart, static_cast<std::uint32_t>(config.portEnd - config.portStart + 1)),
      uids_(config.uidStart, config.uidCount) {}

void Identities::reserve(VmRecord& record, const std::vector<PortRequest>& ports, bool chosenId) {
    Rollback undo;
    reserveUuid(record, chosenId);
    undo.add([&] {
        const std::lock_guard lock(mutex_);
        shortIds_.erase(record.uuid.short8());
        for (const MacAddress& mac : macsOf(record)) macs_.erase(mac);
    });
    if (!record.name.empty()) {
        const std::lock_guard lock(mutex_);
        const auto [entry, isNew] = names_.emplace(record.name, record.id.str());
        if (!isNew) throw taken("the name", "'" + record.name + "'", entry->second).about("name");
        undo.add([&] {
            const std::lock_guard again(mutex_);
            names_.erase(record.name);
        });
    }
    if (runsAsRoot()) {
        const std::lock_guard lock(mutex_);
        const auto uid = uids_.takeLowest();
        if (!uid) {
            throw Error(ErrorKind::ResourceExhausted, "all " + std::to_string(config_.uidCount) + " uids are in use");
        }
        record.credentials = Credentials{*uid, *uid};
        undo.add([&] {
            const std::lock_guard again(mutex_);
            uids_.release(record.credentials.uid);
        });
    } else {
        record.credentials = Credentials{::geteuid(), ::getegid()};
    }
    reserveAddresses(record);
    undo.add([&] {
        const std::lock_guard lock(mutex_);
        for (const Ipv4Address address : addressesOf(record)) releaseAddress(address);
    });
    reservePorts(record, ports);
    undo.commit();
}

void Identities::reserveUuid(VmRecord& record, bool chosenId) {
    for (int attempt = 0; attempt < attempts; ++attempt) {
        const Uuid uuid = Uuid::random();
        record.mac = MacAddress::of(uuid);
        record.further.clear();
        for (std::size_t number = 1; number < cardsAskedFor(record); ++number) {
            record.further.push_back(furtherNic(uuid, number, Ipv4Address()));  // until it gets one
        }
        const std::vector<MacAddress> macs = macsOf(record);
        const std::string id = chosenId ? record.id.str() : uuid.str();
        const std::lock_guard lock(mutex_);
        // Names and MAC are made of a part of the UUID: two VMs may agree in it, so it is looked up, not hoped (W12).
        const auto isTaken = [&](const MacAddress& mac) { return macs_.contains(mac); };
        if (shortIds_.contains(uuid.short8()) || std::ranges::any_of(macs, isTaken)) continue;
        shortIds_.emplace(uuid.short8(), id);
        for (const MacAddress& mac : macs) macs_.emplace(mac, id);
        record.uuid = uuid;
        record.id = RecordId::parse(id);
        record.tap = "tap-" + uuid.short8();
        record.netns = "mergen-" + uuid.short8();
        return;
    }
    throw Error(ErrorKind::ResourceExhausted, "no interface name is free");
}

void Identities::reserveAddresses(VmRecord& record) {
    record.network = config_.guestNetwork;
    Rollback undo;
    const auto reserveOne = [&](Ipv4Address& address) {
        reserveAddress(record, address);
        undo.add([this, given = address] {
            const std::lock_guard lock(mutex_);
            releaseAddress(given);
        });
    };
    reserveOne(record.guest);
    for (FurtherNic& nic : record.further) reserveOne(nic.guest);
    undo.commit();
}

void Identities::releaseAddress(Ipv4Address address) {
    addresses_.erase(address);
    if (config_.guestNetwork.contains(address)) hosts_.release(address.value() - config_.guestNetwork.base().value());
}

void Identities::reserveAddress(VmRecord& record, Ipv4Address& address) {
    std::vector<std::uint32_t> occupied;  // by something foreign: held until one that is free is found
    const auto giveBack = [&] {
        const std::lock_guard lock(mutex_);
        for (const std::uint32_t number : occupied) hosts_.release(number);
    };
    for (int attempt = 0; attempt < attempts; ++attempt) {
        std::optional<std::uint32_t> number;
        {
            const std::lock_guard lock(mutex_);
            number = hosts_.takeLowest();
        }
        if (!number) {
            giveBack();
            throw Error(ErrorKind::ResourceExhausted, "all addresses of " + config_.guestNetwork.str() + " are in use");
        }
        address = config_.guestNetwork.host(*number);
        try {
            NetworkSpec spec = networkSpec(config_, record);
            std::erase_if(spec.further, [](const FurtherNic& nic) { return nic.guest == Ipv4Address(); });
            network_.checkNames(spec);
        } catch (const Error& error) {
            occupied.push_back(*number);
            if (error.kind() == ErrorKind::AlreadyExists && attempt + 1 < attempts) continue;
            giveBack();
            throw;
        }
        giveBack();
        const std::lock_guard lock(mutex_);
        addresses_.emplace(address, record.id.str());
        return;
    }
}

bool Identities::takePort(PortKey key, const std::string& owner, std::string& holder) {
    const std::lock_guard lock(mutex_);
    const auto [entry, isNew] = ports_.emplace(key, owner);
    if (!isNew) {
        holder = entry->second;
        return false;
    }
    static_cast<void>(portPool(key.first).take(key.second));
    return true;
}

void Identities::releasePort(PortKey key) {
    // First the port, then its number: who gets the number next must not find the port held and then lose it.
    network_.releasePort(key.first, key.second);
    const std::lock_guard lock(mutex_);
    if (ports_.erase(key) > 0) portPool(key.first).release(key.second);
}

std::uint16_t Identities::choosePort(Protocol protocol, const std::string& owner) {
    std::uint32_t from = config_.portStart;
    for (;;) {
        std::uint16_t port = 0;
        {
            const std::lock_guard lock(mutex_);
            const auto number = portPool(protocol).takeLowest(from);
            if (!number) {
                throw Error(ErrorKind::ResourceExhausted, "no " + std::string(toString(protocol)) + " port from " +
                                                              std::to_string(config_.portStart) + " to " +
                                                              std::to_string(config_.portEnd) + " is free");
            }
            port = static_cast<std::uint16_t>(*number);
            ports_.emplace(PortKey{protocol, port}, owner);
        }
        Rollback undo;
        undo.add([&] { releasePort({protocol, port}); });
        if (network_.holdPort(protocol, port)) {
            undo.commit();
            return port;
        }
        from = port + 1U;  // another program of the host has it
    }
}

void Identities::reservePorts(VmRecord& record, const std::vector<PortRequest>& ports) {
    Rollback undo;
    const std::string owner = record.id.str();
    record.ports.clear();
    const auto keep = [&](Protocol protocol, std::uint16_t host, std::uint16_t guest) {
        undo.add([this, protocol, host] { releasePort({protocol, host}); });
        record.ports.push_back(PortBinding{host, protocol, guest});
    };
    // Those with a number first: a chosen one must not take what the same request asks for by number.
    for (std::size_t i = 0; i < ports.size(); ++i) {
        if (ports[i].host == 0) continue;
        const std::string field = "ports[" + std::to_string(i) + "].host";
        const std::string number = std::to_string(ports[i].host) + "/" + std::string(toString(ports[i].protocol));
        // Not seen by the holder's name: another request for the same id may be under way.
        if (std::ranges::any_of(record.ports, [&](const PortBinding& port) {
                return port.protocol == ports[i].protocol && port.host == ports[i].host;
            })) {
            throw Error(ErrorKind::InvalidArgument, "host port " + number + " is asked for twice").about(field);
        }
        std::string holder;
        if (!takePort({ports[i].protocol, ports[i].host}, owner, holder)) {
            throw taken("host port", number, holder).about(field);
        }
        keep(ports[i].protocol, ports[i].host, ports[i].guest);
        if (!network_.holdPort(ports[i].protocol, ports[i].host)) {
            throw Error(ErrorKind::AlreadyExists, "host port " + number + " is in use by another program of the host")
                .about(field);
        }
    }
    for (const PortRequest& port : ports) {
        if (port.host == 0) keep(port.protocol, choosePort(port.protocol, owner), port.guest);
    }
    std::ranges::sort(record.ports);
    undo.commit();
}

std::vector<std::string> Identities::adopt(const VmRecord& record) {
    adoptNumbers(record);
    std::vector<std::string> lost;
    for (const PortBinding& port : record.ports) {
        const std::string what = "host port " + std::to_string(port.host) + "/" + std::string(toString(port.protocol));
        try {
            if (!network_.holdPort(port.protocol, port.host)) {
                lost.push_back(what + " has been taken by another program of the host");
            }
        } catch (const Error& error) {
            lost.push_back(what + " cannot be held: " + error.what());
        }
    }
    return lost;
}

void Identities::adoptNumbers(const VmRecord& record) {
    const std::string owner = record.id.str();
    const std::lock_guard lock(mutex_);
    if (const auto it = shortIds_.find(record.uuid.short8()); it != shortIds_.end()) {
        throw taken("the interface name", record.tap, it->second);
    }
    const std::vector<MacAddress> macs = macsOf(record);
    for (const MacAddress& mac : macs) {
        if (const auto it = macs_.find(mac); it != macs_.end()) throw taken("the MAC address", mac.str(), it->second);
    }
    const std::vector<Ipv4Address> addresses = addressesOf(record);
    for (const Ipv4Address address : addresses) {
        if (const auto it = addresses_.find(address); it != addresses_.end()) {
            throw taken("the address", address.str(), it->second);
        }
    }
    if (const auto it = names_.find(record.name); !record.name.empty() && it != names_.end()) {
        throw taken("the name", "'" + record.name + "'", it->second);
    }
    for (const PortBinding& port : record.ports) {
        if (const auto it = ports_.find({port.protocol, port.host}); it != ports_.end()) {
            throw taken("host port", std::to_string(port.host), it->second);
        }
    }
    if (runsAsRoot() && uids_.contains(record.credentials.uid) && !uids_.take(record.credentials.uid)) {
        throw Error(ErrorKind::AlreadyExists,
                    "the uid " + std::to_string(record.credentials.uid) + " belongs to another VM");
    }
    shortIds_.emplace(record.uuid.short8(), owner);
    for (const MacAddress& mac : macs) macs_.emplace(mac, owner);
    if (!record.name.empty()) names_.emplace(record.name, owner);
    for (const Ipv4Address address : addresses) {
        addresses_.emplace(address, owner);
        // One of another network is held in the map alone: the operator has changed network.guest_cidr since.
        if (config_.guestNetwork.contains(address)) {
            static_cast<void>(hosts_.take(address.value() - config_.guestNetwork.base().value()));
        }
    }
    for (const PortBinding& port : record.ports) {
        ports_.emplace(PortKey{port.protocol, port.host}, owner);
        static_cast<void>(portPool(port.protocol).take(port.host));
    }
}

void Identities::release(const VmRecord& record) {
    for (const PortBinding& port : record.ports) releasePort({port.protocol, port.host});
    const std::lock_guard lock(mutex_);
    shortIds_.erase(record.uuid.short8());
    for (const MacAddress& mac : macsOf(record)) macs_.erase(mac);
    for (const Ipv4Address address : addressesOf(record)) releaseAddress(address);
    if (!record.name.empty()) names_.erase(record.name);
    if (runsAsRoot()) uids_.release(record.credentials.uid);
}

}  // namespace mergen::engine
