// Who reaches whom, with real packets: guests played by namespaces behind the taps of VMs, and neighbours of the host.
#include <memory>
#include <optional>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <mergen/base/file.hpp>

#include "linux_network.hpp"
#include "network_fixture.hpp"
#include "playground.hpp"
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

const NetNamespace* const here = nullptr;  // the host
constexpr const char* hostOnLan = "10.77.0.1";
constexpr const char* lanAddress = "10.77.0.2";
constexpr const char* wanAddress = "10.88.0.2";
constexpr const char* everywhere = "0.0.0.0";

/// A host with two guests, each with a web server on port 80 that is published, and with two other machines around it.
class Reachability : public ::testing::Test {
protected:
    Reachability() {
        start();
        one_ = attach(2, 20001);
        two_ = attach(3, 20002);
        guestOne_.emplace(one_);
        guestTwo_.emplace(two_);
        webOne_.emplace(&guestOne_->space(), "one", everywhere, 80);
        webTwo_.emplace(&guestTwo_->space(), "two", everywhere, 80);
    }
    ~Reachability() override {
        webOne_.reset();
        webTwo_.reset();
        guestOne_.reset();
        guestTwo_.reset();
        network_->detach(one_);
        network_->detach(two_);
        network_->stop();
    }

    void start() {
        network_ = std::make_unique<LinuxNetwork>();
        network_->configure(host_);
        network_->start();
    }
    void stop() {
        network_->stop();
        network_.reset();
    }
    NetworkSpec attach(std::uint32_t number, std::uint16_t port) {
        NetworkSpec spec = mergen::test::networkSpec(host_.instance(), number);
        spec.ports = {{port, Protocol::Tcp, 80}};
        network_->attach(spec);
        network_->publish(spec);
        return spec;
    }
    [[nodiscard]] const NetNamespace* guestOne() const { return &guestOne_->space(); }
    [[nodiscard]] const NetNamespace* guestTwo() const { return &guestTwo_->space(); }

    mergen::test::TestHost host_{LinuxNetwork::keys};
    Neighbour lan_{"lan", hostOnLan, lanAddress};
    Neighbour wan_{"wan", "10.88.0.1", wanAddress};
    std::unique_ptr<LinuxNetwork> network_;
    NetworkSpec one_ = mergen::test::networkSpec(host_.instance(), 2);
    NetworkSpec two_ = mergen::test::networkSpec(host_.instance(), 3);
    std::optional<Guest> guestOne_, guestTwo_;
    std::optional<Server> webOne_, webTwo_;
};

TEST_F(Reachability, PublishedPortIsOpenOnLocalhost) {
    EXPECT_EQ(probe(here, "127.0.0.1", 20001), "one 192.0.0.1");
    EXPECT_EQ(probe(here, "127.0.0.1", 20002), "two 192.0.0.1");
}

TEST_F(Reachability, PublishedPortIsOpenOnTheHostsOwnAddress) {
    EXPECT_EQ(probe(here, hostOnLan, 20001), "one 10.77.0.1");
}

TEST_F(Reachability, PublishedPortIsOpenFromAnotherMachineWhoseAddressTheGuestSees) {
    EXPECT_EQ(probe(&lan_.space(), hostOnLan, 20001), "one 10.77.0.2");
    EXPECT_EQ(probe(&wan_.space(), hostOnLan, 20002), "two 10.88.0.2");
}

TEST_F(Reachability, TheHostReachesAGuestByItsAddress) {
    EXPECT_EQ(probe(here, one_.guest.str(), 80), "one 192.0.0.1");
}

TEST_F(Reachability, AnUnpublishedPortIsRefused) {
    EXPECT_EQ(probe(&lan_.space(), hostOnLan, 20009), "refused");
    EXPECT_EQ(probe(here, "127.0.0.1", 20009), "refused");
    EXPECT_EQ(probe(here, "127.0.0.1", 80), "refused") << "the guest's port number means nothing on the host";
}

TEST_F(Reachability, AGuestReachesTheOutsideUnderTheHostsAddress) {
    const Server web(&lan_.space(), "lan", everywhere, 80);
    EXPECT_EQ(probe(guestOne(), lanAddress, 80), "lan 10.77.0.1");
}

TEST_F(Reachability, TheOutsideDoesNotReachAGuestByItsAddress) {
    EXPECT_EQ(probe(&lan_.space(), one_.guest.str(), 80), "dropped: not published");
    EXPECT_EQ(probe(&lan_.space(), one_.guest.str(), 20001), "dropped: not published");
}

TEST_F(Reachability, AGuestDoesNotReachAGuestOfItsNetwork) {
    EXPECT_EQ(probe(guestTwo(), one_.guest.str(), 80), "unreachable");
    ip(guestTwo(), {"route", "add", one_.guest.str(), "via", two_.gateway.str()});
    // Its own namespace knows no way either, and may or may not get to say so before the guest gives up.
    EXPECT_THAT(probe(guestTwo(), one_.guest.str(), 80), AnyOf("unreachable", "silence"));
}

TEST_F(Reachability, AGuestDoesNotReachAGuestOfAnotherNetwork) {
    NetworkSpec third = mergen::test::networkSpec(host_.instance(), 2);
    third.network = Ipv4Network::parse("172.31.5.0/24");
    third.gateway = third.network.host(1);
    third.guest = third.network.host(2);
    network_->attach(third);
    EXPECT_EQ(probe(guestOne(), third.guest.str(), 80), "dropped: guest to guest");
    network_->detach(third);
}

TEST_F(Reachability, AGuestDoesNotReachAPublishedPortThroughTheHost) {
    EXPECT_EQ(probe(guestTwo(), hostOnLan, 20001), "dropped: guest to guest");
    EXPECT_EQ(probe(guestTwo(), "192.0.0.1", 20001), "dropped: guest to guest");
    EXPECT_EQ(probe(guestOne(), hostOnLan, 20001), "dropped: guest to guest") << "its own neither";
}

TEST_F(Reachability, AGuestDoesNotReachTheHostsServices) {
    const Server open(here, "host", everywhere, 9000);
    EXPECT_EQ(probe(&lan_.space(), hostOnLan, 9000), "host 10.77.0.2") << "the service is there";
    EXPECT_EQ(probe(guestOne(), hostOnLan, 9000), "dropped: guest to host");
    EXPECT_EQ(probe(guestOne(), "192.0.0.1", 9000), "dropped: guest to host");
    EXPECT_EQ(probe(guestOne(), "10.88.0.1", 9000), "dropped: guest to host");
    EXPECT_EQ(probe(guestOne(), one_.gateway.str(), 9000), "refused")
        << "the gateway is the VM's namespace, not the host";
}

TEST_F(Reachability, WhoBrokeOutOfAVmmDoesNotReachTheHostsLoopbackServices) {
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

TEST_F(Reachability, WhoBrokeOutOfAVmmIsNobodyUnderTheNamespacesOwnAddresses) {
    const Server web(&lan_.space(), "lan", everywhere, 80);
    const NetNamespace wire = test::namespaceOf(one_);
    EXPECT_EQ(probe(&wire, lanAddress, 80), "dropped: foreign source");
    EXPECT_EQ(probe(&wire, lanAddress, 80, one_.gateway.str()), "dropped: foreign source");
}

TEST_F(Reachability, AGuestDoesNotReachLinkLocalAddresses) {
    ip(&lan_.space(), {"address", "add", "169.254.169.254/32", "dev", "eth0"});
    ip(here, {"route", "add", "169.254.169.254/32", "via", lanAddress});
    const Server metadata(&lan_.space(), "metadata", everywhere, 80);
    EXPECT_EQ(probe(here, "169.254.169.254", 80), "metadata 10.77.0.1") << "the service is there";
    EXPECT_EQ(probe(guestOne(), "169.254.169.254", 80), "dropped: denied network");
}

TEST_F(Reachability, AGuestCannotUseAnAddressThatIsNotItsOwn) {
    const Server web(&lan_.space(), "lan", everywhere, 80);
    ip(guestOne(), {"address", "add", "172.30.0.99/24", "dev", "eth0"});
    ip(guestOne(), {"address", "add", "10.77.0.50/32", "dev", "eth0"});
    EXPECT_EQ(probe(guestOne(), lanAddress, 80, "172.30.0.99"), "dropped: foreign source");
    EXPECT_EQ(probe(guestOne(), lanAddress, 80, "10.77.0.50"), "dropped: foreign source");
    ip(guestOne(), {"address", "add", two_.guest.str() + "/32", "dev", "eth0"});
    EXPECT_EQ(probe(guestOne(), lanAddress, 80, two_.guest.str()), "dropped: foreign source");
    EXPECT_EQ(probe(guestOne(), lanAddress, 80, one_.guest.str()), "lan 10.77.0.1");
}

TEST_F(Reachability, APacketOfAGuestThatBelongsToNoConnectionDoesNotLeaveUnderItsOwnAddress) {
    EXPECT_EQ(test::fateOf(*guestOne(), [] { test::sendReset(lanAddress); }), "dropped: no connection");
}

TEST_F(Reachability, Ipv6FromAWireIsDroppedEvenWhereSomebodyTurnedItOn) {
    const std::string link = "mg-" + one_.owner.vm.short8();
    const std::string off = "ipv6/conf/" + link + "/disable_ipv6";
    const auto shown = readFile("/proc/sys/net/" + off, 64);
    if (!shown) GTEST_SKIP() << "this host has no IPv6";
    EXPECT_EQ(shown, "1\n");
    sysctl(here, off, "0");
    const auto hostEnd = Rtnetlink().findLink(link);
    ASSERT_TRUE(hostEnd && hostEnd->mac);
    // Turned on, the host speaks IPv6 on the wire too, but only what comes in by it is counted.
    EXPECT_EQ(test::fateOf(test::namespaceOf(one_), [&] { test::sendIpv6("uplink", *hostEnd->mac); }),
              "dropped: not IPv4");
}

TEST_F(Reachability, TrafficThatPassesThroughOnAPublishedPortsNumberIsNotCaught) {
    const Server onWan(&wan_.space(), "wan", everywhere, 20001);
    EXPECT_EQ(probe(&lan_.space(), wanAddress, 20001), "wan 10.77.0.2");
    EXPECT_EQ(probe(guestTwo(), wanAddress, 20001), "wan 10.88.0.1");
    EXPECT_EQ(probe(here, wanAddress, 20001), "wan 10.88.0.1");
}

TEST_F(Reachability, PortsAreGoneAfterUnpublishAndOthersStay) {
    network_->unpublish(one_);
    EXPECT_EQ(probe(&lan_.space(), hostOnLan, 20001), "refused");
    EXPECT_EQ(probe(here, "127.0.0.1", 20001), "refused");
    EXPECT_EQ(probe(&lan_.space(), hostOnLan, 20002), "two 10.77.0.2");
}

TEST_F(Reachability, PublishMovesAPortToAnotherPortOfTheGuest) {
    const Server second(guestOne(), "second", everywhere, 81);
    one_.ports = {{20001, Protocol::Tcp, 81}, {20005, Protocol::Tcp, 80}};
    network_->publish(one_);
    EXPECT_EQ(probe(&lan_.space(), hostOnLan, 20001), "second 10.77.0.2");
    EXPECT_EQ(probe(&lan_.space(), hostOnLan, 20005), "one 10.77.0.2");
}

TEST_F(Reachability, ADetachedGuestIsNeitherReachedNorHeard) {
    network_->detach(one_);
    EXPECT_EQ(probe(&lan_.space(), hostOnLan, 20001), "refused");
    EXPECT_EQ(probe(here, one_.guest.str(), 80), "unreachable");
    EXPECT_EQ(probe(guestOne(), hostOnLan, 9000), "unreachable");
    EXPECT_EQ(probe(&lan_.space(), hostOnLan, 20002), "two 10.77.0.2");
}

TEST_F(Reachability, ConnectionsStayOpenWhileTheServerIsAwayAndWhenItComesBack) {
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
    EXPECT_EQ(probe(here, "127.0.0.1", 20001), "one 192.0.0.1");
    network_->attach(one_);
    network_->publish(one_);
    EXPECT_EQ(published->echo("again"), "again");
}

TEST_F(Reachability, RulesThatSomebodyFlushedComeBackWhileTheGuestRuns) {
    mergen::test::runTool({"/usr/sbin/nft", "flush", "ruleset"});
    EXPECT_EQ(probe(&lan_.space(), hostOnLan, 20001), "refused");
    EXPECT_FALSE(network_->inspect(one_));
    network_->attach(one_);
    network_->publish(one_);
    EXPECT_EQ(probe(&lan_.space(), hostOnLan, 20001), "one 10.77.0.2");
    EXPECT_EQ(probe(guestOne(), hostOnLan, 9000), "dropped: guest to host");
}

TEST_F(Reachability, AWireThatLostItsHostEndIsMadeWholeAroundTheRunningGuest) {
    ip(here, {"link", "delete", "mg-" + one_.owner.vm.short8()});
    EXPECT_EQ(probe(&lan_.space(), hostOnLan, 20001), "unreachable");
    network_->attach(one_);
    EXPECT_EQ(probe(&lan_.space(), hostOnLan, 20001), "one 10.77.0.2") << "through the tap that the guest kept open";
}

TEST_F(Reachability, StrictReversePathFilteringOfTheHostDoesNotMatter) {
    for (const char* link : {"all", "default", "lan"}) {
        sysctl(here, std::string("ipv4/conf/") + link + "/rp_filter", "1");
    }
    const NetworkSpec third = attach(4, 20004);
    {
        const Guest guest(third);
        const Server web(&guest.space(), "three", everywhere, 80);
        EXPECT_EQ(probe(&lan_.space(), hostOnLan, 20004), "three 10.77.0.2");
        EXPECT_EQ(probe(here, "127.0.0.1", 20004), "three 192.0.0.1");
        EXPECT_EQ(probe(here, "127.0.0.1", 20001), "one 192.0.0.1");
    }
    network_->detach(third);
    for (const char* link : {"all", "default"}) sysctl(here, std::string("ipv4/conf/") + link + "/rp_filter", "0");
}

}  // namespace

}  // namespace mergen::network
