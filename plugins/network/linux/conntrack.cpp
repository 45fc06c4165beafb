#include "conntrack.hpp"

#include <algorithm>
#include <arpa/inet.h>
#include <cerrno>
#include <cstdlib>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <linux/netlink.h>
#include <map>
#include <netinet/in.h>
#include <set>
#include <sys/socket.h>

#include "rtnetlink.hpp"
#include "sysctl.hpp"

namespace mergen::network {

namespace {

// Parts of a tuple that the kernel is to compare, in CTA_FILTER_ORIG_FLAGS and CTA_FILTER_REPLY_FLAGS (the kernel's
// net/netfilter/nf_internals.h, since 5.8; an older one ignores the filter and gives all).
constexpr std::uint32_t compareSource = 1U << 0U;
constexpr std::uint32_t compareProtocol = 1U << 3U;

constexpr int message(int type) {
    return nfMessage(NFNL_SUBSYS_CTNETLINK, type);
}

/// How many flows there are in this namespace; nothing if the kernel does not tell.
std::optional<unsigned long> flowCount() {
    const auto count = readSysctl("netfilter/nf_conntrack_count");
    if (!count) return std::nullopt;
    return std::strtoul(count->c_str(), nullptr, 10);
}

/// The UDP ports that lead to a guest: the host's → the guest's.
struct UdpPorts {
    Ipv4Address guest;
    std::map<std::uint16_t, std::uint16_t> ports;
};

UdpPorts udpPortsOf(Ipv4Address guest, const std::vector<PortBinding>& published) {
    UdpPorts udp{guest, {}};
    for (const PortBinding& port : published) {
        if (port.protocol == Protocol::Udp) udp.ports.emplace(port.host, port.guest);
    }
    return udp;
}

}  // namespace

Conntrack::Conntrack() : socket_(NETLINK_NETFILTER, "the kernel's connection tracking") {}

void Conntrack::requireSupport() {
    NetlinkMessage question(message(IPCTNL_MSG_CT_GET_STATS), NLM_F_DUMP);
    question.header(nfHeader(AF_INET));
    if (const int errnum = socket_.exchange(question); errnum != 0) {
        throw Error(ErrorKind::NotSupported,
                    std::string(socket_.failure(errnum, "look at the flows of this host").what()) +
                        ": this network backend needs the kernel module 'nf_conntrack_netlink'");
    }
}

Conntrack::Tuple Conntrack::tupleOf(const nlattr* attribute) {
    const auto parts = attributesWithin<CTA_TUPLE_MAX + 1>(attribute);
    const auto addresses = attributesWithin<CTA_IP_MAX + 1>(parts[CTA_TUPLE_IP]);
    const auto protocol = attributesWithin<CTA_PROTO_MAX + 1>(parts[CTA_TUPLE_PROTO]);
    return {.source = addressOf(addresses[CTA_IP_V4_SRC]),
            .destination = addressOf(addresses[CTA_IP_V4_DST]),
            .protocol = valueOf<std::uint8_t>(protocol[CTA_PROTO_NUM], 0),
            .sourcePort = ntohs(valueOf<std::uint16_t>(protocol[CTA_PROTO_SRC_PORT], 0)),
            .destinationPort = ntohs(valueOf<std::uint16_t>(protocol[CTA_PROTO_DST_PORT], 0))};
}

void Conntrack::forget(const Pattern& pattern, const std::function<bool(const Flow&)>& which) {
    NetlinkMessage question(message(IPCTNL_MSG_CT_GET), NLM_F_DUMP);
    question.header(nfHeader(AF_INET));
    std::uint32_t original = 0;
    std::uint32_t reply = 0;
    const auto source = [&](int tuple, Ipv4Address address) {
        question.nest(tuple, [&] { question.nest(CTA_TUPLE_IP, [&] { question.put(CTA_IP_V4_SRC, address); }); });
    };
    if (pattern.originalSource) {
        original = compareSource;
        source(CTA_TUPLE_ORIG, *pattern.originalSource);
    } else if (pattern.protocol) {
        original = compareProtocol;
        question.nest(CTA_TUPLE_ORIG,
                      [&] { question.nest(CTA_TUPLE_PROTO, [&] { question.put(CTA_PROTO_NUM, *pattern.protocol); }); });
    }
    if (pattern.replySource) {
        reply = compareSource;
        source(CTA_TUPLE_REPLY, *pattern.replySource);
    }
    if (original != 0 || reply != 0) {
        question.nest(CTA_FILTER, [&] {
            question.put(CTA_FILTER_ORIG_FLAGS, original);
            question.put(CTA_FILTER_REPLY_FLAGS, reply);
        });
    }

    std::vector<Flow> found;
    socket_.require(question, "list the flows of this host", [&](const nlmsghdr& answer) {
        const auto parts = attributesOf<CTA_MAX + 1>(answer, sizeof(nfgenmsg));
        Flow flow{tupleOf(parts[CTA_TUPLE_ORIG]), tupleOf(parts[CTA_TUPLE_REPLY]), {}};
        // An older kernel's answer is not filtered.
        const bool fits = (!pattern.originalSource || flow.original.source == *pattern.originalSource) &&
                          (!pattern.replySource || flow.reply.source == *pattern.replySource) &&
                          (!pattern.protocol || flow.original.protocol == *pattern.protocol);
        if (!fits || !which(flow)) return;
        // The id as well: a new flow of the same ends is not meant.
        for (const int part : {CTA_TUPLE_ORIG, CTA_ZONE, CTA_ID}) {
            const nlattr* const attribute = parts[static_cast<std::size_t>(part)];
            if (attribute == nullptr) continue;
            const auto* const bytes = reinterpret_cast<const char*>(attribute);
            flow.key.insert(flow.key.end(), bytes, bytes + nla_total_size(nla_len(attribute)));
        }
        found.push_back(std::move(flow));
    });
    for (const Flow& flow : found) {
        NetlinkMessage order(message(IPCTNL_MSG_CT_DELETE), 0);
        order.header(nfHeader(AF_INET));
        if (nlmsg_append(order.get(), const_cast<char*>(flow.key.data()), flow.key.size(), 0) < 0) {
            throw std::bad_alloc();
        }
        const int errnum = socket_.exchange(order);
        if (errnum != 0 && errnum != ENOENT) throw socket_.failure(errnum, "forget a flow of this host");
    }
}

void Conntrack::settle(const std::vector<Change>& changes) {
    const auto count = flowCount();
    if (count == 0UL) return;
    std::set<Ipv4Address> gone;
    std::vector<UdpPorts> changed;
    for (const Change& change : changes) {
        if (change.published) {
            changed.push_back(udpPortsOf(change.guest, *change.published));
        } else {
            gone.insert(change.guest);
        }
    }
    std::set<Ipv4Address> own;
    if (std::ranges::any_of(changed, [](const UdpPorts& one) { return !one.ports.empty(); })) {
        for (const LinkAddress& at : Rtnetlink().addresses()) own.insert(at.address);
    }
    const auto isTheHosts = [&](Ipv4Address address) {
        constexpr std::uint32_t loopback = 127;
        return own.contains(address) || address.value() >> 24U == loopback;
    };
    const auto isAstray = [&](const Flow& flow) {
        if (gone.contains(flow.original.source) || gone.contains(flow.reply.source)) return true;
        if (flow.original.protocol != IPPROTO_UDP) return false;
        const Ipv4Address asked = flow.original.destination;
        return std::ranges::any_of(changed, [&](const UdpPorts& one) {
            if (asked == one.guest) return false;  // without a published port
            const auto port = one.ports.find(flow.original.destinationPort);
            if (flow.reply.source == one.guest) return port == one.ports.end() || port->second != flow.reply.sourcePort;
            return port != one.ports.end() && isTheHosts(asked);
        });
    };
    // So many can be copied and looked at for what two walks cost; and never so many that it takes the memory of
    // others.
    constexpr unsigned long few = 4096;
    constexpr unsigned long many = 16 * few;
    if (!gone.empty() && count && *count <= std::min(few * gone.size(), many)) {
        forget({.originalSource = {}, .replySource = {}, .protocol = {}}, isAstray);
        return;
    }
    for (const Ipv4Address guest : gone) {
        forget({.originalSource = guest, .replySource = {}, .protocol = {}}, isAstray);
        forget({.originalSource = {}, .replySource = guest, .protocol = {}}, isAstray);
    }
    if (!changed.empty()) forget({.originalSource = {}, .replySource = {}, .protocol = IPPROTO_UDP}, isAstray);
}

SharedConntrack::SharedConntrack() : changes_([this](const auto& asked) { work(asked); }) {}

void SharedConntrack::requireSupport() {
    auto one = std::make_unique<Conntrack>();
    one->requireSupport();
    kept_ = std::move(one);
}

void SharedConntrack::work(const std::vector<Changes>& asked) {
    Changes changes;
    for (const Changes& some : asked) changes.insert(changes.end(), some.begin(), some.end());
    std::unique_ptr<Conntrack> one = kept_ ? std::move(kept_) : std::make_unique<Conntrack>();
    one->settle(changes);
    kept_ = std::move(one);  // not after a throw: an answer may be left in it
}

}  // namespace mergen::network
