#pragma once

#include <map>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "documents.hpp"
#include "number_pool.hpp"

namespace mergen::engine {

/// Gives out what no two VMs may share: names, addresses, host ports, MAC addresses, uids. Each allocation is one short
/// critical section in memory; whether the host itself has something in the way is asked outside the lock. A host port
/// is real: while a VM has its number, the network backend holds it (W2).
/// Threads: any.
class Identities {
public:
    Identities(const EngineConfig& config, NetworkBackend& network);

    /// Fills uuid, guest, network, mac, tap, netns, further, ports and credentials of `record`, whose nics are set, and
    /// id and name if the caller chose them; without a chosen id the id becomes the UUID. Asks the network backend
    /// whether names, routes and ports are free on the host and goes on to the next where Mergen may choose. Throws
    /// AlreadyExists about "name" or "ports[i].host", naming the holder; ResourceExhausted when a pool is used up;
    /// nothing is reserved then.
    void reserve(VmRecord& record, const std::vector<PortRequest>& ports, bool chosenId);

    /// Takes what a record of an earlier server holds. Throws AlreadyExists, naming the other VM, if two records hold
    /// the same; nothing of this one is reserved then. Gives the VM's ports that cannot be held, each with the reason:
    /// another program took them while no server ran.
    [[nodiscard]] std::vector<std::string> adopt(const VmRecord& record);

    /// Gives back what reserve() or adopt() took. Only after the record is durably gone.
    void release(const VmRecord& record);

private:
    using PortKey = std::pair<Protocol, std::uint16_t>;

    void reserveUuid(VmRecord& record, bool chosenId);
    /// Gives each network card its address: all or none.
    void reserveAddresses(VmRecord& record);
    /// Sets `address`, which is that of one of the record's network cards.
    void reserveAddress(VmRecord& record, Ipv4Address& address);
    /// Gives an address back. With mutex_ held.
    void releaseAddress(Ipv4Address address);
    void adoptNumbers(const VmRecord& record);
    void reservePorts(VmRecord& record, const std::vector<PortRequest>& ports);
    std::uint16_t choosePort(Protocol protocol, const std::string& owner);
    bool takePort(PortKey key, const std::string& owner, std::string& holder);
    void releasePort(PortKey key);
    [[nodiscard]] NumberPool& portPool(Protocol protocol) { return protocol == Protocol::Tcp ? tcpPorts_ : udpPorts_; }

    const EngineConfig& config_;
    NetworkBackend& network_;

    std::mutex mutex_;
    // All below is guarded by mutex_.
    std::map<std::string, std::string, std::less<>> names_;  // name → id
    std::map<std::string, std::string> shortIds_;            // first eight digits of the UUID → id: tap, netns
    std::map<MacAddress, std::string> macs_;
    std::map<Ipv4Address, std::string> addresses_;
    std::map<PortKey, std::string> ports_;
    NumberPool hosts_;
    NumberPool tcpPorts_, udpPorts_;
    NumberPool uids_;
};

}  // namespace mergen::engine
