#include "rtnetlink.hpp"

#include <algorithm>
#include <arpa/inet.h>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <linux/if.h>
#include <linux/if_link.h>
#include <linux/neighbour.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <new>
#include <sys/socket.h>

#include <netlink/attr.h>
#include <netlink/errno.h>
#include <netlink/msg.h>
#include <netlink/netlink.h>
#include <netlink/socket.h>

#include <mergen/sdk/error.hpp>

namespace mergen::network {

namespace {

/// One request. Attributes can only fail to fit, as no input is longer than a few hundred bytes that is a lack of
/// memory.
class Message {
public:
    Message(int type, int flags) : message_(nlmsg_alloc_simple(type, flags)) {
        if (message_ == nullptr) throw std::bad_alloc();
    }
    Message(const Message&) = delete;
    Message& operator=(const Message&) = delete;
    ~Message() { nlmsg_free(message_); }

    template <typename Header>
    Message& header(Header value) {
        return check(nlmsg_append(message_, &value, sizeof(value), NLMSG_ALIGNTO));
    }
    Message& put(int attribute, const void* data, std::size_t size) {
        return check(nla_put(message_, attribute, static_cast<int>(size), data));
    }
    Message& put(int attribute, const std::string& text) { return put(attribute, text.c_str(), text.size() + 1); }
    Message& put(int attribute, Ipv4Address address) {
        const std::uint32_t wire = htonl(address.value());
        return put(attribute, &wire, sizeof(wire));
    }
    Message& put(int attribute, const MacAddress& mac) {
        return put(attribute, mac.bytes().data(), mac.bytes().size());
    }
    Message& put(int attribute, int value) { return put(attribute, &value, sizeof(value)); }

    /// Runs `fill` inside a nested attribute.
    template <typename Fill>
    Message& nest(int attribute, Fill fill) {
        nlattr* const start = nla_nest_start(message_, attribute);
        if (start == nullptr) throw std::bad_alloc();
        fill();
        nla_nest_end(message_, start);
        return *this;
    }
    [[nodiscard]] nl_msg* get() const noexcept { return message_; }

private:
    Message& check(int result) {
        if (result < 0) throw std::bad_alloc();
        return *this;
    }
    nl_msg* message_;
};

ifinfomsg linkHeader(int index) {
    ifinfomsg header{};
    header.ifi_family = AF_UNSPEC;
    header.ifi_index = index;
    return header;
}

/// The attributes behind the family header of an answer, by number; absent ones are null.
template <std::size_t N>
std::array<const nlattr*, N> attributesOf(const nlmsghdr& message, std::size_t headerSize) {
    std::array<const nlattr*, N> found{};
    const int size = static_cast<int>(headerSize);
    int left = nlmsg_attrlen(&message, size);
    for (const nlattr* at = nlmsg_attrdata(&message, size); nla_ok(at, left) != 0; at = nla_next(at, &left)) {
        const auto type = static_cast<std::size_t>(nla_type(at));
        if (type < N) found[type] = at;
    }
    return found;
}

std::string textOf(const nlattr* attribute) {
    if (attribute == nullptr) return {};
    const char* const data = static_cast<const char*>(nla_data(attribute));
    return {data, ::strnlen(data, static_cast<std::size_t>(nla_len(attribute)))};
}

template <typename Value>
Value valueOf(const nlattr* attribute, Value otherwise) {
    if (attribute != nullptr && nla_len(attribute) >= static_cast<int>(sizeof(Value))) {
        std::memcpy(&otherwise, nla_data(attribute), sizeof(Value));
    }
    return otherwise;
}

Ipv4Address addressOf(const nlattr* attribute) {
    return Ipv4Address(ntohl(valueOf<std::uint32_t>(attribute, 0)));
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
    link.name = textOf(attributes[IFLA_IFNAME]);
    link.alias = textOf(attributes[IFLA_IFALIAS]);
    link.mac = macOf(attributes[IFLA_ADDRESS]);
    if (const nlattr* info = attributes[IFLA_LINKINFO]) {
        int left = nla_len(info);
        for (const auto* at = static_cast<const nlattr*>(nla_data(info)); nla_ok(at, left) != 0;
             at = nla_next(at, &left)) {
            if (nla_type(at) == IFLA_INFO_KIND) link.kind = textOf(at);
        }
    }
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

void Rtnetlink::SocketDeleter::operator()(nl_sock* socket) const noexcept {
    nl_socket_free(socket);
}

Rtnetlink::Rtnetlink() : socket_(nl_socket_alloc()) {
    if (!socket_) throw std::bad_alloc();
    if (const int result = nl_connect(socket_.get(), NETLINK_ROUTE); result < 0) {
        throw Error(ErrorKind::Unavailable, std::string("cannot open an rtnetlink socket: ") + nl_geterror(result));
    }
    // The kernel then says in words what it does not like. An older one does not know the option: no harm.
    const int on = 1;
    static_cast<void>(::setsockopt(nl_socket_get_fd(socket_.get()), SOL_NETLINK, NETLINK_EXT_ACK, &on, sizeof(on)));
}

int Rtnetlink::exchange(nl_msg* message, const Each& each) {
    reason_.clear();
    interrupted_ = false;
    if (const int sent = nl_send_auto(socket_.get(), message); sent < 0) {
        throw Error(ErrorKind::Unavailable, std::string("cannot send an rtnetlink request: ") + nl_geterror(sent));
    }
    const std::uint32_t sequence = nlmsg_hdr(message)->nlmsg_seq;
    for (;;) {
        sockaddr_nl peer{};
        unsigned char* raw = nullptr;
        const int got = nl_recv(socket_.get(), &peer, &raw, nullptr);
        const std::unique_ptr<unsigned char, decltype(&std::free)> buffer(raw, &std::free);
        if (got <= 0) {
            throw Error(ErrorKind::Unavailable, std::string("cannot read an rtnetlink answer: ") + nl_geterror(got));
        }
        int left = got;
        for (auto* at = reinterpret_cast<nlmsghdr*>(buffer.get()); nlmsg_ok(at, left) != 0;
             at = nlmsg_next(at, &left)) {
            if (at->nlmsg_seq != sequence || peer.nl_pid != 0) continue;
            if ((at->nlmsg_flags & NLM_F_DUMP_INTR) != 0) interrupted_ = true;
            if (at->nlmsg_type == NLMSG_DONE) return 0;
            if (at->nlmsg_type != NLMSG_ERROR) {
                if (each) each(*at);
                continue;
            }
            const auto* const error = static_cast<const nlmsgerr*>(nlmsg_data(at));
            if (error->error != 0 && (at->nlmsg_flags & NLM_F_ACK_TLVS) != 0) {
                // The attributes follow the echoed request, or its header alone if the kernel capped it.
                const bool capped = (at->nlmsg_flags & NLM_F_CAPPED) != 0;
                const std::size_t echoed = capped ? 0 : error->msg.nlmsg_len - sizeof(nlmsghdr);
                reason_ =
                    textOf(attributesOf<NLMSGERR_ATTR_MAX + 1>(*at, sizeof(nlmsgerr) + echoed)[NLMSGERR_ATTR_MSG]);
            }
            return -error->error;
        }
    }
}

Error Rtnetlink::failure(int errnum, std::string_view what) const {
    std::string text = "cannot " + std::string(what);
    if (!reason_.empty()) text += " (" + reason_ + ")";
    return Error::fromErrno(errnum, text);
}

void Rtnetlink::require(nl_msg* message, std::string_view what, const Each& each) {
    if (const int errnum = exchange(message, each); errnum != 0) throw failure(errnum, what);
}

void Rtnetlink::dump(int type, std::string_view what, const std::function<void()>& restart, const Each& each) {
    // A host on which links come and go all the time may interrupt every reading: the last one then has to do.
    constexpr int attempts = 10;
    for (int attempt = 0; attempt < attempts; ++attempt) {
        restart();
        Message message(type, NLM_F_DUMP);
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
        require(message.get(), what, each);
        if (!interrupted_) return;
    }
}

std::optional<Link> Rtnetlink::findLink(const std::string& name) {
    Message message(RTM_GETLINK, 0);
    message.header(linkHeader(0)).put(IFLA_IFNAME, name);
    std::optional<Link> found;
    const int errnum = exchange(message.get(), [&](const nlmsghdr& answer) { found = linkOf(answer); });
    if (errnum != 0 && errnum != ENODEV) throw failure(errnum, "look for the link '" + name + "'");
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

void Rtnetlink::makeVethPair(const VethEnd& here, const VethEnd& there, int thereNamespace) {
    Message message(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL);
    message.header(linkHeader(0)).put(IFLA_IFNAME, here.name).put(IFLA_ADDRESS, here.mac);
    message.nest(IFLA_LINKINFO, [&] {
        message.put(IFLA_INFO_KIND, std::string("veth"));
        message.nest(IFLA_INFO_DATA, [&] {
            message.nest(VETH_INFO_PEER, [&] {
                message.header(linkHeader(0))
                    .put(IFLA_IFNAME, there.name)
                    .put(IFLA_ADDRESS, there.mac)
                    .put(IFLA_NET_NS_FD, thereNamespace);
            });
        });
    });
    require(message.get(), "make the veth pair '" + here.name + "', '" + there.name + "'");
}

bool Rtnetlink::removeLink(int link) {
    Message message(RTM_DELLINK, 0);
    message.header(linkHeader(link));
    const int errnum = exchange(message.get());
    if (errnum == ENODEV) return false;
    if (errnum != 0) throw failure(errnum, "remove " + linkText(link));
    return true;
}

void Rtnetlink::setAlias(int link, const std::string& alias) {
    Message message(RTM_SETLINK, 0);
    // Without the NUL: the kernel keeps the bytes as they come.
    message.header(linkHeader(link)).put(IFLA_IFALIAS, alias.data(), alias.size());
    require(message.get(), "set the alias of " + linkText(link));
}

void Rtnetlink::setUp(int link) {
    ifinfomsg header = linkHeader(link);
    header.ifi_flags = IFF_UP;
    header.ifi_change = IFF_UP;
    Message message(RTM_NEWLINK, 0);
    message.header(header);
    require(message.get(), "set up " + linkText(link));
}

void Rtnetlink::setAddress(int link, Ipv4Address address, unsigned prefix) {
    ifaddrmsg header{};
    header.ifa_family = AF_INET;
    header.ifa_prefixlen = static_cast<unsigned char>(prefix);
    header.ifa_scope = RT_SCOPE_UNIVERSE;  // masquerade takes no address of a narrower scope
    header.ifa_index = static_cast<unsigned>(link);
    Message message(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE);
    message.header(header).put(IFA_LOCAL, address).put(IFA_ADDRESS, address);
    require(message.get(), "give " + linkText(link) + " the address " + address.str());
}

void Rtnetlink::setNeighbour(int link, Ipv4Address address, const MacAddress& mac) {
    ndmsg header{};
    header.ndm_family = AF_INET;
    header.ndm_ifindex = link;
    header.ndm_state = NUD_PERMANENT;
    Message message(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE);
    message.header(header).put(NDA_DST, address).put(NDA_LLADDR, mac);
    require(message.get(), "set the neighbour " + address.str() + " of " + linkText(link));
}

void Rtnetlink::setRoute(const Route& route, Ipv4Address via) {
    rtmsg header{};
    header.rtm_family = AF_INET;
    header.rtm_dst_len = static_cast<unsigned char>(route.prefix);
    header.rtm_table = RT_TABLE_MAIN;
    header.rtm_protocol = RTPROT_STATIC;
    header.rtm_scope = RT_SCOPE_UNIVERSE;
    header.rtm_type = RTN_UNICAST;
    header.rtm_flags = RTNH_F_ONLINK;
    // Not NLM_F_REPLACE, which would take over somebody else's route.
    Message message(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL);
    message.header(header);
    if (route.prefix != 0) message.put(RTA_DST, route.base);
    message.put(RTA_GATEWAY, via).put(RTA_OIF, route.link);
    const int errnum = exchange(message.get());
    if (errnum == 0) return;
    const Error error = failure(errnum, "set the route to " + route.base.str() + "/" + std::to_string(route.prefix));
    if (errnum == EEXIST && std::ranges::count(routes(), route) != 0) return;
    throw error;
}

std::optional<Route> Rtnetlink::routeTo(Ipv4Address address) {
    rtmsg header{};
    header.rtm_family = AF_INET;
    header.rtm_dst_len = 32;
    header.rtm_flags = RTM_F_FIB_MATCH;  // the route itself, not what it says of this one address
    Message message(RTM_GETROUTE, 0);
    message.header(header).put(RTA_DST, address);
    std::optional<Route> found;
    const int errnum = exchange(message.get(), [&](const nlmsghdr& answer) { found = routeOf(answer); });
    // No route, or one of type unreachable, prohibit or blackhole: these are its answers.
    if (errnum == ENETUNREACH || errnum == EHOSTUNREACH || errnum == EACCES || errnum == EINVAL) return std::nullopt;
    if (errnum != 0) throw failure(errnum, "look for a route to " + address.str());
    return found;
}

}  // namespace mergen::network
