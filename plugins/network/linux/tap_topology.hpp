#pragma once

#include "sysctl.hpp"
#include "topology.hpp"

namespace mergen::network {

/// The VM's taps in the host's own namespace:
///
///     guest ── tap-<id8> [ host ]
///     guest ── tap1-<id8> [ host ]
///
/// The host is the guest's next hop itself: every tap has the gateway's address, alone, and a route to its one
/// address of the guest's. The guest's MAC address is a fixed neighbour, so that a guest cannot become another by ARP;
/// and each tap is a wire of its own. A quarter of the cost of a namespace, but a VMM that is broken out of stands in
/// the host's network.
///
/// The tap gets its alias before it is made to stay: a server killed on the way leaves a tagged tap or none.
class TapTopology final : public Topology {
public:
    explicit TapTopology(unsigned mtu) : mtu_(mtu) {}

    [[nodiscard]] std::string guestLink(const OwnerTag&, const Card& card) const override { return card.tap.str(); }
    [[nodiscard]] bool present(const NetworkSpec& spec) const override;
    void checkNames(const NetworkSpec& spec) const override;
    /// Does nothing: the VMM is in the host's namespace as it is.
    NetworkAttachment reserve(const NetworkSpec& spec) const override;
    NetworkAttachment make(const NetworkSpec& spec) const override;
    [[nodiscard]] std::optional<NetworkAttachment> whole(const NetworkSpec& spec) const override;

private:
    void makeCard(const NetworkSpec& spec, const Card& card) const;

    const unsigned mtu_;
    const Sysctls sysctls_;  ///< of the host
};

}  // namespace mergen::network
