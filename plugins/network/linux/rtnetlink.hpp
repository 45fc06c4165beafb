#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <mergen/sdk/error.hpp>
#include <mergen/sdk/types.hpp>

struct nl_msg;
struct nl_sock;
struct nlmsghdr;

namespace mergen::network {

/// A network interface as the kernel describes it.
struct Link {
    int index = 0;
    std::string name;
    std::string alias;  ///< empty: it has none
    std::string kind;   ///< "veth", "tun", ...; empty for physical ones and for lo
    std::optional<MacAddress> mac;
    bool up = false;  ///< by the administrator (IFF_UP), with or without carrier
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
    void makeVethPair(const VethEnd& here, const VethEnd& there, int thereNamespace);
    /// Removes the link and waits until it is gone; false if it was not there.
    bool removeLink(int link);

    void setAlias(int link, const std::string& alias);
    void setUp(int link);

    /// Each of these does nothing if it is so already.
    void setAddress(int link, Ipv4Address address, unsigned prefix);
    /// A neighbour that is known for good and never asked for by ARP.
    void setNeighbour(int link, Ipv4Address address, const MacAddress& mac);
    /// A route through a next hop that is on the link although no address of ours shares a network with it. Throws
    /// AlreadyExists if there is a route to the same network over another link.
    void setRoute(const Route& route, Ipv4Address via);

    /// The route that a packet of this host to `address` would take; nothing if there is none or it leads nowhere.
    [[nodiscard]] std::optional<Route> routeTo(Ipv4Address address);

private:
    using Each = std::function<void(const nlmsghdr&)>;
    /// Sends and reads the answer to its end; gives errno, 0 for success.
    int exchange(nl_msg* message, const Each& each = {});
    /// The same, throwing "cannot `what`: ..." on failure.
    void require(nl_msg* message, std::string_view what, const Each& each = {});
    [[nodiscard]] Error failure(int errnum, std::string_view what) const;
    /// Asks for a whole table; again if it changed while we read.
    void dump(int type, std::string_view what, const std::function<void()>& restart, const Each& each);

    struct SocketDeleter {
        void operator()(nl_sock* socket) const noexcept;
    };
    std::unique_ptr<nl_sock, SocketDeleter> socket_;
    std::string reason_;  ///< the kernel's own words for the last failure (extended ack), often empty
    bool interrupted_ = false;
};

}  // namespace mergen::network
