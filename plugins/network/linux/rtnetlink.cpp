#include "rtnetlink.hpp"

#include <algorithm>
#include <arpa/inet.h>
#include <cerrno>
#include <linux/if.h>
#include <linux/if_link.h>
#include <linux/neighbour.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>

#include <mergen/sdk/error.hpp>

namespace mergen::network {

namespace {

ifinfomsg linkHeader(int index) {
    ifinfomsg header{};
    header.ifi_family = AF_UNSPEC;
    header.ifi_index = index;
    return header;
}

std::optional<MacAddress> macOf(const nlattr* attribute) {
    if (attribute == nullptr || nla_len(attribute) != 6) return std::nullopt;
    const auto* const byte = static_cast<const std::uint8_t*>(nla_data(attribute));
    constexpr char digits[] = "0123456789abcdef";
    std::string text;
    for (int i = 0; i < 6; ++i) {
        if (i != 0) text += ':';
        text += digits[byte[i] >> 4U];
        text += digits[byte[i] & 0xfU];
    }
    return MacAddress::parse(text);
}

Link linkOf(const nlmsghdr& message) {
    const auto attributes = attributesOf<IFLA_MAX + 1>(message, sizeof(ifinfomsg));
    const auto* const header = static_cast<const ifinfomsg*>(nlmsg_data(&message));
    Link link;
    link.index = header->ifi_index;
    link.up = (header->ifi_flags & IFF_UP) != 0;
    link.carrier = valueOf<std::uint8_t>(attributes[IFLA_CARRIER], 0) != 0;
    link.mtu = valueOf<unsigned>(attributes[IFLA_MTU], 0);
    link.name = textOf(attributes[IFLA_IFNAME]);
    link.alias = textOf(attributes[IFLA_IFALIAS]);
    link.mac = macOf(attributes[IFLA_ADDRESS]);
    link.kind = textOf(attributesWithin<IFLA_INFO_KIND + 1>(attributes[IFLA_LINKINFO])[IFLA_INFO_KIND]);
    return link;
}

Route routeOf(const nlmsghdr& message) {
    const auto attributes = attributesOf<RTA_MAX + 1>(message, sizeof(rtmsg));
    Route route;
    route.base = addressOf(attributes[RTA_DST]);
    route.prefix = static_cast<const rtmsg*>(nlmsg_data(&message))->rtm_dst_len;
    route.link = valueOf<int>(attributes[RTA_OIF], 0);
    return route;
}

std::string linkText(int index) {
    return "link " + std::to_string(index);
}

}  // namespace

Rtnetlink::Rtnetlink() : socket_(NETLINK_ROUTE, "rtnetlink") {}

void Rtnetlink::dump(int type, std::string_view what, const std::function<void()>& restart,
                     const NetlinkSocket::Each& each) {
    // A host on which links come and go all the time may interrupt every reading: the last one then has to do.
    constexpr int attempts = 10;
    for (int attempt = 0; attempt < attempts; ++attempt) {
        restart();
        NetlinkMessage message(type, NLM_F_DUMP);
        if (type == RTM_GETLINK) {
            message.header(linkHeader(0));
        } else if (type == RTM_GETADDR) {
            ifaddrmsg header{};
            header.ifa_family = AF_INET;
            message.header(header);
        } else {
            rtmsg header{};
            header.rtm_family = AF_INET;
            message.header(header);
        }
        socket_.require(message, what, each);
        if (!socket_.interrupted()) return;
    }
}

std::optional<Link> Rtnetlink::findLink(const std::string& name) {
    NetlinkMessage message(RTM_GETLINK, 0);
    message.header(linkHeader(0)).put(IFLA_IFNAME, name);
    std::optional<Link> found;
    const int errnum = socket_.exchange(message, [&](const nlmsghdr& answer) { found = linkOf(answer); });
    if (errnum != 0 && errnum != ENODEV) throw socket_.failure(errnum, "look for the link '" + name + "'");
    return found;
}

std::vector<Link> Rtnetlink::links() {
    std::vector<Link> found;
    dump(
        RTM_GETLINK, "list the links", [&] { found.clear(); },
        [&](const nlmsghdr& answer) { found.push_back(linkOf(answer)); });
    return found;
}

std::vector<LinkAddress> Rtnetlink::addresses() {
    std::vector<LinkAddress> found;
    dump(
        RTM_GETADDR, "list the addresses", [&] { found.clear(); },
        [&](const nlmsghdr& answer) {
            const auto attributes = attributesOf<IFA_MAX + 1>(answer, sizeof(ifaddrmsg));
            const auto* const header = static_cast<const ifaddrmsg*>(nlmsg_data(&answer));
            found.push_back(
                {static_cast<int>(header->ifa_index), addressOf(attributes[IFA_LOCAL]), header->ifa_prefixlen});
        });
    return found;
}

std::vector<Route> Rtnetlink::routes() {
    std::vector<Route> found;
    dump(
        RTM_GETROUTE, "list the routes", [&] { found.clear(); },
        [&](const nlmsghdr& answer) {
            if (static_cast<const rtmsg*>(nlmsg_data(&answer))->rtm_table == RT_TABLE_MAIN) {
                found.push_back(routeOf(answer));
            }
        });
    return found;
}

void Rtnetlink::makeVethPair(const VethEnd& here, const VethEnd& there, int thereNamespace, unsigned mtu) {
    NetlinkMessage message(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL);
    message.header(linkHeader(0)).put(IFLA_IFNAME, here.name).put(IFLA_ADDRESS, here.mac).put(IFLA_MTU, mtu);
    message.nest(IFLA_LINKINFO, [&] {
        message.put(IFLA_INFO_KIND, std::string("veth"));
        message.nest(IFLA_INFO_DATA, [&] {
            message.nest(VETH_INFO_PEER, [&] {
                message.header(linkHeader(0))
                    .put(IFLA_IFNAME, there.name)
                    .put(IFLA_ADDRESS, there.mac)
                    .put(IFLA_MTU, mtu)
                    .put(IFLA_NET_NS_FD, thereNamespace);
            });
        });
    });
    socket_.require(message, "make the veth pair '" + here.name + "', '" + there.name + "'");
}

bool Rtnetlink::removeLink(int link) {
    NetlinkMessage message(RTM_DELLINK, 0);
    message.header(linkHeader(link));
    const int errnum = socket_.exchange(message);
    if (errnum == ENODEV) return false;
    if (errnum != 0) throw socket_.failure(errnum, "remove " + linkText(link));
    return true;
}

void Rtnetlink::setAlias(int link, const std::string& alias) {
    NetlinkMessage message(RTM_SETLINK, 0);
    // Without the NUL: the kernel keeps the bytes as they come.
    message.header(linkHeader(link)).put(IFLA_IFALIAS, alias.data(), alias.size());
    socket_.require(message, "set the alias of " + linkText(link));
}

void Rtnetlink::setMac(int link, const MacAddress& mac) {
    NetlinkMessage message(RTM_SETLINK, 0);
    message.header(linkHeader(link)).put(IFLA_ADDRESS, mac);
    socket_.require(message, "set the address of " + linkText(link));
}

void Rtnetlink::setMtu(int link, unsigned mtu) {
    NetlinkMessage message(RTM_SETLINK, 0);
    message.header(linkHeader(link)).put(IFLA_MTU, mtu);
    socket_.require(message, "set the MTU of " + linkText(link) + " to " + std::to_string(mtu));
}

void Rtnetlink::setUp(int link) {
    ifinfomsg header = linkHeader(link);
    header.ifi_flags = IFF_UP;
    header.ifi_change = IFF_UP;
    NetlinkMessage message(RTM_NEWLINK, 0);
    message.header(header);
    socket_.require(message, "set up " + linkText(link));
}

void Rtnetlink::setAddress(int link, Ipv4Address address, unsigned prefix) {
    ifaddrmsg header{};
    header.ifa_family = AF_INET;
    header.ifa_prefixlen = static_cast<unsigned char>(prefix);
    header.ifa_scope = RT_SCOPE_UNIVERSE;  // masquerade takes no address of a narrower scope
    header.ifa_index = static_cast<unsigned>(link);
    NetlinkMessage message(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE);
    message.header(header).put(IFA_LOCAL, address).put(IFA_ADDRESS, address);
    socket_.require(message, "give " + linkText(link) + " the address " + address.str());
}

void Rtnetlink::setNeighbour(int link, Ipv4Address address, const MacAddress& mac) {
    ndmsg header{};
    header.ndm_family = AF_INET;
    header.ndm_ifindex = link;
    header.ndm_state = NUD_PERMANENT;
    NetlinkMessage message(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE);
    message.header(header).put(NDA_DST, address).put(NDA_LLADDR, mac);
    socket_.require(message, "set the neighbour " + address.str() + " of " + linkText(link));
}

void Rtnetlink::setRoute(const Route& route, std::optional<Ipv4Address> via) {
    rtmsg header{};
    header.rtm_family = AF_INET;
    header.rtm_dst_len = static_cast<unsigned char>(route.prefix);
    header.rtm_table = RT_TABLE_MAIN;
    header.rtm_protocol = RTPROT_STATIC;
    header.rtm_scope = via ? RT_SCOPE_UNIVERSE : RT_SCOPE_LINK;
    header.rtm_type = RTN_UNICAST;
    if (via) header.rtm_flags = RTNH_F_ONLINK;
    // Not NLM_F_REPLACE, which would take over somebody else's route.
    NetlinkMessage message(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL);
    message.header(header);
    if (route.prefix != 0) message.put(RTA_DST, route.base);
    if (via) message.put(RTA_GATEWAY, *via);
    message.put(RTA_OIF, route.link);
    const int errnum = socket_.exchange(message);
    if (errnum == 0) return;
    const Error error =
        socket_.failure(errnum, "set the route to " + route.base.str() + "/" + std::to_string(route.prefix));
    if (errnum == EEXIST && std::ranges::count(routes(), route) != 0) return;
    throw error;
}

std::optional<Route> Rtnetlink::routeTo(Ipv4Address address) {
    rtmsg header{};
    header.rtm_family = AF_INET;
    header.rtm_dst_len = 32;
    header.rtm_flags = RTM_F_FIB_MATCH;  // the route itself, not what it says of this one address
    NetlinkMessage message(RTM_GETROUTE, 0);
    message.header(header).put(RTA_DST, address);
    std::optional<Route> found;
    const int errnum = socket_.exchange(message, [&](const nlmsghdr& answer) { found = routeOf(answer); });
    // No route, or one of type unreachable, prohibit or blackhole: these are its answers.
    if (errnum == ENETUNREACH || errnum == EHOSTUNREACH || errnum == EACCES || errnum == EINVAL) return std::nullopt;
    if (errnum != 0) throw socket_.failure(errnum, "look for a route to " + address.str());
    return found;
}

}  // namespace mergen::network
