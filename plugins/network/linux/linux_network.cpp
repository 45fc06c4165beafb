#include "linux_network.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <fcntl.h>
#include <linux/capability.h>
#include <map>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <mergen/base/file.hpp>
#include <mergen/base/rollback.hpp>
#include <mergen/base/text.hpp>

#include "net_namespace.hpp"
#include "rtnetlink.hpp"
#include "tap.hpp"

namespace mergen::network {

namespace {

constexpr const char* uplinkName = "uplink";
constexpr const char* forwardingKey = "/proc/sys/net/ipv4/ip_forward";
constexpr const char* forwardingNote = "ip_forward";  // in state_: what ip_forward was before we turned it on
constexpr const char* mountNote = "netns_mount";      // in state_: /run/netns was made a mount by us

/// The host's end of a VM's veth pair.
std::string hostLinkName(const OwnerTag& owner) {
    return "mg-" + owner.vm.short8();
}

/// The MAC addresses of a veth pair. Made of the VM's id, as the kernel takes an address with the request that makes a
/// link, but an alias only later: it says whose a link is in between. And udev (MACAddressPolicy=persistent) changes
/// random addresses behind our back, but not given ones.
MacAddress vethMac(const OwnerTag& owner, bool hostEnd) {
    const auto& id = owner.vm.bytes();
    constexpr char digits[] = "0123456789abcdef";
    std::string text = hostEnd ? "06" : "0a";  // locally administered, unicast
    for (std::size_t i = 0; i < 5; ++i) {
        text += ':';
        text += digits[id[i] >> 4U];
        text += digits[id[i] & 0xfU];
    }
    return MacAddress::parse(text);
}

/// Whether the link under the name of the owner's host end is its: by its alias, or, if a server was killed before it
/// set that, by its address.
bool owns(const OwnerTag& owner, const Link& link) {
    return link.alias == owner.str() || (link.alias.empty() && link.kind == "veth" && link.mac == vethMac(owner, true));
}

Error foreignLink(const std::string& name) {
    return {ErrorKind::AlreadyExists, "the link '" + name + "' is there and is not this VM's"};
}

void writeSysctl(const std::string& key, std::string_view value) {
    const std::string path = "/proc/sys/net/" + key;
    const UniqueFd fd = openFile(path, O_WRONLY | O_TRUNC);
    writeAll(fd.get(), value, path);
}

/// A kernel without IPv6 has no such keys, and nothing to turn off.
void disableIpv6(const std::string& link) {
    const std::string key = "ipv6/conf/" + link + "/disable_ipv6";
    if (::access(("/proc/sys/net/" + key).c_str(), F_OK) == 0) writeSysctl(key, "1");
}

bool hasCapability(unsigned capability) {
    __user_cap_header_struct header{};
    header.version = _LINUX_CAPABILITY_VERSION_3;
    std::array<__user_cap_data_struct, _LINUX_CAPABILITY_U32S_3> data{};
    if (::syscall(SYS_capget, &header, data.data()) != 0) throw Error::fromErrno(errno, "cannot read our capabilities");
    return (data[capability / 32].effective >> (capability % 32) & 1U) != 0;
}

/// Whether `address` could be bound; nothing if the host lacks the family.
template <typename Address>
std::optional<bool> canBind(int type, const Address& address, sa_family_t family, std::uint16_t port) {
    const UniqueFd fd(::socket(family, type | SOCK_CLOEXEC, 0));
    if (!fd) {
        if (errno == EAFNOSUPPORT) return std::nullopt;
        throw Error::fromErrno(errno, "cannot open a socket");
    }
    const int on = 1;
    if (family == AF_INET6 && ::setsockopt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on)) != 0) {
        throw Error::fromErrno(errno, "cannot set up a socket");
    }
    if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0) return true;
    if (errno == EADDRINUSE) return false;
    if (errno == EADDRNOTAVAIL) return std::nullopt;  // IPv6 is turned off
    throw Error::fromErrno(errno, "cannot try host port " + std::to_string(port));
}

/// Runs steps of a teardown: each of them, whatever becomes of the others; then throws what the first failure said.
class Teardown {
public:
    void step(const std::function<void()>& work) {
        try {
            work();
        } catch (const Error& error) {
            if (!first_) first_ = error;
        }
    }
    void finish() const {
        if (first_) throw *first_;
    }

private:
    std::optional<Error> first_;
};

}  // namespace

const mergen_key LinuxNetwork::keys[] = {
    {"transit", MERGEN_KEY_STRING, "192.0.0.0/30",
     "Network of which the first two addresses are the ends of every VM's link to the host (host, VM's namespace). The "
     "same "
     "for all VMs; a guest sees the first as the source of what comes from the host's 127.0.0.1. Must not overlap the "
     "guest "
     "network nor a network that guests need to reach."},
    {"denied_networks", MERGEN_KEY_STRING, "169.254.0.0/16",
     "Networks that no guest may reach, in CIDR notation with ',' between them; empty: none. The default keeps guests "
     "from "
     "a cloud's metadata service."},
    {nullptr, MERGEN_KEY_STRING, nullptr, nullptr},
};

void LinuxNetwork::configure(Host& host) {
    const Settings& settings = host.settings();
    try {
        transit_ = Ipv4Network::parse(settings.text("transit"));
    } catch (const Error& error) {
        throw error.within("transit");
    }
    denied_.clear();
    if (const std::string_view networks = trim(settings.text("denied_networks")); !networks.empty()) {
        for (const std::string& network : split(networks, ',')) {
            try {
                denied_.push_back(Ipv4Network::parse(trim(network)));
            } catch (const Error& error) {
                throw error.within("denied_networks");
            }
        }
    }
    transitHost_ = transit_.host(1);
    transitInner_ = transit_.host(2);
    state_ = host.paths().runRoot / "network";
    host_ = &host;
}

void LinuxNetwork::start() {
    if (!hasCapability(CAP_NET_ADMIN) || !hasCapability(CAP_SYS_ADMIN)) {
        throw Error(
            ErrorKind::NotSupported,
            "this network backend needs the capabilities CAP_NET_ADMIN (links, packet filter) and CAP_SYS_ADMIN "
            "(network namespaces): run the server as root, or choose the backend 'stub'");
    }
    if (::access("/dev/net/tun", R_OK | W_OK) != 0) {
        throw Error(
            ErrorKind::NotSupported,
            "this network backend needs /dev/net/tun: load the kernel module 'tun', or choose the backend 'stub'");
    }
    makeDirectories(state_, 0700);
    ruleset_ = std::make_unique<Ruleset>(host_->instance(), denied_);
    Rollback undo;
    undo.add([this] { stop(); });  // gives back what is of no use to a guest of an earlier server
    names_.prepare([this] { writeFileAtomically(state_ / mountNote, "made\n", 0600); });
    MERGEN_FAILPOINT("network.linux.start.mount");
    ruleset_->prepare();
    MERGEN_FAILPOINT("network.linux.start.table");
    turnForwardingOn();
    MERGEN_FAILPOINT("network.linux.start.forward");
    if (const std::string table = ruleset_->foreignDropPolicy(); !table.empty()) {
        host_->log().warning("network.forward.drop_elsewhere",
                             {{"table", table},
                              {"hint",
                               "its forward chain drops by default, whatever our table accepts; unless it accepts "
                               "the links mg-*, guests are reached from this host only"}});
    }
    undo.commit();
}

void LinuxNetwork::stop() noexcept {
    if (!ruleset_) return;
    try {
        if (ruleset_->removeIfUnused()) {
            // Another server's guests need forwarding as ours did.
            if (!ruleset_->otherInstances()) giveForwardingBack();
            if (readFile(state_ / mountNote, 64) && names_.unprepare()) removeTree(state_ / mountNote);
            if (listDirectory(state_).empty()) removeTree(state_);
        }
    } catch (const Error& error) {
        host_->log().warning("network.stop.incomplete",
                             {{"error", error.what()}, {"hint", "what is left is used again at the next start"}});
    }
    ruleset_.reset();
}

Ruleset& LinuxNetwork::ruleset() const {
    if (!ruleset_) throw Error(ErrorKind::FailedPrecondition, "the network backend is not started");
    return *ruleset_;
}

void LinuxNetwork::turnForwardingOn() const {
    const auto now = readFile(forwardingKey, 64);
    if (now && trim(split(*now, '\n').front()) == "1") return;
    // Intent first: killed after the next line, the note says what there is to give back.
    writeFileAtomically(state_ / forwardingNote, "0\n", 0600);
    writeSysctl("ipv4/ip_forward", "1");
}

void LinuxNetwork::giveForwardingBack() const {
    if (!readFile(state_ / forwardingNote, 64)) return;
    writeSysctl("ipv4/ip_forward", "0");
    removeTree(state_ / forwardingNote);
}

Health LinuxNetwork::health() const {
    const Ruleset::Summary summary = ruleset().summary();
    const std::string table = "table inet " + ruleset().table();
    // With no guest it is made again when the first one comes.
    if (!summary.whole && summary.owners != 0)
        return {false, table + " was changed by somebody else: guests are not filtered"};
    return {true, table + ", " + std::to_string(summary.owners) + " guests"};
}

NetworkTraits LinuxNetwork::traits() const noexcept {
    return {.touchesHost = true, .udp = false};
}

void LinuxNetwork::checkSpec(const NetworkSpec& spec) const {
    // These words come from a record. Whoever wrote it, they meet paths and rules below.
    const bool safeName = !spec.netns.empty() && spec.netns.size() <= 64 && spec.netns.front() != '.' &&
                          std::ranges::all_of(spec.netns, [](char c) {
                              return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '.';
                          });
    if (!safeName) {
        throw Error(ErrorKind::InvalidArgument, "'" + printable(spec.netns) + "' cannot name a network namespace");
    }
    if (!spec.network.contains(spec.guest) || !spec.network.contains(spec.gateway) || spec.guest == spec.gateway) {
        throw Error(ErrorKind::InvalidArgument, "guest " + spec.guest.str() + " and gateway " + spec.gateway.str() +
                                                    " are not two addresses of " + spec.network.str());
    }
    if (spec.network.contains(transitHost_) || transit_.contains(spec.network.base())) {
        throw Error(ErrorKind::InvalidArgument,
                    "the guest network " + spec.network.str() + " overlaps the setting transit, " + transit_.str());
    }
    if (spec.owner.instance != host_->instance()) {
        throw Error(ErrorKind::InvalidArgument, "VM " + spec.owner.vm.str() + " belongs to another server");
    }
}

void LinuxNetwork::checkNames(const NetworkSpec& spec) const {
    checkSpec(spec);
    if (const auto there = names_.find(spec.netns); there && there->tag != spec.owner.str()) {
        throw Error(ErrorKind::AlreadyExists,
                    "the network namespace " + names_.path(spec.netns).string() + " is there and is not this VM's");
    }
    Rtnetlink host;
    const auto link = host.findLink(hostLinkName(spec.owner));
    if (link && !owns(spec.owner, *link)) throw foreignLink(link->name);
    // Routes as wide as these are somebody's way to everywhere: a default route, or the halves that VPNs make of it.
    constexpr unsigned widest = 7;
    const auto route = host.routeTo(spec.guest);
    if (route && route->prefix > widest && !(link && route->link == link->index)) {
        throw Error(ErrorKind::AlreadyExists, "the guest's address " + spec.guest.str() +
                                                  " is taken: this host has a route to " + route->base.str() + "/" +
                                                  std::to_string(route->prefix));
    }
}

bool LinuxNetwork::portFree(Protocol protocol, std::uint16_t port) const {
    if (protocol == Protocol::Tcp && ruleset().published(port)) return false;
    const int type = protocol == Protocol::Tcp ? SOCK_STREAM : SOCK_DGRAM;
    sockaddr_in any4{};
    any4.sin_family = AF_INET;
    any4.sin_port = htons(port);
    sockaddr_in6 any6{};
    any6.sin6_family = AF_INET6;
    any6.sin6_port = htons(port);
    return canBind(type, any4, AF_INET, port).value_or(true) && canBind(type, any6, AF_INET6, port).value_or(true);
}

NetworkAttachment LinuxNetwork::attach(const NetworkSpec& spec) {
    checkSpec(spec);
    Rollback undo;
    undo.add([&] {
        try {
            takeDown(spec);
        } catch (const Error& error) {
            host_->log().warning("network.attach.undo_failed", {{"vm", spec.owner.vm.str()}, {"error", error.what()}});
        }
    });
    checkNames(spec);
    ruleset().admit(spec.owner, hostLinkName(spec.owner), spec.guest);
    MERGEN_FAILPOINT("network.linux.attach.filter");

    Rtnetlink host;
    auto named = names_.find(spec.netns);
    const bool fresh = !named || !named->space;
    const NetNamespace space = fresh ? NetNamespace::create() : std::move(*named->space);
    MERGEN_FAILPOINT("network.linux.attach.namespace");
    wireInside(spec, space, host);
    wireOutside(spec, host);
    if (fresh) {
        names_.bind(spec.netns, spec.owner, space);
        MERGEN_FAILPOINT("network.linux.attach.named");
    }
    undo.commit();
    return {names_.path(spec.netns), /*tap=*/true};
}

void LinuxNetwork::wireInside(const NetworkSpec& spec, const NetNamespace& space, Rtnetlink& host) const {
    const std::string tag = spec.owner.str();
    const std::string hostLink = hostLinkName(spec.owner);
    const NetNamespace outside = NetNamespace::current();
    space.run([&] {
        Rtnetlink inside;
        const auto need = [&inside](const std::string& name) {
            auto link = inside.findLink(name);
            if (!link) throw Error(ErrorKind::Conflict, "the link '" + name + "' was removed while it was set up");
            return *std::move(link);
        };
        const Link loopback = need("lo");
        if (loopback.alias != tag) inside.setAlias(loopback.index, tag);
        if (!loopback.up) inside.setUp(loopback.index);
        // A new namespace takes IPv4 settings over from the host (net.core.devconf_inherit_init_net): none that matters
        // here is left to chance.
        writeSysctl("ipv4/ip_forward", "1");
        writeSysctl("ipv4/conf/all/route_localnet", "0");
        writeSysctl("ipv4/conf/default/route_localnet", "0");
        disableIpv6("all");
        disableIpv6("default");

        if (!inside.findLink(spec.tap.str())) {
            makeTap(spec.tap, spec.tapOwner);
            MERGEN_FAILPOINT("network.linux.attach.tap");
        }
        const Link tap = need(spec.tap.str());
        if (tap.kind != "tun") throw foreignLink(spec.tap.str());
        if (tap.alias != tag) inside.setAlias(tap.index, tag);
        inside.setAddress(tap.index, spec.gateway, spec.network.prefix());
        if (!tap.up) inside.setUp(tap.index);

        if (!inside.findLink(uplinkName)) {
            // A host end without this one is of a namespace that is about to end: its server was killed.
            if (const auto old = host.findLink(hostLink)) {
                if (!owns(spec.owner, *old)) throw foreignLink(hostLink);
                host.removeLink(old->index);
            }
            inside.makeVethPair({uplinkName, vethMac(spec.owner, false)}, {hostLink, vethMac(spec.owner, true)},
                                outside.fd());
            MERGEN_FAILPOINT("network.linux.attach.veth");
        }
        const Link uplink = need(uplinkName);
        if (uplink.alias != tag) inside.setAlias(uplink.index, tag);
        inside.setAddress(uplink.index, transitInner_, 32);
        if (!uplink.up) inside.setUp(uplink.index);
        inside.setNeighbour(uplink.index, transitHost_, vethMac(spec.owner, true));
        inside.setRoute({.base = {}, .prefix = 0, .link = uplink.index}, transitHost_);
    });
    MERGEN_FAILPOINT("network.linux.attach.inside");
}

void LinuxNetwork::wireOutside(const NetworkSpec& spec, Rtnetlink& host) const {
    const std::string tag = spec.owner.str();
    const auto link = host.findLink(hostLinkName(spec.owner));
    if (!link || !owns(spec.owner, *link)) throw foreignLink(hostLinkName(spec.owner));
    if (link->alias != tag) host.setAlias(link->index, tag);
    MERGEN_FAILPOINT("network.linux.attach.tagged");
    // 127.0.0.1 as the source of what goes out here: for published ports asked for on localhost. The other direction is
    // closed by the table.
    writeSysctl("ipv4/conf/" + link->name + "/route_localnet", "1");
    disableIpv6(link->name);
    // An address of its own: masquerade out of an unnumbered link fails with EPERM on a host with no other address.
    host.setAddress(link->index, transitHost_, 32);
    if (!link->up) host.setUp(link->index);
    MERGEN_FAILPOINT("network.linux.attach.up");
    host.setNeighbour(link->index, transitInner_, vethMac(spec.owner, false));
    host.setRoute({.base = spec.guest, .prefix = 32, .link = link->index}, transitInner_);
    MERGEN_FAILPOINT("network.linux.attach.route");
}

bool LinuxNetwork::wholeInside(const NetworkSpec& spec, const NetNamespace& space) const {
    return space.run([&] {
        Rtnetlink inside;
        const auto tap = inside.findLink(spec.tap.str());
        const auto uplink = inside.findLink(uplinkName);
        if (!tap || !tap->up || tap->kind != "tun" || !uplink || !uplink->up) return false;
        const std::vector<LinkAddress> addresses = inside.addresses();
        const auto has = [&](int link, Ipv4Address address, unsigned prefix) {
            return std::ranges::any_of(addresses, [&](const LinkAddress& at) {
                return at.link == link && at.address == address && at.prefix == prefix;
            });
        };
        return has(tap->index, spec.gateway, spec.network.prefix()) && has(uplink->index, transitInner_, 32) &&
               std::ranges::any_of(inside.routes(), [&](const Route& route) {
                   return route.prefix == 0 && route.link == uplink->index;
               });
    });
}

std::optional<NetworkAttachment> LinuxNetwork::inspect(const NetworkSpec& spec) const {
    checkSpec(spec);
    const auto named = names_.find(spec.netns);
    if (!named || !named->space || named->tag != spec.owner.str()) return std::nullopt;
    Rtnetlink host;
    const auto link = host.findLink(hostLinkName(spec.owner));
    if (!link || !link->up || link->alias != spec.owner.str()) return std::nullopt;
    const auto route = host.routeTo(spec.guest);
    if (!route || route->prefix != 32 || route->link != link->index) return std::nullopt;
    if (!ruleset().admitted(spec.owner, link->name, spec.guest)) return std::nullopt;
    if (!wholeInside(spec, *named->space)) return std::nullopt;
    return NetworkAttachment{names_.path(spec.netns), /*tap=*/true};
}

void LinuxNetwork::publish(const NetworkSpec& spec) {
    checkSpec(spec);
    for (const PortBinding& port : spec.ports) {
        if (port.protocol != Protocol::Tcp) {
            throw Error(ErrorKind::NotSupported, "cannot publish port " + std::to_string(port.host) +
                                                     ": this network backend publishes tcp only")
                .about("ports");
        }
    }
    ruleset().publish(spec.owner, spec.guest, spec.ports);
    MERGEN_FAILPOINT("network.linux.publish");
}

void LinuxNetwork::unpublish(const NetworkSpec& spec) {
    checkSpec(spec);
    ruleset().publish(spec.owner, spec.guest, {});
    MERGEN_FAILPOINT("network.linux.unpublish");
}

void LinuxNetwork::takeDown(const NetworkSpec& spec) const {
    Teardown teardown;
    // The link first: while it is there, its filter is. It goes explicitly, as the kernel ends a namespace at its
    // leisure.
    teardown.step([&] {
        Rtnetlink host;
        const auto link = host.findLink(hostLinkName(spec.owner));
        if (link && owns(spec.owner, *link)) host.removeLink(link->index);
    });
    teardown.step([] { MERGEN_FAILPOINT("network.linux.detach.link"); });
    teardown.step([&] { ruleset().expel(spec.owner); });
    teardown.step([] { MERGEN_FAILPOINT("network.linux.detach.filter"); });
    teardown.step([&] { names_.remove(spec.netns, spec.owner); });
    teardown.step([] { MERGEN_FAILPOINT("network.linux.detach.name"); });
    teardown.finish();
}

void LinuxNetwork::detach(const NetworkSpec& spec) {
    checkSpec(spec);
    takeDown(spec);
}

std::vector<NetworkFinding> LinuxNetwork::list() const {
    std::map<OwnerTag, std::vector<std::string>> found = ruleset().list();
    for (const Link& link : Rtnetlink().links()) {
        if (const auto owner = OwnerTag::parse(link.alias)) found[*owner].push_back("link " + link.name);
    }
    for (const std::string& name : names_.names()) {
        const auto entry = names_.find(name);
        if (!entry) continue;
        if (const auto owner = OwnerTag::parse(entry->tag)) {
            found[*owner].push_back((entry->space ? "namespace " : "file ") + names_.path(name).string());
        }
    }
    std::vector<NetworkFinding> findings;
    for (auto& [owner, objects] : found) {
        if (owner.instance == host_->instance()) findings.push_back({owner, std::move(objects)});
    }
    return findings;
}

void LinuxNetwork::removeStray(const OwnerTag& owner) {
    if (owner.instance != host_->instance()) {
        throw Error(ErrorKind::InvalidArgument, "VM " + owner.vm.str() + " belongs to another server");
    }
    Teardown teardown;
    teardown.step([&] {
        Rtnetlink host;
        for (const Link& link : host.links()) {
            if (link.alias == owner.str() || (link.name == hostLinkName(owner) && owns(owner, link))) {
                host.removeLink(link.index);
            }
        }
    });
    teardown.step([&] { ruleset().expel(owner); });
    teardown.step([&] {
        for (const std::string& name : names_.names()) names_.remove(name, owner);
    });
    teardown.finish();
}

}  // namespace mergen::network
