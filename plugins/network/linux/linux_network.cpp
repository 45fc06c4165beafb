#include "linux_network.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <linux/capability.h>
#include <map>
#include <set>
#include <sys/syscall.h>
#include <unistd.h>
#include <utility>

#include <mergen/base/file.hpp>
#include <mergen/base/rollback.hpp>
#include <mergen/base/text.hpp>

#include "conntrack.hpp"
#include "ephemeral_ports.hpp"
#include "foreign_firewall.hpp"
#include "rtnetlink.hpp"
#include "sysctl.hpp"

namespace mergen::network {

namespace {

constexpr const char* forwardingKey = "ipv4/ip_forward";
constexpr const char* forwardingNote = "ip_forward";  // in state_: what ip_forward was before we turned it on
constexpr const char* mountNote = "netns_mount";      // in state_: /run/netns was made a mount by us

/// Long enough for the kernel to take a namespace apart, with many others at once and cheaper than we could its links.
/// And a walk over all flows holds up who changes links or mounts meanwhile (it is one RCU read section of 6 to 10 ms),
/// so that there should be few.
constexpr std::chrono::milliseconds departureLinger{250};

/// Well after the start that took one, so that the next one is made beside nobody's work.
constexpr std::chrono::milliseconds quietBeforeAnother{250};

bool hasCapability(unsigned capability) {
    __user_cap_header_struct header{};
    header.version = _LINUX_CAPABILITY_VERSION_3;
    std::array<__user_cap_data_struct, _LINUX_CAPABILITY_U32S_3> data{};
    if (::syscall(SYS_capget, &header, data.data()) != 0) throw Error::fromErrno(errno, "cannot read our capabilities");
    return (data[capability / 32].effective >> (capability % 32) & 1U) != 0;
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
    {"topology", MERGEN_KEY_STRING, "netns",
     "Where a VM's tap stands: netns (in a network namespace of the VM's own, with a veth pair to the host) or tap (in "
     "the host's namespace: cheaper, but a VMM that is broken out of sees the host's network). For wires made from now "
     "on; one that is there keeps its shape."},
    {"mtu", MERGEN_KEY_INTEGER, "1500",
     "Largest packet on the wires of new VMs and, through the VMM, on their guests' interfaces, in bytes (576 to "
     "65521). Lower it where guests' packets travel in a tunnel."},
    {"dns", MERGEN_KEY_STRING, "",
     "Addresses of at most two name servers, with ',' between them, that guests are told of by their kernel's ip= "
     "argument; empty: none. Guests may ask them on port 53 under every egress policy."},
    {"egress", MERGEN_KEY_STRING, "open",
     "What guests may reach beyond the host: open (everything), listed (allowed_networks alone) or none."},
    {"allowed_networks", MERGEN_KEY_STRING, "",
     "Networks that guests may reach with egress = listed, in CIDR notation with ',' between them."},
    {"denied_networks", MERGEN_KEY_STRING, "169.254.0.0/16",
     "Networks that no guest may reach, in CIDR notation with ',' between them; empty: none. They win over every other "
     "setting. The default keeps guests from a cloud's metadata service."},
    {"transit", MERGEN_KEY_STRING, "192.0.0.0/30",
     "With topology = netns: network of which the first two addresses are the ends of every VM's link to the host "
     "(host, VM's namespace). The same for all VMs; a guest sees the first as the source of what comes from the host's "
     "127.0.0.1. Must not overlap the guest network nor a network that guests need to reach."},
    {nullptr, MERGEN_KEY_STRING, nullptr, nullptr},
};

namespace {

std::set<Ipv4Address> addressesOf(const NetworkSpec& spec) {
    std::set<Ipv4Address> addresses;
    for (const Card& card : cardsOf(spec)) addresses.insert(card.guest);
    return addresses;
}

/// What `read` gives, or its refusal with the key's name.
template <typename Read>
auto ofKey(std::string_view key, const Read& read) {
    try {
        return read();
    } catch (const Error& error) {
        throw error.within(std::string(key));
    }
}

std::vector<Ipv4Address> parseServers(std::string_view text) {
    std::vector<Ipv4Address> servers;
    if (trim(text).empty()) return servers;
    for (const std::string& server : split(text, ',')) servers.push_back(Ipv4Address::parse(trim(server)));
    // ip=...:<dns0>:<dns1> (the kernel's Documentation/admin-guide/nfs/nfsroot.rst)
    if (servers.size() > 2) throw Error(ErrorKind::InvalidArgument, "a guest's kernel can be told of two at most");
    return servers;
}

}  // namespace

LinuxNetwork::LinuxNetwork()
    : fresh_(
          &NetnsTopology::furnish,
          [this](const std::exception& error) {
              host_->log().debug("network.namespace.none_ready",
                                 {{"error", error.what()}, {"effect", "the next VM's is made when it starts"}});
          },
          quietBeforeAnother) {}

void LinuxNetwork::configure(Host& host) {
    const Settings& settings = host.settings();
    const auto text = [&](std::string_view key) { return settings.text(key); };
    transit_ = ofKey("transit", [&] { return Ipv4Network::parse(text("transit")); });
    egress_ = {.mode = ofKey("egress", [&] { return parseEgressMode(text("egress")); }),
               .denied = ofKey("denied_networks", [&] { return parsePrefixes(text("denied_networks")); }),
               .dns = ofKey("dns", [&] { return parseServers(text("dns")); }),
               .allowed = ofKey("allowed_networks", [&] { return parsePrefixes(text("allowed_networks")); })};
    checkEgress(egress_);

    constexpr std::int64_t least = 576;   // RFC 791: what every host takes
    constexpr std::int64_t most = 65521;  // of a tap: 65535 without its Ethernet header
    const std::int64_t mtu = settings.integer("mtu");
    if (mtu < least || mtu > most) {
        throw Error(ErrorKind::InvalidArgument, "mtu: " + std::to_string(mtu) + " is not within " +
                                                    std::to_string(least) + " to " + std::to_string(most));
    }
    mtu_ = static_cast<unsigned>(mtu);

    const std::string& topology = text("topology");
    if (topology != "netns" && topology != "tap") {
        throw Error(ErrorKind::InvalidArgument, "topology: '" + printable(topology) + "' is neither netns nor tap");
    }
    netns_ = std::make_unique<NetnsTopology>(names_, fresh_, transit_.host(1), transit_.host(2), mtu_);
    tap_ = std::make_unique<TapTopology>(mtu_);
    forNew_ = netns_.get();
    other_ = tap_.get();
    if (topology == "tap") std::swap(forNew_, other_);
    refuseOverlap(host.networkPlan().guests, *forNew_);
    state_ = host.paths().runRoot / "network";
    host_ = &host;
}

void LinuxNetwork::refuseOverlap(const Ipv4Network& guests, const Topology& shape) const {
    if (&shape != netns_.get()) return;  // there are no transit addresses
    if (!guests.contains(transit_.base()) && !transit_.contains(guests.base())) return;
    throw Error(ErrorKind::InvalidArgument,
                "the guest network " + guests.str() + " overlaps the setting transit, " + transit_.str());
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
    flows_.requireSupport();
    ruleset_ = std::make_unique<Ruleset>(host_->instance(), egress_);
    const auto report = [this](const OwnerTag& owner, const Error& error) {
        host_->log().warning("network.detach.incomplete", {{"vm", owner.vm.str()},
                                                           {"error", error.what()},
                                                           {"hint", "it is tried again before the address is used"}});
    };
    departures_ = std::make_unique<Departures>([this](const auto& guests) { expel(guests); }, report, departureLinger);
    Rollback undo;
    undo.add([this] { stop(); });  // gives back what is of no use to a guest of an earlier server
    names_.prepare([this] { writeFileAtomically(state_ / mountNote, "made\n", 0600); });
    MERGEN_FAILPOINT("network.linux.start.mount");
    ruleset_->prepare();
    MERGEN_FAILPOINT("network.linux.start.table");
    turnForwardingOn();
    MERGEN_FAILPOINT("network.linux.start.forward");
    warnOfForeignFirewalls();
    if (const std::string clash = ephemeralClash(host_->networkPlan()); !clash.empty()) {
        host_->log().warning("network.ports.ephemeral", {{"cause", clash}});
    }
    if (forNew_ == netns_.get()) fresh_.keepOne();
    undo.commit();
}

void LinuxNetwork::stop() noexcept {
    fresh_.stop();
    ports_.releaseAll();
    departures_.reset();
    links_.finish();
    flows_.close();
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

Departures& LinuxNetwork::departures() const {
    if (!departures_) throw Error(ErrorKind::FailedPrecondition, "the network backend is not started");
    return *departures_;
}

void LinuxNetwork::turnForwardingOn() const {
    if (readSysctl(forwardingKey) == "1") return;
    // Intent first: killed after the next line, the note says what there is to give back.
    writeFileAtomically(state_ / forwardingNote, "0\n", 0600);
    Sysctls().write(forwardingKey, "1");
}

void LinuxNetwork::giveForwardingBack() const {
    if (!readFile(state_ / forwardingNote, 64)) return;
    Sysctls().write(forwardingKey, "0");
    removeTree(state_ / forwardingNote);
}

std::vector<std::string> LinuxNetwork::foreignFirewalls() const {
    std::vector<std::string> all = ruleset().foreignDrops(std::string(forNew_ == tap_.get() ? "tap" : "mg") + "-*");
    if (hasLegacyFilter(readFile("/proc/net/ip_tables_names", 4096).value_or(""))) {
        all.emplace_back("legacy iptables, table filter (its FORWARD chain cannot be seen)");
    }
    return all;
}

std::string LinuxNetwork::adviceOnFirewalls() const {
    const std::string link = forNew_ == tap_.get() ? "tap-" : "mg-";
    return "what a forward chain of another program drops is lost whatever our table accepts: unless it accepts the "
           "links " +
           link + "* both ways, guests are reached from this host only and do not get out (Docker: iptables -I " +
           "DOCKER-USER -i " + link + "+ -j ACCEPT; iptables -I DOCKER-USER -o " + link + "+ -j ACCEPT)";
}

void LinuxNetwork::warnOfForeignFirewalls() const {
    for (const std::string& chain : foreignFirewalls()) {
        host_->log().warning("network.forward.drop_elsewhere", {{"chain", chain}, {"hint", adviceOnFirewalls()}});
    }
}

Health LinuxNetwork::health() const {
    const Ruleset::Summary summary = ruleset().summary();
    const std::string table = "table inet " + ruleset().table();
    // With no guest it is made again when the first one comes.
    if (!summary.whole && summary.owners != 0)
        return {false, table + " was changed by somebody else: guests are not filtered"};
    std::string detail = table + ", " + std::to_string(summary.owners) + " guests";
    if (const auto chains = foreignFirewalls(); !chains.empty()) {
        for (const std::string& chain : chains) detail += "; " + chain;
        detail += ": " + adviceOnFirewalls();
    }
    if (const std::string clash = ephemeralClash(host_->networkPlan()); !clash.empty()) detail += "; " + clash;
    return {true, detail};
}

NetworkTraits LinuxNetwork::traits() const noexcept {
    return {.touchesHost = true, .udp = true};
}

GuestSettings LinuxNetwork::guestSettings() const {
    constexpr unsigned ethernet = 1500;
    return {.mtu = mtu_ == ethernet ? 0 : mtu_, .dns = egress_.dns};
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
    std::set<Ipv4Address> addresses;
    std::set<IfName> taps;
    for (const Card& card : cardsOf(spec)) {
        if (!spec.network.contains(card.guest) || !spec.network.contains(spec.gateway) || card.guest == spec.gateway) {
            throw Error(ErrorKind::InvalidArgument, "guest " + card.guest.str() + " and gateway " + spec.gateway.str() +
                                                        " are not two addresses of " + spec.network.str());
        }
        if (!addresses.insert(card.guest).second || !taps.insert(card.tap).second) {
            throw Error(ErrorKind::InvalidArgument, "the address " + card.guest.str() + " or the tap '" +
                                                        card.tap.str() + "' is that of two network cards");
        }
    }
    if (spec.owner.instance != host_->instance()) {
        throw Error(ErrorKind::InvalidArgument, "VM " + spec.owner.vm.str() + " belongs to another server");
    }
}

std::vector<Ruleset::Source> LinuxNetwork::sourcesOf(const NetworkSpec& spec, const Topology& shape) {
    std::vector<Ruleset::Source> sources;
    for (const Card& card : cardsOf(spec)) sources.push_back({shape.guestLink(spec.owner, card), card.guest});
    return sources;
}

const Topology& LinuxNetwork::shapeOf(const NetworkSpec& spec) const {
    return other_->present(spec) && !forNew_->present(spec) ? *other_ : *forNew_;
}

void LinuxNetwork::checkNames(const NetworkSpec& spec) const {
    checkSpec(spec);
    Departures& leaving = departures();
    try {
        leaving.await(spec.owner, addressesOf(spec));
    } catch (const Error& error) {
        throw Error(
            ErrorKind::AlreadyExists,
            std::string("what is left of the VM, or of one that had its address, is still there: ") + error.what());
    }
    checkNames(spec, shapeOf(spec));
}

void LinuxNetwork::checkNames(const NetworkSpec& spec, const Topology& shape) const {
    refuseOverlap(spec.network, shape);
    shape.checkNames(spec);
    for (const Card& card : cardsOf(spec)) refuseForeignRoute(spec.owner, card, shape);
}

void LinuxNetwork::refuseForeignRoute(const OwnerTag& owner, const Card& card, const Topology& shape) {
    Rtnetlink host;
    const auto link = host.findLink(shape.guestLink(owner, card));
    // Routes as wide as these are somebody's way to everywhere: a default route, or the halves that VPNs make of it.
    constexpr unsigned widest = 7;
    const auto route = host.routeTo(card.guest);
    if (route && route->prefix > widest && !(link && route->link == link->index)) {
        throw Error(ErrorKind::AlreadyExists, "the guest's address " + card.guest.str() +
                                                  " is taken: this host has a route to " + route->base.str() + "/" +
                                                  std::to_string(route->prefix));
    }
}

bool LinuxNetwork::holdPort(Protocol protocol, std::uint16_t port) {
    return ports_.hold(protocol, port);
}

void LinuxNetwork::releasePort(Protocol protocol, std::uint16_t port) noexcept {
    ports_.release(protocol, port);
}

void LinuxNetwork::undoAttach(const NetworkSpec& spec) const noexcept {
    try {
        takeDown(spec);
        awaitDeparture(spec);
    } catch (const Error& error) {
        host_->log().warning("network.attach.undo_failed", {{"vm", spec.owner.vm.str()}, {"error", error.what()}});
    }
}

NetworkAttachment LinuxNetwork::reserve(const NetworkSpec& spec) {
    checkSpec(spec);
    Rollback undo;
    undo.add([&] { undoAttach(spec); });
    // A link that is about to go is in nobody's way but that of a wire of the other shape; attach() waits for it.
    const Topology* shape = &shapeOf(spec);
    if (shape == other_) {
        awaitDeparture(spec);
        shape = &shapeOf(spec);
    }
    shape->checkNames(spec);
    NetworkAttachment place = shape->reserve(spec);
    undo.commit();
    return place;
}

NetworkAttachment LinuxNetwork::attach(const NetworkSpec& spec) {
    checkSpec(spec);
    Rollback undo;
    undo.add([&] { undoAttach(spec); });
    awaitDeparture(spec);
    const Topology& shape = shapeOf(spec);
    checkNames(spec, shape);
    ruleset().admit(spec.owner, sourcesOf(spec, shape));
    MERGEN_FAILPOINT("network.linux.attach.filter");
    NetworkAttachment made = shape.make(spec);
    undo.commit();
    return made;
}

std::optional<NetworkAttachment> LinuxNetwork::inspect(const NetworkSpec& spec) const {
    checkSpec(spec);
    const Topology& shape = shapeOf(spec);
    if (!ruleset().admitted(spec.owner, sourcesOf(spec, shape))) return std::nullopt;
    return shape.whole(spec);
}

void LinuxNetwork::publish(const NetworkSpec& spec) {
    checkSpec(spec);
    setPorts(spec, spec.ports);
}

void LinuxNetwork::unpublish(const NetworkSpec& spec) {
    checkSpec(spec);
    setPorts(spec, {});
}

void LinuxNetwork::setPorts(const NetworkSpec& spec, const std::vector<PortBinding>& ports) const {
    const bool udpBefore = ruleset().publishesUdp(spec.owner);
    ruleset().publish(spec.owner, spec.guest, ports);
    MERGEN_FAILPOINT("network.linux.publish");
    const auto isUdp = [](const PortBinding& port) { return port.protocol == Protocol::Udp; };
    if (!udpBefore && std::ranges::none_of(ports, isUdp)) return;
    if (!ruleset().guestsOf(spec.owner).contains(spec.guest)) return;  // another VM's address, or nobody's
    flows_.settle({{spec.guest, ports}});
}

void LinuxNetwork::takeDown(const NetworkSpec& spec) const {
    Teardown teardown;
    // Both shapes are looked for: the wire may be from before the setting was changed. Taps first: while one is there,
    // its filter is.
    std::set<std::string> links{NetnsTopology::hostLink(spec.owner)};
    for (const Card& card : cardsOf(spec)) {
        links.insert(card.tap.str());
        teardown.step([&] {
            MERGEN_FAILPOINT("network.linux.detach.tap");
            Rtnetlink host;
            const auto tap = host.findLink(card.tap.str());
            if (tap && tap->alias == spec.owner.str()) links_.remove(host, *tap);
        });
    }
    teardown.step([] { MERGEN_FAILPOINT("network.linux.detach.link"); });
    teardown.step([&] { names_.remove(spec.netns, spec.owner); });
    teardown.step([] { MERGEN_FAILPOINT("network.linux.detach.name"); });
    teardown.step([&] { dismiss(spec.owner, std::move(links)); });
    teardown.finish();
}

void LinuxNetwork::dismiss(const OwnerTag& owner, std::set<std::string> links) const {
    Departures::Guest guest{owner, {}, std::move(links)};
    Teardown teardown;
    teardown.step([&] { guest.addresses = ruleset().guestsOf(owner); });
    // At once: a flow of a port that is still published would be there again at its next packet, and what is left in
    // the VM's namespace, if anything is, would still be heard.
    teardown.step([&] { ruleset().dismiss(owner); });
    teardown.step([] { MERGEN_FAILPOINT("network.linux.detach.unpublished"); });
    departures().add(std::move(guest));
    teardown.finish();
}

void LinuxNetwork::expel(const std::vector<Departures::Guest>& guests) const {
    MERGEN_FAILPOINT("network.linux.detach.uplink");
    // The kernel takes a namespace's links away with it, many at once and at its leisure: what is left is of one that
    // some process keeps, or that somebody cannot wait for.
    Rtnetlink host;
    for (const Departures::Guest& guest : guests) {
        for (const std::string& name : guest.links) {
            const auto link = host.findLink(name);
            if (link && NetnsTopology::owns(guest.owner, *link)) links_.remove(host, *link);
        }
    }
    // In this order: while the link is there, its filter is; and the guest's address in the filter says, should we be
    // killed, that its flows are still to be forgotten.
    SharedConntrack::Changes gone;
    for (const Departures::Guest& guest : guests) {
        std::set<Ipv4Address> addresses = ruleset().guestsOf(guest.owner);
        addresses.insert(guest.addresses.begin(), guest.addresses.end());
        for (const Ipv4Address address : addresses) gone.push_back({address, {}});
    }
    if (!gone.empty()) {
        flows_.settle(std::move(gone));
        MERGEN_FAILPOINT("network.linux.detach.flows");
    }
    for (const Departures::Guest& guest : guests) ruleset().expel(guest.owner);
    MERGEN_FAILPOINT("network.linux.detach.filter");
}

void LinuxNetwork::awaitDeparture(const NetworkSpec& spec) const {
    departures().await(spec.owner, addressesOf(spec));
}

void LinuxNetwork::detach(const NetworkSpec& spec) {
    checkSpec(spec);
    takeDown(spec);
}

std::vector<NetworkFinding> LinuxNetwork::list() const {
    departures().awaitAll();
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
    std::set<std::string> links;
    teardown.step([&] {
        for (const Link& link : Rtnetlink().links()) {
            const bool hostEnd = link.name == NetnsTopology::hostLink(owner) && NetnsTopology::owns(owner, link);
            if (!hostEnd && link.alias != owner.str()) continue;
            links.insert(link.name);
            teardown.step([&] {
                Rtnetlink host;
                links_.remove(host, link);
            });
        }
    });
    teardown.step([&] {
        for (const std::string& name : names_.names()) names_.remove(name, owner);
    });
    teardown.step([&] { dismiss(owner, std::move(links)); });
    teardown.step([&] { departures().await(owner, {}); });
    teardown.finish();
}

}  // namespace mergen::network
