#include "netns_topology.hpp"

#include <algorithm>
#include <utility>

#include <mergen/sdk/failpoint.hpp>

#include "net_namespace.hpp"
#include "rtnetlink.hpp"
#include "sysctl.hpp"
#include "tap.hpp"

namespace mergen::network {

namespace {

constexpr const char* uplinkName = "uplink";
constexpr unsigned alone = 32;  // of an address that shares a network with nobody

Link need(Rtnetlink& inside, const std::string& name) {
    auto link = inside.findLink(name);
    if (!link) throw Error(ErrorKind::Conflict, "the link '" + name + "' was removed while it was set up");
    return *std::move(link);
}

/// Makes the calling thread's namespace route IPv4 between its links, and nothing but that. A new namespace takes IPv4
/// settings over from the host (net.core.devconf_inherit_init_net), of the moment it is made: those that routing and
/// ARP depend on are not left to chance. For one that routes already the kernel has next to nothing to do.
void makeRouter(const Sysctls& sysctls) {
    sysctls.write("ipv4/ip_forward", "1");
    // Of links to come. Where the host routed already, ip_forward has not changed, and carries nothing over to these.
    sysctls.write("ipv4/conf/default/forwarding", "1");
    for (const std::string links : {"all", "default"}) {
        for (const char* off : {"route_localnet", "proxy_arp", "arp_ignore"})
            sysctls.write("ipv4/conf/" + links + "/" + off, "0");
        sysctls.disableIpv6(links);
    }
}

std::string sourceCheckOf(const std::string& link) {
    return "ipv4/conf/" + link + "/rp_filter";
}

bool hasAddress(const std::vector<LinkAddress>& addresses, int link, Ipv4Address address, unsigned prefix) {
    return std::ranges::any_of(addresses, [&](const LinkAddress& at) {
        return at.link == link && at.address == address && at.prefix == prefix;
    });
}

/// A tap that is in use, or nothing.
std::optional<Link> wholeTap(Rtnetlink& inside, const IfName& name) {
    auto tap = inside.findLink(name.str());
    if (!tap || !tap->up || tap->kind != "tun") return std::nullopt;
    return tap;
}

}  // namespace

bool NetnsTopology::owns(const OwnerTag& owner, const Link& link) {
    return link.alias == owner.str() || (link.alias.empty() && link.kind == "veth" && link.mac == hostMac(owner));
}

bool NetnsTopology::present(const NetworkSpec& spec) const {
    const auto named = names_.find(spec.netns);
    if (named && named->tag == spec.owner.str()) return true;
    const auto link = Rtnetlink().findLink(hostLink(spec.owner));
    return link && owns(spec.owner, *link);
}

void NetnsTopology::checkNames(const NetworkSpec& spec) const {
    if (const auto there = names_.find(spec.netns); there && there->tag != spec.owner.str()) {
        throw Error(ErrorKind::AlreadyExists,
                    "the network namespace " + names_.path(spec.netns).string() + " is there and is not this VM's");
    }
    const auto link = Rtnetlink().findLink(hostLink(spec.owner));
    if (link && !owns(spec.owner, *link)) throw foreignLink(link->name);
}

NetNamespace NetnsTopology::findOrMake(const NetworkSpec& spec) const {
    if (auto space = names_.open(spec.netns)) return *std::move(space);  // checkNames() has seen whose it is
    // Its tag before its name: one that is found is known, and until then it ends with us.
    FreshNamespace made = fresh_.take();
    made.inside.setAlias(need(made.inside, "lo").index, spec.owner.str());
    MERGEN_FAILPOINT("network.linux.attach.namespace");
    names_.bind(spec.netns, spec.owner, made.space);
    MERGEN_FAILPOINT("network.linux.attach.named");
    return std::move(made.space);
}

void NetnsTopology::furnish(Rtnetlink& inside) {
    inside.setUp(need(inside, "lo").index);
    makeRouter(Sysctls());
}

NetworkAttachment NetnsTopology::reserve(const NetworkSpec& spec) const {
    static_cast<void>(findOrMake(spec));
    return {names_.path(spec.netns), /*tap=*/true};
}

NetworkAttachment NetnsTopology::make(const NetworkSpec& spec) const {
    Rtnetlink host;
    const NetNamespace space = findOrMake(spec);
    wireInside(spec, space, host);
    wireOutside(spec, host);
    return {names_.path(spec.netns), /*tap=*/true};
}

void NetnsTopology::wireInside(const NetworkSpec& spec, const NetNamespace& space, Rtnetlink& host) const {
    const std::string tag = spec.owner.str();
    const std::string hostEnd = hostLink(spec.owner);
    const NetNamespace outside = NetNamespace::current();
    space.run([&] {
        Rtnetlink inside;
        const Link loopback = need(inside, "lo");
        if (loopback.alias != tag) inside.setAlias(loopback.index, tag);
        if (!loopback.up) inside.setUp(loopback.index);
        const Sysctls sysctls;
        makeRouter(sysctls);

        const Link tap = findOrMakeTap(spec, spec.tap, inside);
        if (!spec.further.empty()) checkSources(spec, sysctls);
        inside.setAddress(tap.index, spec.gateway, spec.network.prefix());
        if (!tap.up) inside.setUp(tap.index);
        // Asked for by ARP before the VMM has opened the tap, it would be asked for again only a second later.
        inside.setNeighbour(tap.index, spec.guest, spec.mac);

        if (!inside.findLink(uplinkName)) {
            // A host end without this one is of a namespace that is about to end: its server was killed.
            if (const auto old = host.findLink(hostEnd)) {
                if (!owns(spec.owner, *old)) throw foreignLink(hostEnd);
                host.removeLink(old->index);
            }
            inside.makeVethPair({uplinkName, innerMac(spec.owner)}, {hostEnd, hostMac(spec.owner)}, outside.fd(), mtu_);
            MERGEN_FAILPOINT("network.linux.attach.veth");
        }
        const Link uplink = need(inside, uplinkName);
        if (uplink.alias != tag) inside.setAlias(uplink.index, tag);
        inside.setAddress(uplink.index, transitInner_, 32);
        if (!uplink.up) inside.setUp(uplink.index);
        inside.setNeighbour(uplink.index, transitHost_, hostMac(spec.owner));
        inside.setRoute({.base = {}, .prefix = 0, .link = uplink.index}, transitHost_);
        for (const Card& card : spec.further) wireFurther(spec, card, inside, sysctls);
    });
    MERGEN_FAILPOINT("network.linux.attach.inside");
}

Link NetnsTopology::findOrMakeTap(const NetworkSpec& spec, const IfName& name, Rtnetlink& inside) const {
    const std::string tag = spec.owner.str();
    if (!inside.findLink(name.str())) {
        makeTap({.name = name, .owner = spec.tapOwner, .alias = tag, .mtu = mtu_, .mac = {}});
        MERGEN_FAILPOINT("network.linux.attach.tap");
    }
    Link tap = need(inside, name.str());
    if (tap.kind != "tun") throw foreignLink(name.str());
    if (tap.alias != tag) inside.setAlias(tap.index, tag);
    return tap;
}

void NetnsTopology::checkSources(const NetworkSpec& spec, const Sysctls& inside) {
    // The larger one of a link's value and that of "all" holds, and 2 is weaker than 1 (the kernel's
    // Documentation/networking/ip-sysctl.rst).
    inside.write(sourceCheckOf("all"), "0");
    inside.write(sourceCheckOf(spec.tap.str()), "1");
}

void NetnsTopology::wireFurther(const NetworkSpec& spec, const Card& card, Rtnetlink& inside,
                                const Sysctls& sysctls) const {
    const Link tap = findOrMakeTap(spec, card.tap, inside);
    sysctls.write(sourceCheckOf(tap.name), "1");
    inside.setAddress(tap.index, spec.gateway, alone);
    if (!tap.up) inside.setUp(tap.index);
    inside.setNeighbour(tap.index, card.guest, card.mac);
    inside.setRoute({.base = card.guest, .prefix = alone, .link = tap.index}, std::nullopt);
    MERGEN_FAILPOINT("network.linux.attach.further");
}

void NetnsTopology::wireOutside(const NetworkSpec& spec, Rtnetlink& host) const {
    const std::string tag = spec.owner.str();
    const auto link = host.findLink(hostLink(spec.owner));
    if (!link || !owns(spec.owner, *link)) throw foreignLink(hostLink(spec.owner));
    if (link->alias != tag) host.setAlias(link->index, tag);
    MERGEN_FAILPOINT("network.linux.attach.tagged");
    // 127.0.0.1 as the source of what goes out here: for published ports asked for on localhost. The other direction is
    // closed by the table.
    sysctls_.write("ipv4/conf/" + link->name + "/route_localnet", "1");
    sysctls_.disableIpv6(link->name);
    // Up first: the kernel looks through all links with the same address when one gets it, and again when one that has
    // it comes up (fib_table_insert()).
    if (!link->up) host.setUp(link->index);
    MERGEN_FAILPOINT("network.linux.attach.up");
    // An address of its own: masquerade out of an unnumbered link fails with EPERM on a host with no other address.
    host.setAddress(link->index, transitHost_, 32);
    host.setNeighbour(link->index, transitInner_, innerMac(spec.owner));
    for (const Card& card : cardsOf(spec)) {
        host.setRoute({.base = card.guest, .prefix = alone, .link = link->index}, transitInner_);
        MERGEN_FAILPOINT("network.linux.attach.route");
    }
}

bool NetnsTopology::wholeInside(const NetworkSpec& spec, const NetNamespace& space) const {
    return space.run([&] {
        Rtnetlink inside;
        const auto tap = wholeTap(inside, spec.tap);
        const auto uplink = inside.findLink(uplinkName);
        if (!tap || !uplink || !uplink->up) return false;
        const std::vector<LinkAddress> addresses = inside.addresses();
        const std::vector<Route> routes = inside.routes();
        return hasAddress(addresses, tap->index, spec.gateway, spec.network.prefix()) &&
               hasAddress(addresses, uplink->index, transitInner_, alone) &&
               std::ranges::any_of(
                   routes, [&](const Route& route) { return route.prefix == 0 && route.link == uplink->index; }) &&
               wholeFurther(spec, inside, addresses, routes);
    });
}

bool NetnsTopology::wholeFurther(const NetworkSpec& spec, Rtnetlink& inside, const std::vector<LinkAddress>& addresses,
                                 const std::vector<Route>& routes) {
    if (spec.further.empty()) return true;
    const Sysctls sysctls;
    if (sysctls.read(sourceCheckOf("all")) != "0" || sysctls.read(sourceCheckOf(spec.tap.str())) != "1") return false;
    return std::ranges::all_of(spec.further, [&](const Card& card) {
        const auto tap = wholeTap(inside, card.tap);
        return tap && sysctls.read(sourceCheckOf(tap->name)) == "1" &&
               hasAddress(addresses, tap->index, spec.gateway, alone) &&
               std::ranges::count(routes, Route{.base = card.guest, .prefix = alone, .link = tap->index}) == 1;
    });
}

std::optional<NetworkAttachment> NetnsTopology::whole(const NetworkSpec& spec) const {
    const auto named = names_.find(spec.netns);
    if (!named || !named->space || named->tag != spec.owner.str()) return std::nullopt;
    Rtnetlink host;
    const auto link = host.findLink(hostLink(spec.owner));
    if (!link || !link->up || link->alias != spec.owner.str()) return std::nullopt;
    for (const Card& card : cardsOf(spec)) {
        const auto route = host.routeTo(card.guest);
        if (!route || route->prefix != alone || route->link != link->index) return std::nullopt;
    }
    if (!wholeInside(spec, *named->space)) return std::nullopt;
    return NetworkAttachment{names_.path(spec.netns), /*tap=*/true};
}

}  // namespace mergen::network
