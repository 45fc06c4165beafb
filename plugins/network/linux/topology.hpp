#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <mergen/sdk/network.hpp>

namespace mergen::network {

class Rtnetlink;
struct Link;

/// The MAC address of the host's end of a VM's wire, and of the other end of a veth pair. Made of the VM's id, as the
/// kernel takes an address with the request that makes a link, but an alias only later: it says whose a link is in
/// between. And udev (MACAddressPolicy=persistent) changes random addresses behind our back, but not given ones.
[[nodiscard]] MacAddress hostMac(const OwnerTag& owner);
[[nodiscard]] MacAddress innerMac(const OwnerTag& owner);

[[nodiscard]] Error foreignLink(const std::string& name);

/// A network card of a guest: the first one of a VM, which NetworkSpec has in members of its own, or a further one.
using Card = FurtherNic;

/// All network cards of a VM, in their order.
[[nodiscard]] std::vector<Card> cardsOf(const NetworkSpec& spec);

/// One shape in which a VM's wire stands on the host: where its tap is, and by which link of the host its packets come.
/// Filtering, published ports and taking away are the same for all (LinuxNetwork).
///
/// Threads: any method from any thread at once, for different VMs.
class Topology {
public:
    Topology() = default;
    Topology(const Topology&) = delete;
    Topology& operator=(const Topology&) = delete;
    virtual ~Topology() = default;

    /// The name of the host's link by which the packets of that card come in.
    [[nodiscard]] virtual std::string guestLink(const OwnerTag& owner, const Card& card) const = 0;
    /// Whether something of this VM's is on the host in this shape.
    [[nodiscard]] virtual bool present(const NetworkSpec& spec) const = 0;
    /// Throws AlreadyExists, naming it, if something that is not this VM's bears one of its names.
    virtual void checkNames(const NetworkSpec& spec) const = 0;
    /// Makes what a process must have to be started on the wire. Errors as make().
    virtual NetworkAttachment reserve(const NetworkSpec& spec) const = 0;
    /// Makes what is missing of the wire. On a throw, what is there bears the owner's tag. The filter knows the guest's
    /// link already.
    virtual NetworkAttachment make(const NetworkSpec& spec) const = 0;
    /// The attachment if nothing is missing.
    [[nodiscard]] virtual std::optional<NetworkAttachment> whole(const NetworkSpec& spec) const = 0;
};

}  // namespace mergen::network
