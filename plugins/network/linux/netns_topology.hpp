#pragma once

#include "fresh_namespaces.hpp"
#include "named_namespaces.hpp"
#include "rtnetlink.hpp"
#include "sysctl.hpp"
#include "topology.hpp"

namespace mergen::network {

/// A network namespace per VM with the VM's taps in it, and a veth pair from there to the host:
///
///     guest ── tap-<id8>  [ namespace mergen-<id8> ] uplink ══ mg-<id8> [ host ]
///     guest ── tap1-<id8> [                        ]
///
/// The namespace routes between taps and uplink. Every tap has the gateway's address: the first with the guests'
/// network, a further one alone, with a route to its one address of the guest's. All come to the host by one link, so
/// where there are several the namespace itself keeps each to its own address (rp_filter, RFC 3704). Every veth pair
/// uses the same two transit addresses with fixed neighbours: each is a wire of its own, and nothing is asked for by
/// ARP, so that neither rp_filter nor the number of VMs matters.
///
/// A namespace gets its tag before its name: a server killed on the way leaves a namespace, or a file in its place,
/// that is known for its VM's, with as much of the wire in it as there was.
class NetnsTopology final : public Topology {
public:
    /// `names` and `fresh` are borrowed. `transitHost`, `transitInner`: addresses of the ends of every veth pair.
    NetnsTopology(const NamedNamespaces& names, FreshNamespaces& fresh, Ipv4Address transitHost,
                  Ipv4Address transitInner, unsigned mtu)
        : names_(names), fresh_(fresh), transitHost_(transitHost), transitInner_(transitInner), mtu_(mtu) {}

    /// Does what is the same for all wires to the namespace of the calling thread, in which `inside` is. make() does
    /// it too.
    static void furnish(Rtnetlink& inside);

    [[nodiscard]] static std::string hostLink(const OwnerTag& owner) { return "mg-" + owner.vm.short8(); }
    /// Whether the link under the name of the owner's host end is its: by its alias, or, if a server was killed before
    /// it set that, by its address.
    [[nodiscard]] static bool owns(const OwnerTag& owner, const Link& link);

    [[nodiscard]] std::string guestLink(const OwnerTag& owner, const Card&) const override { return hostLink(owner); }
    [[nodiscard]] bool present(const NetworkSpec& spec) const override;
    void checkNames(const NetworkSpec& spec) const override;
    /// The namespace, with its name and tag and no link but its own loopback.
    NetworkAttachment reserve(const NetworkSpec& spec) const override;
    NetworkAttachment make(const NetworkSpec& spec) const override;
    [[nodiscard]] std::optional<NetworkAttachment> whole(const NetworkSpec& spec) const override;

private:
    [[nodiscard]] NetNamespace findOrMake(const NetworkSpec& spec) const;
    void wireInside(const NetworkSpec& spec, const NetNamespace& space, Rtnetlink& host) const;
    void wireOutside(const NetworkSpec& spec, Rtnetlink& host) const;
    /// Makes what is missing of a further card, in the namespace.
    void wireFurther(const NetworkSpec& spec, const Card& card, Rtnetlink& inside, const Sysctls& sysctls) const;
    [[nodiscard]] Link findOrMakeTap(const NetworkSpec& spec, const IfName& name, Rtnetlink& inside) const;
    /// Lets the namespace take nothing by the VM's first tap that a route of it does not lead back to.
    static void checkSources(const NetworkSpec& spec, const Sysctls& inside);
    [[nodiscard]] static bool wholeFurther(const NetworkSpec& spec, Rtnetlink& inside,
                                           const std::vector<LinkAddress>& addresses, const std::vector<Route>& routes);
    [[nodiscard]] bool wholeInside(const NetworkSpec& spec, const NetNamespace& space) const;

    const NamedNamespaces& names_;
    FreshNamespaces& fresh_;
    const Ipv4Address transitHost_, transitInner_;
    const unsigned mtu_;
    const Sysctls sysctls_;  ///< of the host
};

}  // namespace mergen::network
