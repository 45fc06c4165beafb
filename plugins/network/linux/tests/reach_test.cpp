// Who reaches whom, with real packets: guests played by namespaces behind the taps of VMs, and neighbours of the host.
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <mergen/base/file.hpp>
#include <mergen/base/text.hpp>
#include <mergen/sdk/failpoint.hpp>

#include "linux_network.hpp"
#include "network_fixture.hpp"
#include "playground.hpp"
#include "reach_table.hpp"
#include "rtnetlink.hpp"
#include "test_host.hpp"

namespace mergen::network {

namespace {

using test::Guest;
using test::ip;
using test::Neighbour;
using test::probe;
using test::Server;
using test::sysctl;
using ::testing::AnyOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

const NetNamespace* const here = nullptr;  // the host
constexpr const char* hostOnLan = "10.77.0.1";
constexpr const char* lanAddress = "10.77.0.2";
constexpr const char* wanAddress = "10.88.0.2";
constexpr const char* everywhere = "0.0.0.0";

/// A host with two guests, each with a server on port 80 that is published under one number on TCP and UDP, and with
/// two other machines around it; once for each topology. The server's ports are held, as they are while a VM has them.
class Reach : public ::testing::TestWithParam<std::string> {
protected:
    Reach() {
        start();
        wireOne_ = attach(one_);
        wireTwo_ = attach(two_);
        guestOne_.emplace(one_, wireOne_);
        guestTwo_.emplace(two_, wireTwo_);
        webOne_.emplace(&guestOne_->space(), "one", everywhere, 80);
        webTwo_.emplace(&guestTwo_->space(), "two", everywhere, 80);
    }
    ~Reach() override {
        webOne_.reset();
        webTwo_.reset();
        guestOne_.reset();
        guestTwo_.reset();
        network_->detach(one_);
        network_->detach(two_);
        network_->stop();
    }

    /// A server of this topology with these settings beside; what an earlier one made is there.
    void start(std::map<std::string, std::string, std::less<>> settings = {}) {
        settings.emplace("topology", GetParam());
        host_ = std::make_unique<mergen::test::TestHost>(LinuxNetwork::keys, std::move(settings));
        network_ = std::make_unique<LinuxNetwork>();
        network_->configure(*host_);
        network_->start();
    }
    void stop() {
        network_->stop();
        network_.reset();
    }
    void restart(std::map<std::string, std::string, std::less<>> settings) {
        stop();
        start(std::move(settings));
    }
    NetworkAttachment attach(const NetworkSpec& spec) {
        for (const PortBinding& port : spec.ports) EXPECT_TRUE(network_->holdPort(port.protocol, port.host));
        NetworkAttachment wire = network_->attach(spec);
        network_->publish(spec);
        return wire;
    }
    static NetworkSpec vm(std::uint32_t number, std::uint16_t port) {
        NetworkSpec spec = mergen::test::networkSpec("0a1b2c3d", number);
        if (port != 0) spec.ports = {{port, Protocol::Tcp, 80}, {port, Protocol::Udp, 80}};
        return spec;
    }
    [[nodiscard]] bool netns() const { return GetParam() == "netns"; }
    [[nodiscard]] const NetNamespace* guestOne() const { return &guestOne_->space(); }
    [[nodiscard]] const NetNamespace* guestTwo() const { return &guestTwo_->space(); }
    /// The host's end of a VM's wire, and its address there: what a guest sees as the source of what the host sends.
    [[nodiscard]] std::string wireLink(const NetworkSpec& spec) const {
        return netns() ? "mg-" + spec.owner.vm.short8() : spec.tap.str();
    }
    [[nodiscard]] std::string hostOnWire() const { return netns() ? "192.0.0.1" : one_.gateway.str(); }

    /// A line of the table for each protocol: what `from` (null: the host) gets of `to`. `as` is how the table calls
    /// the two.
    void expectReach(const std::pair<std::string, std::string>& as, const NetNamespace* from,
                     const std::string& address, std::uint16_t port, const std::string& promised,
                     const std::string& promisedOnUdp = "") const {
        for (const Protocol protocol : {Protocol::Tcp, Protocol::Udp}) {
            const bool udp = protocol == Protocol::Udp;
            const std::string& expected = udp && !promisedOnUdp.empty() ? promisedOnUdp : promised;
            const std::string outcome = probe(from, address, port, {}, protocol);
            EXPECT_EQ(outcome, expected) << as.first << " to " << as.second << " " << toString(protocol);
            test::record(GetParam(), as.first, as.second + " " + std::string(toString(protocol)), outcome,
                         outcome == expected);
        }
    }

    std::unique_ptr<mergen::test::TestHost> host_;
    Neighbour lan_{"lan", hostOnLan, lanAddress};
    Neighbour wan_{"wan", "10.88.0.1", wanAddress};
    std::unique_ptr<LinuxNetwork> network_;
    NetworkSpec one_ = vm(2, 20001);
    NetworkSpec two_ = vm(3, 20002);
    NetworkAttachment wireOne_, wireTwo_;
    std::optional<Guest> guestOne_, guestTwo_;
    std::optional<Server> webOne_, webTwo_;
};
INSTANTIATE_TEST_SUITE_P(Topology, Reach, ::testing::Values("netns", "tap"),
                         [](const auto& topology) { return topology.param; });

/// What only a namespace of the VM's own promises.
class ReachNetns : public Reach {};
INSTANTIATE_TEST_SUITE_P(Topology, ReachNetns, ::testing::Values("netns"),
                         [](const auto& topology) { return topology.param; });

// --- published ports ---

TEST_P(Reach, PublishedPortIsOpenOnLocalhost) {
    expectReach({"host", "127.0.0.1:published"}, here, "127.0.0.1", 20001, "one " + hostOnWire());
    EXPECT_EQ(probe(here, "127.0.0.1", 20002), "two " + hostOnWire());
}

TEST_P(Reach, PublishedPortIsOpenOnTheHostsOwnAddress) {
    expectReach({"host", "host:published"}, here, hostOnLan, 20001, "one 10.77.0.1");
}

TEST_P(Reach, PublishedPortIsOpenFromAnotherMachineWhoseAddressTheGuestSees) {
    expectReach({"machine", "host:published"}, &lan_.space(), hostOnLan, 20001, "one 10.77.0.2");
    EXPECT_EQ(probe(&wan_.space(), hostOnLan, 20002), "two 10.88.0.2");
}

TEST_P(Reach, TheHostReachesAGuestByItsAddress) {
    expectReach({"host", "guest:any"}, here, one_.guest.str(), 80, "one " + hostOnWire());
}

TEST_P(Reach, AnUnpublishedPortIsRefused) {
    expectReach({"machine", "host:unpublished"}, &lan_.space(), hostOnLan, 20009, "refused");
    EXPECT_EQ(probe(here, "127.0.0.1", 20009), "refused");
    EXPECT_EQ(probe(here, "127.0.0.1", 80), "refused") << "the guest's port number means nothing on the host";
}

TEST_P(Reach, ThePortOfAVmThatDoesNotRunIsRefusedAndItsDatagramsAreSwallowed) {
    network_->unpublish(one_);
    expectReach({"machine", "host:port of a stopped VM"}, &lan_.space(), hostOnLan, 20001, "refused", "swallowed");
    EXPECT_EQ(probe(here, "127.0.0.1", 20001), "refused");
    EXPECT_EQ(probe(&lan_.space(), hostOnLan, 20002), "two 10.77.0.2") << "others stay";
}

TEST_P(Reach, TheOutsideDoesNotReachAGuestByItsAddress) {
    // The neighbour's default route leads here: it has a way.
    expectReach({"machine", "guest:any, by a route"}, &lan_.space(), one_.guest.str(), 80, "dropped: not published");
    EXPECT_EQ(probe(&lan_.space(), one_.guest.str(), 20001), "dropped: not published");
    ip(&lan_.space(), {"route", "delete", "default"});
    expectReach({"machine", "guest:any, without a route"}, &lan_.space(), one_.guest.str(), 80, "unreachable");
    expectReach({"machine", "host:published"}, &lan_.space(), hostOnLan, 20001, "one 10.77.0.2");
}

TEST_P(Reach, TrafficThatPassesThroughOnAPublishedPortsNumberIsNotCaught) {
    const Server onWan(&wan_.space(), "wan", everywhere, 20001);
    expectReach({"machine", "other machine:published's number"}, &lan_.space(), wanAddress, 20001, "wan 10.77.0.2");
    expectReach({"guest", "other machine:published's number"}, guestTwo(), wanAddress, 20001, "wan 10.88.0.1");
    expectReach({"host", "other machine:published's number"}, here, wanAddress, 20001, "wan 10.88.0.1");
}

TEST_P(Reach, PublishMovesAPortToAnotherPortOfTheGuest) {
    const Server second(guestOne(), "second", everywhere, 81);
    one_.ports = {{20001, Protocol::Tcp, 81}, {20001, Protocol::Udp, 81}, {20005, Protocol::Tcp, 80}};
    network_->publish(one_);
    EXPECT_EQ(probe(&lan_.space(), hostOnLan, 20001), "second 10.77.0.2");
    EXPECT_EQ(probe(&lan_.space(), hostOnLan, 20001, {}, Protocol::Udp), "second 10.77.0.2");
    EXPECT_EQ(probe(&lan_.space(), hostOnLan, 20005), "one 10.77.0.2");
}

// --- flows that were there before ---

TEST_P(Reach, AUdpFlowFollowsItsPortFromGuestToGuest) {
    const std::pair<const NetNamespace*, std::string> clients[] = {{&lan_.space(), hostOnLan}, {here, "127.0.0.1"}};
    for (const auto& [space, address] : clients) {
        SCOPED_TRACE(address);
        test::UdpClient client(space, address, 20001);
        test::UdpClient other(space, address, 20002);
        EXPECT_THAT(client.ask(), StartsWith("one "));
        EXPECT_THAT(other.ask(), StartsWith("two "));
        NetworkSpec giving = one_;
        giving.ports.clear();
        NetworkSpec taking = two_;
        taking.ports.push_back({20001, Protocol::Udp, 80});

        network_->publish(giving);
        EXPECT_EQ(client.ask(), "swallowed") << "the same socket";
        const unsigned heard = webOne_->heard();
        network_->publish(taking);
        EXPECT_THAT(client.ask(), StartsWith("two ")) << "a flow that began while the port was nobody's";
        EXPECT_EQ(webOne_->heard(), heard);
        EXPECT_THAT(other.ask(), StartsWith("two ")) << "another port's flow goes on";

        network_->publish(two_);
        network_->publish(one_);
        EXPECT_THAT(client.ask(), StartsWith("one ")) << "and back";
    }
}

TEST_P(Reach, AUdpFlowFollowsItsPortWithinAGuest) {
    const Server second(guestOne(), "second", everywhere, 81);
    test::UdpClient client(&lan_.space(), hostOnLan, 20001);
    EXPECT_EQ(client.ask(), "one 10.77.0.2");
    one_.ports = {{20001, Protocol::Udp, 81}};
    network_->publish(one_);
    EXPECT_EQ(client.ask(), "second 10.77.0.2");
    const unsigned heard = webOne_->heard();
    EXPECT_EQ(client.ask(), "second 10.77.0.2");
    EXPECT_EQ(webOne_->heard(), heard);
}

TEST_P(Reach, AUdpFlowIsBroughtInLineByTheNextPublishIfTheServerFailedInBetween) {
    test::UdpClient client(&lan_.space(), hostOnLan, 20001);
    EXPECT_EQ(client.ask(), "one 10.77.0.2");
    failpoint::arm("network.linux.publish=1*error(no)");
    EXPECT_THROW(network_->unpublish(one_), Error);
    EXPECT_EQ(client.ask(), "one 10.77.0.2") << "the rule is gone, the flow is not: else this test tests nothing";
    two_.ports.push_back({20001, Protocol::Udp, 80});
    network_->publish(two_);
    EXPECT_EQ(client.ask(), "two 10.77.0.2");
}

TEST_P(Reach, FlowsThatPassThroughOnAPublishedPortsNumberAreNotForgotten) {
    const std::uint16_t port = netns() ? 20003 : 20004;  // no other test's flows have it
    const Server onWan(&wan_.space(), "wan", everywhere, port);
    const auto flows = [&] {
        std::size_t count = 0;
        for (const std::string& line : split(readFile("/proc/net/nf_conntrack", 16U << 20U).value_or(""), '\n')) {
            count += line.find("dport=" + std::to_string(port)) != std::string::npos ? 1 : 0;
        }
        return count;
    };
    test::UdpClient client(&lan_.space(), wanAddress, port);
    EXPECT_EQ(client.ask(), "wan 10.77.0.2");
    ASSERT_EQ(flows(), 1U);
    one_.ports = {{port, Protocol::Udp, 80}};
    network_->publish(one_);
    EXPECT_EQ(probe(&lan_.space(), hostOnLan, port, {}, Protocol::Udp), "one 10.77.0.2");
    network_->unpublish(one_);
    EXPECT_EQ(flows(), 1U) << "its own are gone, the other is not";
}

TEST_P(Reach, WhoGetsTheAddressOfAVmThatIsGoneGetsNothingOfItsConnections) {
    const auto published = test::connected(&lan_.space(), hostOnLan, 20001);
    const auto local = test::connected(here, "127.0.0.1", 20001);
    test::UdpClient datagrams(&lan_.space(), hostOnLan, 20001);
    ASSERT_TRUE(published && local);
    EXPECT_EQ(published->echo("first"), "first");
    EXPECT_EQ(datagrams.ask(), "one 10.77.0.2");
    guestOne_.reset();  // before its server, which would say goodbye
    network_->detach(one_);
    webOne_.reset();

    one_ = vm(2, 0);  // another VM that was given the same address
    guestOne_.emplace(one_, attach(one_));
    webOne_.emplace(guestOne(), "new", everywhere, 80);
    EXPECT_EQ(published->echo("second"), "") << "reset";
    EXPECT_EQ(local->echo("second"), "");
    EXPECT_EQ(datagrams.ask(), "swallowed");
    EXPECT_EQ(test::resetsSentBy(*guestOne()), 0U) << "a segment of another's connection reached the new guest";
    EXPECT_EQ(webOne_->heard(), 0U);
    one_.ports = {{20001, Protocol::Udp, 80}};
    network_->publish(one_);
    EXPECT_EQ(datagrams.ask(), "new 10.77.0.2") << "a datagram is for whoever has the port";
}

// --- what a guest reaches ---

TEST_P(Reach, AGuestReachesTheOutsideUnderTheHostsAddress) {
    const Server web(&lan_.space(), "lan", everywhere, 80);
    expectReach({"guest", "world"}, guestOne(), lanAddress, 80, "lan 10.77.0.1");
}

TEST_P(Reach, AGuestDoesNotReachAGuestOfItsNetwork) {
    expectReach({"guest", "other guest"}, guestTwo(), one_.guest.str(), 80, "unreachable");
    ip(guestTwo(), {"route", "add", one_.guest.str(), "via", two_.gateway.str()});
    if (netns()) {
        // Its own namespace knows no way either, and may or may not get to say so before the guest gives up.
        EXPECT_THAT(probe(guestTwo(), one_.guest.str(), 80), AnyOf("unreachable", "silence"));
    } else {
        expectReach({"guest", "other guest, by a route"}, guestTwo(), one_.guest.str(), 80, "dropped: guest to guest");
    }
}

TEST_P(Reach, AGuestDoesNotReachAGuestOfAnotherNetwork) {
    NetworkSpec third = vm(2, 0);
    third.network = Ipv4Network::parse("172.31.5.0/24");
    third.gateway = third.network.host(1);
    third.guest = third.network.host(2);
    attach(third);
    expectReach({"guest", "guest of another network"}, guestOne(), third.guest.str(), 80, "dropped: guest to guest");
    network_->detach(third);
}

TEST_P(Reach, AGuestDoesNotReachAPublishedPortThroughTheHost) {
    expectReach({"guest", "host:published of another"}, guestTwo(), hostOnLan, 20001, "dropped: guest to host");
    EXPECT_EQ(probe(guestTwo(), hostOnWire(), 20001), "dropped: guest to host");
    expectReach({"guest", "host:published of its own"}, guestOne(), hostOnLan, 20001, "dropped: guest to host");
}

TEST_P(Reach, AGuestDoesNotReachTheHostsServices) {
    const Server open(here, "host", everywhere, 9000);
    EXPECT_EQ(probe(&lan_.space(), hostOnLan, 9000), "host 10.77.0.2") << "the service is there";
    expectReach({"guest", "host:service"}, guestOne(), hostOnLan, 9000, "dropped: guest to host");
    EXPECT_EQ(probe(guestOne(), hostOnWire(), 9000), "dropped: guest to host");
    EXPECT_EQ(probe(guestOne(), "10.88.0.1", 9000), "dropped: guest to host");
    // With a namespace the gateway is that, not the host.
    expectReach({"guest", "its gateway:service"}, guestOne(), one_.gateway.str(), 9000,
                netns() ? "refused" : "dropped: guest to host");
}

TEST_P(Reach, AGuestDoesNotReachTheHostsLoopbackServices) {
    const Server local(here, "local", "127.0.0.1", 9001);
    EXPECT_EQ(probe(here, "127.0.0.1", 9001), "local 127.0.0.1") << "the service is there";
    // A guest sends what it wants: its own kernel is told to let packets for 127.0.0.1 out.
    ip(guestOne(), {"address", "flush", "dev", "lo"});
    ip(guestOne(), {"rule", "add", "pref", "1", "lookup", "100"});
    sysctl(guestOne(), "ipv4/conf/eth0/route_localnet", "1");
    ip(guestOne(), {"route", "add", "127.0.0.1/32", "via", one_.gateway.str(), "dev", "eth0", "onlink", "src",
                    one_.guest.str(), "table", "100"});
    const std::string outcome = probe(guestOne(), "127.0.0.1", 9001);
    // Its namespace takes no such packet (a martian); where there is none, our rule does not.
    EXPECT_EQ(outcome, netns() ? "silence" : "dropped: to loopback");
    test::record(GetParam(), "guest", "host's 127.0.0.1:service tcp", outcome,
                 outcome == (netns() ? "silence" : "dropped: to loopback"));
}

TEST_P(ReachNetns, WhoBrokeOutOfAVmmDoesNotReachTheHostsLoopbackServices) {
    const Server local(here, "local", "127.0.0.1", 9001);
    EXPECT_EQ(probe(here, "127.0.0.1", 9001), "local 127.0.0.1") << "the service is there";
    // With all rights in the VM's namespace, and the guest's address: nearer than a guest can come.
    const NetNamespace wire = test::namespaceOf(one_);
    ip(&wire, {"address", "flush", "dev", "lo"});
    sysctl(&wire, "ipv4/conf/uplink/route_localnet", "1");
    ip(&wire, {"address", "add", one_.guest.str() + "/32", "dev", "uplink"});
    ip(&wire, {"route", "add", "127.0.0.1/32", "via", "192.0.0.1", "dev", "uplink", "onlink", "src", one_.guest.str()});
    EXPECT_EQ(probe(&wire, "127.0.0.1", 9001), "dropped: to loopback");
}

TEST_P(ReachNetns, WhoBrokeOutOfAVmmIsNobodyUnderTheNamespacesOwnAddresses) {
    const Server web(&lan_.space(), "lan", everywhere, 80);
    const NetNamespace wire = test::namespaceOf(one_);
    EXPECT_EQ(probe(&wire, lanAddress, 80), "dropped: foreign source");
    EXPECT_EQ(probe(&wire, lanAddress, 80, one_.gateway.str()), "dropped: foreign source");
}

TEST_P(Reach, AGuestDoesNotReachWhatOthersPublishOnTheHostsAddresses) {
    const Server web(&wan_.space(), "wan", everywhere, 80);
    mergen::test::runTool({"/usr/sbin/nft", R"(table ip others {
        chain publish { type nat hook prerouting priority dstnat;
            fib daddr type local meta l4proto { tcp, udp } th dport 30001 dnat to )" +
                                                std::string(wanAddress) + R"(:80
        }
    })"});
    EXPECT_EQ(probe(&lan_.space(), hostOnLan, 30001), "wan " + std::string(lanAddress)) << "the service is there";
    expectReach({"guest", "host:published by others"}, guestOne(), hostOnLan, 30001, "dropped: guest to host");
    mergen::test::runTool({"/usr/sbin/nft", "delete table ip others"});
}

TEST_P(Reach, AGuestDoesNotReachLinkLocalAddresses) {
    ip(&lan_.space(), {"address", "add", "169.254.169.254/32", "dev", "eth0"});
    ip(here, {"route", "add", "169.254.169.254/32", "via", lanAddress});
    const Server metadata(&lan_.space(), "metadata", everywhere, 80);
    EXPECT_EQ(probe(here, "169.254.169.254", 80), "metadata 10.77.0.1") << "the service is there";
    expectReach({"guest", "169.254.169.254"}, guestOne(), "169.254.169.254", 80, "dropped: denied network");
}

TEST_P(Reach, AGuestCannotUseAnAddressThatIsNotItsOwn) {
    const Server web(&lan_.space(), "lan", everywhere, 80);
    ip(guestOne(), {"address", "add", "172.30.0.99/24", "dev", "eth0"});
    ip(guestOne(), {"address", "add", "10.77.0.50/32", "dev", "eth0"});
    EXPECT_EQ(probe(guestOne(), lanAddress, 80, "172.30.0.99"), "dropped: foreign source");
    EXPECT_EQ(probe(guestOne(), lanAddress, 80, "10.77.0.50"), "dropped: foreign source");
    ip(guestOne(), {"address", "add", two_.guest.str() + "/32", "dev", "eth0"});
    EXPECT_EQ(probe(guestOne(), lanAddress, 80, two_.guest.str()), "dropped: foreign source");
    EXPECT_EQ(probe(guestOne(), lanAddress, 80, one_.guest.str()), "lan 10.77.0.1");
}

TEST_P(Reach, APacketOfAGuestThatBelongsToNoConnectionDoesNotLeaveUnderItsOwnAddress) {
    EXPECT_EQ(test::fateOf(*guestOne(), [] { test::sendReset(lanAddress); }), "dropped: no connection");
}

TEST_P(Reach, NothingAnswersOnIpv6) {
    if (!readFile("/proc/sys/net/ipv6/conf/all/disable_ipv6", 64)) GTEST_SKIP() << "this host has no IPv6";
    ip(here, {"-6", "address", "add", "fd77::1/64", "dev", "lan", "nodad"});
    ip(&lan_.space(), {"-6", "address", "add", "fd77::2/64", "dev", "eth0", "nodad"});
    expectReach({"host", "[::1]:published"}, here, "::1", 20001, "refused", "swallowed");
    expectReach({"machine", "[host's IPv6]:published"}, &lan_.space(), "fd77::1", 20001, "refused", "swallowed");
}

TEST_P(Reach, Ipv6FromAWireIsDroppedEvenWhereSomebodyTurnedItOn) {
    const std::string off = "ipv6/conf/" + wireLink(one_) + "/disable_ipv6";
    const auto shown = readFile("/proc/sys/net/" + off, 64);
    if (!shown) GTEST_SKIP() << "this host has no IPv6";
    EXPECT_EQ(shown, "1\n");
    sysctl(here, off, "0");
    const auto hostEnd = Rtnetlink().findLink(wireLink(one_));
    ASSERT_TRUE(hostEnd && hostEnd->mac);
    // Turned on, the host speaks IPv6 on the wire too, but only what comes in by it is counted. With a namespace the
    // guest's own IPv6 ends in there: who broke out of the VMM is nearer.
    const NetNamespace wire = netns() ? test::namespaceOf(one_) : NetNamespace::current();
    const std::string outcome =
        test::fateOf(netns() ? wire : *guestOne(), [&] { test::sendIpv6(netns() ? "uplink" : "eth0", *hostEnd->mac); });
    EXPECT_EQ(outcome, "dropped: not IPv4");
    test::record(GetParam(), "guest", "host, by IPv6", outcome, outcome == "dropped: not IPv4");
}

TEST_P(Reach, EgressNoneLetsNothingOutButQuestionsToTheNameServers) {
    restart({{"egress", "none"}, {"dns", lanAddress}});
    const Server web(&lan_.space(), "lan", everywhere, 80);
    const Server names(&lan_.space(), "names", everywhere, 53);
    const Server others(&wan_.space(), "others", everywhere, 53);
    expectReach({"guest", "world, egress = none"}, guestOne(), lanAddress, 80, "dropped: egress policy");
    expectReach({"guest", "name server, egress = none"}, guestOne(), lanAddress, 53, "names 10.77.0.1");
    expectReach({"guest", "other name server, egress = none"}, guestOne(), wanAddress, 53, "dropped: egress policy");
    expectReach({"machine", "host:published, egress = none"}, &lan_.space(), hostOnLan, 20001, "one 10.77.0.2");
}

TEST_P(Reach, EgressListedLetsOutToTheListedNetworksWithoutTheDenied) {
    restart({{"egress", "listed"}, {"allowed_networks", "10.77.0.0/24"}});
    const Server web(&lan_.space(), "lan", everywhere, 80);
    const Server far(&wan_.space(), "wan", everywhere, 80);
    expectReach({"guest", "listed network, egress = listed"}, guestOne(), lanAddress, 80, "lan 10.77.0.1");
    expectReach({"guest", "world, egress = listed"}, guestOne(), wanAddress, 80, "dropped: egress policy");
    restart({{"egress", "listed"}, {"allowed_networks", "10.77.0.0/24"}, {"denied_networks", lanAddress}});
    expectReach({"guest", "listed and denied, egress = listed"}, guestOne(), lanAddress, 80, "dropped: denied network");
}

TEST_P(Reach, EgressOpenLetsOutToAllButTheDeniedNetworks) {
    restart({{"denied_networks", "10.88.0.0/24"}, {"dns", lanAddress}});
    const Server web(&lan_.space(), "lan", everywhere, 80);
    EXPECT_EQ(probe(guestOne(), lanAddress, 80), "lan 10.77.0.1");
    expectReach({"guest", "denied network"}, guestOne(), wanAddress, 80, "dropped: denied network");
    EXPECT_EQ(probe(&wan_.space(), "10.88.0.1", 20001), "one 10.88.0.2") << "who asks gets its answer";
}

TEST_P(Reach, AForeignForwardChainThatDropsIsOvercomeByWhatTheWarningSays) {
    const Server web(&wan_.space(), "wan", everywhere, 80);
    // As Docker's iptables-nft leaves it, with a counter to see it by.
    mergen::test::runTool({"/usr/sbin/nft", R"(table ip filter {
        chain DOCKER-USER { counter return
        }
        chain FORWARD { type filter hook forward priority filter; policy drop;
            counter jump DOCKER-USER
            counter drop comment "Docker's"
        }
    })"});
    EXPECT_THAT(network_->health().detail, HasSubstr("ip filter FORWARD (policy drop)"));
    EXPECT_EQ(probe(&lan_.space(), hostOnLan, 20001), "dropped: Docker's");
    EXPECT_EQ(probe(guestOne(), wanAddress, 80), "dropped: Docker's");
    EXPECT_EQ(probe(here, "127.0.0.1", 20001), "one " + hostOnWire());
    for (const char* const direction : {"iifname", "oifname"}) {
        const std::string links = netns() ? " \"mg-*\" " : " \"tap-*\" ";
        mergen::test::runTool({"/usr/sbin/nft", "insert rule ip filter DOCKER-USER " + std::string(direction) + links +
                                                    "counter accept"});
    }
    EXPECT_EQ(probe(&lan_.space(), hostOnLan, 20001), "one 10.77.0.2");
    EXPECT_EQ(probe(guestOne(), wanAddress, 80), "wan 10.88.0.1");
    EXPECT_EQ(probe(guestTwo(), hostOnLan, 20001), "dropped: guest to host") << "our filter stands";
    EXPECT_THAT(network_->health().detail, Not(HasSubstr("FORWARD")));
    mergen::test::runTool({"/usr/sbin/nft", "delete table ip filter"});
}

TEST_P(Reach, ADetachedGuestIsNeitherReachedNorHeard) {
    network_->detach(one_);
    EXPECT_EQ(probe(&lan_.space(), hostOnLan, 20001), "refused");
    // A namespace that something is left in, as here, is taken off the host a moment later; until then nothing that
    // comes of it is let in.
    const auto unheard = AnyOf("unreachable", netns() ? "dropped: foreign source" : "unreachable");
    EXPECT_THAT(probe(here, one_.guest.str(), 80), unheard);
    EXPECT_THAT(probe(guestOne(), hostOnLan, 9000), unheard);
    EXPECT_THAT(probe(guestOne(), lanAddress, 80), unheard);
    EXPECT_EQ(network_->list().size(), 1U) << "the other guest";
    EXPECT_EQ(probe(here, one_.guest.str(), 80), "unreachable");
    EXPECT_EQ(probe(guestOne(), hostOnLan, 9000), "unreachable");
    EXPECT_EQ(probe(&lan_.space(), hostOnLan, 20002), "two 10.77.0.2");
}

TEST_P(Reach, ConnectionsStayOpenWhileTheServerIsAwayAndWhenItComesBack) {
    const auto published = test::connected(&lan_.space(), hostOnLan, 20001);
    const auto local = test::connected(here, "127.0.0.1", 20001);
    const Server web(&lan_.space(), "lan", everywhere, 80);
    const auto outgoing = test::connected(guestOne(), lanAddress, 80);
    ASSERT_TRUE(published && local && outgoing);
    stop();
    EXPECT_EQ(published->echo("away"), "away");
    EXPECT_EQ(local->echo("away"), "away");
    EXPECT_EQ(outgoing->echo("away"), "away");
    EXPECT_EQ(probe(&lan_.space(), hostOnLan, 20001), "one 10.77.0.2") << "new ones come in without a server too";
    EXPECT_EQ(probe(guestOne(), hostOnLan, 9000), "dropped: guest to host") << "and the filter stands";
    start();
    EXPECT_EQ(published->echo("back"), "back");
    EXPECT_EQ(local->echo("back"), "back");
    EXPECT_EQ(outgoing->echo("back"), "back");
    EXPECT_EQ(probe(here, "127.0.0.1", 20001), "one " + hostOnWire());
    network_->attach(one_);
    network_->publish(one_);
    EXPECT_EQ(published->echo("again"), "again");
}

TEST_P(Reach, RulesThatSomebodyFlushedComeBackWhileTheGuestRuns) {
    mergen::test::runTool({"/usr/sbin/nft", "flush", "ruleset"});
    EXPECT_EQ(probe(&lan_.space(), hostOnLan, 20001), "refused");
    EXPECT_FALSE(network_->inspect(one_));
    network_->attach(one_);
    network_->publish(one_);
    EXPECT_EQ(probe(&lan_.space(), hostOnLan, 20001), "one 10.77.0.2");
    EXPECT_EQ(probe(guestOne(), hostOnLan, 9000), "dropped: guest to host");
}

TEST_P(ReachNetns, AWireThatLostItsHostEndIsMadeWholeAroundTheRunningGuest) {
    ip(here, {"link", "delete", "mg-" + one_.owner.vm.short8()});
    EXPECT_EQ(probe(&lan_.space(), hostOnLan, 20001), "unreachable");
    network_->attach(one_);
    EXPECT_EQ(probe(&lan_.space(), hostOnLan, 20001), "one 10.77.0.2") << "through the tap that the guest kept open";
}

TEST_P(Reach, StrictReversePathFilteringOfTheHostDoesNotMatter) {
    for (const char* link : {"all", "default", "lan"}) {
        sysctl(here, std::string("ipv4/conf/") + link + "/rp_filter", "1");
    }
    const NetworkSpec third = vm(4, 20004);
    const NetworkAttachment wire = attach(third);
    {
        const Guest guest(third, wire);
        const Server web(&guest.space(), "three", everywhere, 80);
        EXPECT_EQ(probe(&lan_.space(), hostOnLan, 20004), "three 10.77.0.2");
        EXPECT_EQ(probe(here, "127.0.0.1", 20004), "three " + hostOnWire());
        EXPECT_EQ(probe(here, "127.0.0.1", 20001), "one " + hostOnWire());
    }
    network_->detach(third);
    for (const char* link : {"all", "default"}) sysctl(here, std::string("ipv4/conf/") + link + "/rp_filter", "0");
}

}  // namespace

}  // namespace mergen::network
