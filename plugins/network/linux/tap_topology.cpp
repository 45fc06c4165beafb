#include "tap_topology.hpp"

#include <algorithm>

#include <mergen/sdk/failpoint.hpp>

#include "rtnetlink.hpp"
#include "tap.hpp"

namespace mergen::network {

namespace {

constexpr unsigned alone = 32;  // of an address that shares a network with nobody

bool owns(const NetworkSpec& spec, const Link& link) {
    return link.alias == spec.owner.str() && link.kind == "tun";
}

bool wholeCard(const NetworkSpec& spec, const Card& card, Rtnetlink& host, const std::vector<LinkAddress>& addresses) {
    const auto tap = host.findLink(card.tap.str());
    if (!tap || !owns(spec, *tap) || !tap->up) return false;
    const auto route = host.routeTo(card.guest);
    if (!route || route->prefix != alone || route->link != tap->index) return false;
    return std::ranges::any_of(addresses, [&](const LinkAddress& at) {
        return at.link == tap->index && at.address == spec.gateway && at.prefix == alone;
    });
}

}  // namespace

bool TapTopology::present(const NetworkSpec& spec) const {
    Rtnetlink host;
    return std::ranges::any_of(cardsOf(spec), [&](const Card& card) {
        const auto tap = host.findLink(card.tap.str());
        return tap && owns(spec, *tap);
    });
}

void TapTopology::checkNames(const NetworkSpec& spec) const {
    Rtnetlink host;
    for (const Card& card : cardsOf(spec)) {
        const auto link = host.findLink(card.tap.str());
        if (link && !owns(spec, *link)) throw foreignLink(link->name);
    }
}

NetworkAttachment TapTopology::reserve(const NetworkSpec&) const {
    return {std::nullopt, /*tap=*/true};  // a process is in the host's namespace as it is
}

NetworkAttachment TapTopology::make(const NetworkSpec& spec) const {
    for (const Card& card : cardsOf(spec)) makeCard(spec, card);
    return {std::nullopt, /*tap=*/true};
}

void TapTopology::makeCard(const NetworkSpec& spec, const Card& card) const {
    Rtnetlink host;
    if (!host.findLink(card.tap.str())) {
        makeTap({.name = card.tap,
                 .owner = spec.tapOwner,
                 .alias = spec.owner.str(),
                 .mtu = mtu_,
                 .mac = hostMac(spec.owner)});
        MERGEN_FAILPOINT("network.linux.attach.tap");
    }
    const auto tap = host.findLink(card.tap.str());
    if (!tap || !owns(spec, *tap)) throw foreignLink(card.tap.str());
    const std::string settings = "ipv4/conf/" + tap->name + "/";
    // 127.0.0.1 as the source of what goes out here: for published ports asked for on localhost. The other direction is
    // closed by the table.
    sysctls_.write(settings + "route_localnet", "1");
    sysctls_.write(settings + "arp_ignore", "1");  // a guest need not learn which other addresses the host has
    sysctls_.disableIpv6(tap->name);               // before the link is up: no address comes, and the host is silent
    // Up first: the kernel looks through all links with the same address when one gets it, and again when one that has
    // it comes up (fib_table_insert()).
    if (!tap->up) host.setUp(tap->index);
    MERGEN_FAILPOINT("network.linux.attach.up");
    host.setAddress(tap->index, spec.gateway, alone);
    host.setNeighbour(tap->index, card.guest, card.mac);
    host.setRoute({.base = card.guest, .prefix = alone, .link = tap->index}, std::nullopt);
    MERGEN_FAILPOINT("network.linux.attach.route");
}

std::optional<NetworkAttachment> TapTopology::whole(const NetworkSpec& spec) const {
    Rtnetlink host;
    const std::vector<LinkAddress> addresses = host.addresses();
    const bool all =
        std::ranges::all_of(cardsOf(spec), [&](const Card& card) { return wholeCard(spec, card, host, addresses); });
    if (!all) return std::nullopt;
    return NetworkAttachment{std::nullopt, /*tap=*/true};
}

}  // namespace mergen::network
