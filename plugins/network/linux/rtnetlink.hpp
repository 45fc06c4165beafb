#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <mergen/sdk/error.hpp>
#include <mergen/sdk/types.hpp>

#include "netlink.hpp"

namespace mergen::network {

/// A network interface as the kernel describes it.
struct Link {
    int index = 0;
    std::string name;
    std::string alias;  ///< empty: it has none
    std::string kind;   ///< "veth", "tun", ...; empty for physical ones and for lo
    std::optional<MacAddress> mac;
    unsigned mtu = 0;
    bool up = false;       ///< by the administrator (IFF_UP), with or without carrier
    bool carrier = false;  ///< of a tap: some process has it open
};

/// An IPv4 address on an interface.
struct LinkAddress {
    int link = 0;
    Ipv4Address address;
    unsigned prefix = 0;
};

/// An IPv4 route.
struct Route {
    Ipv4Address base;
    unsigned prefix = 0;
    int link = 0;  ///< 0: it names none
    bool operator==(const Route&) const = default;
};

/// One end of a veth pair that is to be made.
struct VethEnd {
    std::string name;
    MacAddress mac;
};

/// Talks to the kernel about links, addresses, neighbours and routes (rtnetlink(7)) over libnl. It belongs for good to
/// the network namespace of the thread that made it, whichever thread uses it later.
///
/// Errors: every method throws Error that names operation, object and the kernel's reason, with errno kept.
/// Threads: one at a time.
class Rtnetlink {
public:
    Rtnetlink();

    [[nodiscard]] std::optional<Link> findLink(const std::string& name);
    [[nodiscard]] std::vector<Link> links();
    [[nodiscard]] std::vector<LinkAddress> addresses();
    /// Routes of the main table.
    [[nodiscard]] std::vector<Route> routes();

    /// Makes a veth pair: `here` in this namespace, `there` in the namespace that the descriptor stands for. Throws
    /// AlreadyExists if either name is taken.
    void makeVethPair(const VethEnd& here, const VethEnd& there, int thereNamespace, unsigned mtu);
    /// Removes the link and waits until it is gone; false if it was not there.
    bool removeLink(int link);

    void setAlias(int link, const std::string& alias);
    void setMac(int link, const MacAddress& mac);
    void setMtu(int link, unsigned mtu);
    void setUp(int link);

    /// Each of these does nothing if it is so already.
    void setAddress(int link, Ipv4Address address, unsigned prefix);
    /// A neighbour that is known for good and never asked for by ARP.
    void setNeighbour(int link, Ipv4Address address, const MacAddress& mac);
    /// A route through a next hop that is on the link although no address of ours shares a network with it; without
    /// one, what the route leads to is on the link itself. Throws AlreadyExists if there is a route to the same network
    /// over another link.
    void setRoute(const Route& route, std::optional<Ipv4Address> via);

    /// The route that a packet of this host to `address` would take; nothing if there is none or it leads nowhere.
    [[nodiscard]] std::optional<Route> routeTo(Ipv4Address address);

private:
    /// Asks for a whole table; again if it changed while we read.
    void dump(int type, std::string_view what, const std::function<void()>& restart, const NetlinkSocket::Each& each);

    NetlinkSocket socket_;
};

}  // namespace mergen::network
