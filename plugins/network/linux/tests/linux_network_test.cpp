// What only this backend promises: foreign objects stay, half-made things are completed, a failure or a kill at any
// step leaves nothing behind.
#include "linux_network.hpp"

#include <array>
#include <fcntl.h>
#include <filesystem>
#include <functional>
#include <linux/capability.h>
#include <memory>
#include <netinet/in.h>
#include <optional>
#include <ostream>
#include <string>
#include <string_view>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <mergen/base/file.hpp>
#include <mergen/sdk/failpoint.hpp>

#include "network_fixture.hpp"
#include "playground.hpp"
#include "rtnetlink.hpp"
#include "sysctl.hpp"
#include "test_host.hpp"

namespace mergen::network {

namespace {

using mergen::test::difference;
using mergen::test::errorOf;
using mergen::test::hostSnapshot;
using mergen::test::networkSpec;
using mergen::test::openNamespaces;
using mergen::test::runTool;
using mergen::test::settledSnapshot;
using test::ip;
using test::namespaceOf;
using ::testing::AllOf;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;

const NetNamespace* const here = nullptr;  // the host

/// A setting of `topology`, and every step of attach() and detach() at which it can fail or be killed, in order.
struct Shape {
    std::string topology;
    std::vector<std::string> attachSteps, detachSteps;
};
/// What detach() leaves to be done after its return.
constexpr std::array departureSteps{"detach.uplink", "detach.flows", "detach.filter"};
void PrintTo(const Shape& shape, std::ostream* out) {
    *out << shape.topology;
}
const std::array shapes{
    Shape{"netns",
          {"attach.filter", "attach.namespace", "attach.tap.made", "attach.tap", "attach.veth", "attach.inside",
           "attach.tagged", "attach.up", "attach.route", "attach.file", "attach.named"},
          {"detach.tap", "detach.link", "detach.unmounted", "detach.name", "detach.unpublished"}},
    Shape{"tap",
          {"attach.filter", "attach.tap.made", "attach.tap", "attach.up", "attach.route"},
          {"detach.tap", "detach.link", "detach.name", "detach.unpublished"}},
};
constexpr std::array startSteps{"start.mount", "start.table", "start.forward"};

std::string failpointOf(std::string_view step, std::string_view action) {
    return "network.linux." + std::string(step) + "=1*" + std::string(action);
}

/// A TestHost that says that it is another server.
class OtherHost final : public Host {
public:
    explicit OtherHost(mergen::test::TestHost& like) : like_(like) {}
    [[nodiscard]] const Settings& settings() const noexcept override { return like_.settings(); }
    [[nodiscard]] Log& log() noexcept override { return like_.log(); }
    [[nodiscard]] const HostPaths& paths() const noexcept override { return like_.paths(); }
    [[nodiscard]] const std::string& instance() const noexcept override { return instance_; }
    [[nodiscard]] const NetworkPlan& networkPlan() const noexcept override { return like_.networkPlan(); }

private:
    mergen::test::TestHost& like_;
    std::string instance_ = "deadbeef";
};

class LinuxNetworkTest : public ::testing::Test {
protected:
    explicit LinuxNetworkTest(const std::string& topology = "netns")
        : host_(LinuxNetwork::keys, {{"topology", topology}}), untouched_(hostSnapshot()) {
        start();
        started_ = hostSnapshot();
    }
    ~LinuxNetworkTest() override {
        failpoint::arm("");
        if (network_) {
            network_->detach(spec_);
            network_->stop();
        }
        EXPECT_EQ(difference(untouched_, settledSnapshot(untouched_)), "") << "something is left on the host";
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

    /// Runs `work` in a child that has a server of its own on the same folders; true if it was killed by a failpoint.
    bool killedWhile(const std::string& failpoints, const std::function<void(LinuxNetwork&)>& work) {
        const pid_t child = ::fork();
        if (child == 0) {
            try {
                LinuxNetwork server;
                server.configure(host_);
                failpoint::arm(failpoints);
                server.start();
                work(server);
                ::_exit(0);
            } catch (const Error& error) {
                std::fprintf(stderr, "%s\n", error.what());
                ::_exit(1);
            }
        }
        int status = 0;
        EXPECT_EQ(::waitpid(child, &status, 0), child);
        return WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
    }

    void expectRefused(const NetworkSpec& spec, const std::string& names) {
        const std::string before = hostSnapshot();
        for (const auto& action : {std::function<void()>([&] { network_->checkNames(spec); }),
                                   std::function<void()>([&] { network_->attach(spec); })}) {
            const auto error = errorOf(action);
            ASSERT_TRUE(error);
            EXPECT_EQ(error->kind(), ErrorKind::AlreadyExists) << error->what();
            EXPECT_THAT(error->what(), HasSubstr(names));
            EXPECT_EQ(difference(before, settledSnapshot(before)), "");
        }
        network_->detach(spec);
        network_->removeStray(spec.owner);
        EXPECT_EQ(difference(before, settledSnapshot(before)), "") << "detach took what is not the VM's";
    }

    /// What list() says of the one VM.
    [[nodiscard]] std::vector<std::string> elements() const {
        const auto findings = network_->list();
        return findings.size() == 1 ? findings.front().objects : std::vector<std::string>();
    }
    [[nodiscard]] std::string hostLink() const { return "mg-" + spec_.owner.vm.short8(); }
    [[nodiscard]] std::string handle() const { return "/run/netns/" + spec_.netns; }

    mergen::test::TestHost host_;
    NetworkSpec spec_ = withPort(networkSpec(host_.instance(), 2), 20001);
    std::string untouched_, started_;
    std::unique_ptr<LinuxNetwork> network_;

    static NetworkSpec withPort(NetworkSpec spec, std::uint16_t port) {
        spec.ports = {{port, Protocol::Tcp, 80}};
        return spec;
    }
};

/// The same on both shapes.
class EitherShape : public LinuxNetworkTest, public ::testing::WithParamInterface<Shape> {
protected:
    EitherShape() : LinuxNetworkTest(GetParam().topology) {}
};
INSTANTIATE_TEST_SUITE_P(Topology, EitherShape, ::testing::ValuesIn(shapes),
                         [](const auto& shape) { return shape.param.topology; });

// --- failures and kills ---

TEST_P(EitherShape, AFailureAtAnyStepOfAttachLeavesNothing) {
    for (const std::string& step : GetParam().attachSteps) {
        SCOPED_TRACE(step);
        failpoint::arm(failpointOf(step, "error(no)"));
        const auto error = errorOf([&] { network_->attach(spec_); });
        ASSERT_TRUE(error);
        EXPECT_THAT(error->what(), HasSubstr(step));
        EXPECT_THAT(network_->list(), IsEmpty());
        EXPECT_EQ(difference(started_, settledSnapshot(started_)), "");
        network_->attach(spec_);  // the failpoint is spent
        EXPECT_TRUE(network_->inspect(spec_));
        network_->detach(spec_);
    }
}

TEST_P(EitherShape, AFailureAtAnyStepOfDetachDoesNotKeepTheOthersFromBeingDone) {
    for (const std::string& step : GetParam().detachSteps) {
        SCOPED_TRACE(step);
        network_->attach(spec_);
        network_->publish(spec_);
        failpoint::arm(failpointOf(step, "error(no)"));
        EXPECT_TRUE(errorOf([&] { network_->detach(spec_); }));
        // What was interrupted itself is tried again with the next detach.
        EXPECT_TRUE(network_->list().empty() || step == "detach.unmounted");
        network_->detach(spec_);
        EXPECT_THAT(network_->list(), IsEmpty());
        EXPECT_EQ(difference(started_, settledSnapshot(started_)), "");
    }
}

TEST_P(EitherShape, AServerKilledAtAnyStepOfAttachLeavesWhatDetachTakesAway) {
    for (const std::string& step : GetParam().attachSteps) {
        SCOPED_TRACE(step);
        ASSERT_TRUE(killedWhile(failpointOf(step, "crash"), [&](LinuxNetwork& server) { server.attach(spec_); }));
        network_->detach(spec_);
        EXPECT_THAT(network_->list(), IsEmpty());
        EXPECT_EQ(difference(started_, settledSnapshot(started_)), "");
    }
}

TEST_P(EitherShape, AServerKilledAtAnyStepOfAttachLeavesWhatRemoveStrayTakesAway) {
    for (const std::string& step : GetParam().attachSteps) {
        SCOPED_TRACE(step);
        ASSERT_TRUE(killedWhile(failpointOf(step, "crash"), [&](LinuxNetwork& server) { server.attach(spec_); }));
        const auto findings = network_->list();
        ASSERT_THAT(findings, SizeIs(1)) << "what is left tells whose it is";
        EXPECT_EQ(findings.front().owner, spec_.owner);
        network_->removeStray(spec_.owner);
        EXPECT_THAT(network_->list(), IsEmpty());
        EXPECT_EQ(difference(started_, settledSnapshot(started_)), "");
    }
}

TEST_P(EitherShape, AServerKilledAtAnyStepOfAttachLeavesWhatAttachCompletes) {
    for (const std::string& step : GetParam().attachSteps) {
        SCOPED_TRACE(step);
        ASSERT_TRUE(killedWhile(failpointOf(step, "crash"), [&](LinuxNetwork& server) { server.attach(spec_); }));
        network_->attach(spec_);
        network_->publish(spec_);
        EXPECT_TRUE(network_->inspect(spec_));
        network_->detach(spec_);
        EXPECT_EQ(difference(started_, settledSnapshot(started_)), "");
    }
}

TEST_P(EitherShape, WhatIsLeftOfADetachThatFailedIsDoneBeforeAnotherVmHasTheAddress) {
    for (const char* step : departureSteps) {
        SCOPED_TRACE(step);
        network_->attach(spec_);
        network_->publish(spec_);
        failpoint::arm(failpointOf(step, "error(no)"));
        network_->detach(spec_);
        EXPECT_EQ(network_->list().empty(), step == departureSteps.back()) << "what stays is not hidden";
        NetworkSpec heir = networkSpec(host_.instance(), 3);
        heir.guest = spec_.guest;
        network_->attach(heir);
        const auto findings = network_->list();
        ASSERT_THAT(findings, SizeIs(1));
        EXPECT_EQ(findings.front().owner, heir.owner);
        network_->detach(heir);
        EXPECT_THAT(network_->list(), IsEmpty());
        EXPECT_EQ(difference(started_, settledSnapshot(started_)), "");
    }
}

TEST_P(EitherShape, AnotherVmMayHaveTheAddressAtOnce) {
    NetworkSpec heir = networkSpec(host_.instance(), 3);
    heir.guest = spec_.guest;
    network_->attach(spec_);
    network_->detach(spec_);
    network_->checkNames(heir);
    network_->attach(heir);
    network_->detach(heir);
    network_->reserve(spec_);
    network_->attach(spec_);
    EXPECT_TRUE(network_->inspect(spec_));
}

TEST_F(LinuxNetworkTest, TheLinkToANamespaceThatSomebodyKeepsGoesAllTheSame) {
    network_->attach(spec_);
    const NetNamespace kept = namespaceOf(spec_);
    network_->detach(spec_);
    EXPECT_EQ(difference(started_, settledSnapshot(started_)), "");
    EXPECT_THAT(network_->list(), IsEmpty());
}

TEST_P(EitherShape, AVmWhoseDetachFailsAgainAndAgainIsNotAttached) {
    network_->attach(spec_);
    failpoint::arm("network.linux.detach.flows=error(no)");
    network_->detach(spec_);
    const auto error = errorOf([&] { network_->attach(spec_); });
    ASSERT_TRUE(error);
    EXPECT_THAT(error->what(), HasSubstr("detach.flows"));
    // Another VM is not to wait for it: it gets the next address.
    NetworkSpec heir = networkSpec(host_.instance(), 3);
    heir.guest = spec_.guest;
    const auto taken = errorOf([&] { network_->checkNames(heir); });
    ASSERT_TRUE(taken);
    EXPECT_EQ(taken->kind(), ErrorKind::AlreadyExists);
    failpoint::arm("");
    network_->attach(spec_);
    EXPECT_TRUE(network_->inspect(spec_));
}

TEST_P(EitherShape, AServerKilledAfterItDismissedAGuestLeavesWhoseFlowsAreToBeForgotten) {
    network_->attach(spec_);
    network_->publish(spec_);
    ASSERT_TRUE(
        killedWhile(failpointOf("detach.unpublished", "crash"), [&](LinuxNetwork& server) { server.detach(spec_); }));
    EXPECT_THAT(elements(), Contains(AllOf(HasSubstr("past_sources"), HasSubstr(spec_.guest.str()))));
    EXPECT_THAT(elements(), Not(Contains(HasSubstr("guest_sources"))));
    EXPECT_THAT(elements(), Not(Contains(HasSubstr("published"))));
    network_->removeStray(spec_.owner);
    EXPECT_THAT(network_->list(), IsEmpty());
}

TEST_P(EitherShape, AServerKilledAtAnyStepOfDetachLeavesWhatASecondOneTakesAway) {
    std::vector<std::string> steps = GetParam().detachSteps;
    steps.insert(steps.end(), departureSteps.begin(), departureSteps.end());
    for (const std::string& step : steps) {
        SCOPED_TRACE(step);
        network_->attach(spec_);
        network_->publish(spec_);
        ASSERT_TRUE(killedWhile(failpointOf(step, "crash"), [&](LinuxNetwork& server) {
            server.detach(spec_);
            static_cast<void>(server.list());  // waits for what goes on
        }));
        network_->removeStray(spec_.owner);
        network_->detach(spec_);
        EXPECT_THAT(network_->list(), IsEmpty());
        EXPECT_EQ(difference(started_, settledSnapshot(started_)), "");
    }
}

TEST_F(LinuxNetworkTest, AServerKilledAfterPublishOrUnpublishHasDoneIt) {
    network_->attach(spec_);
    ASSERT_TRUE(killedWhile(failpointOf("publish", "crash"), [&](LinuxNetwork& server) { server.publish(spec_); }));
    EXPECT_THAT(elements(), Contains("element published_tcp 20001")) << "another process's change is noticed";
    ASSERT_TRUE(killedWhile(failpointOf("publish", "crash"), [&](LinuxNetwork& server) { server.unpublish(spec_); }));
    EXPECT_THAT(elements(), Not(Contains("element published_tcp 20001")));
}

TEST_F(LinuxNetworkTest, AFailureAtAnyStepOfStartLeavesNothing) {
    stop();
    for (const char* step : startSteps) {
        SCOPED_TRACE(step);
        failpoint::arm(failpointOf(step, "error(no)"));
        LinuxNetwork failing;
        failing.configure(host_);
        EXPECT_TRUE(errorOf([&] { failing.start(); }));
        EXPECT_EQ(difference(untouched_, hostSnapshot()), "");
        EXPECT_FALSE(std::filesystem::exists(host_.paths().runRoot / "network"));
    }
}

TEST_F(LinuxNetworkTest, AServerKilledAtAnyStepOfStartLeavesWhatTheNextOneGivesBack) {
    stop();
    for (const char* step : startSteps) {
        SCOPED_TRACE(step);
        ASSERT_TRUE(killedWhile(failpointOf(step, "crash"), [](LinuxNetwork&) {}));
        start();
        stop();
        EXPECT_EQ(difference(untouched_, hostSnapshot()), "");
    }
}

// --- several network cards ---

/// As `step` of a VM's first card, but of its last of three.
std::string atTheLastCard(const std::string& step, const std::string& action) {
    return "network.linux." + step + "=2*delay(0);" + failpointOf(step, action);
}

class SeveralCards : public EitherShape {
protected:
    SeveralCards() { spec_ = mergen::test::withCards(spec_, 3); }
    ~SeveralCards() override {
        failpoint::arm("");
        network_->detach(spec_);
    }

    /// Steps that are taken once for each card.
    [[nodiscard]] std::vector<std::string> steps() const {
        if (GetParam().topology == "tap") return {"attach.tap.made", "attach.tap", "attach.up", "attach.route"};
        return {"attach.tap.made", "attach.tap", "attach.route"};
    }
    [[nodiscard]] std::vector<std::string> armed(const std::string& action) const {
        std::vector<std::string> all;
        for (const std::string& step : steps()) all.push_back(atTheLastCard(step, action));
        if (GetParam().topology == "netns") all.push_back(failpointOf("attach.further", action));
        return all;
    }
    /// Runs `ip` where the taps are.
    void ipAtTaps(std::vector<std::string> arguments) const {
        if (GetParam().topology == "tap") return ip(here, std::move(arguments));
        const NetNamespace space = namespaceOf(spec_);
        ip(&space, std::move(arguments));
    }
};
INSTANTIATE_TEST_SUITE_P(Topology, SeveralCards, ::testing::ValuesIn(shapes),
                         [](const auto& shape) { return shape.param.topology; });

TEST_P(SeveralCards, AFailureAtAnyCardLeavesNothing) {
    for (const std::string& failpoints : armed("error(no)")) {
        SCOPED_TRACE(failpoints);
        failpoint::arm(failpoints);
        EXPECT_TRUE(errorOf([&] { network_->attach(spec_); }));
        EXPECT_THAT(network_->list(), IsEmpty());
        EXPECT_EQ(difference(started_, settledSnapshot(started_)), "");
    }
}

TEST_P(SeveralCards, AServerKilledAtAnyCardLeavesWhatTheNextOneCompletesOrTakesAway) {
    for (const std::string& failpoints : armed("crash")) {
        SCOPED_TRACE(failpoints);
        const auto kill = [&] { return killedWhile(failpoints, [&](LinuxNetwork& server) { server.attach(spec_); }); };
        ASSERT_TRUE(kill());
        network_->attach(spec_);
        EXPECT_TRUE(network_->inspect(spec_));
        network_->detach(spec_);
        EXPECT_EQ(difference(started_, settledSnapshot(started_)), "");

        ASSERT_TRUE(kill());
        EXPECT_THAT(network_->list(), SizeIs(1));
        network_->removeStray(spec_.owner);
        EXPECT_THAT(network_->list(), IsEmpty());
        EXPECT_EQ(difference(started_, settledSnapshot(started_)), "");
    }
}

TEST_P(SeveralCards, WhateverIsMissingOfAFurtherCardIsMadeAgain) {
    const std::string tap = spec_.further[1].tap.str();
    const std::string guest = spec_.further[1].guest.str();
    const std::string link = GetParam().topology == "tap" ? tap : hostLink();
    const std::string table = "mergen_" + host_.instance();
    const std::map<std::string, std::function<void()>> parts{
        {"tap",
         [&] {
             ipAtTaps({"link", "delete", tap});
         }},
        {"tap's state",
         [&] {
             ipAtTaps({"link", "set", tap, "down"});
         }},
        {"tap's address",
         [&] {
             ipAtTaps({"address", "flush", "dev", tap});
         }},
        {"route over the tap",
         [&] {
             ipAtTaps({"route", "delete", guest});
         }},
        {"host's route",
         [&] {
             ip(here, {"route", "delete", guest});
         }},
        {"filter element",
         [&] {
             runTool({"/usr/sbin/nft",
                      "delete element inet " + table + " guest_sources { \"" + link + "\" . " + guest + " }"});
         }},
    };
    network_->attach(spec_);
    for (const auto& [part, takeAway] : parts) {
        SCOPED_TRACE(part);
        takeAway();
        EXPECT_FALSE(network_->inspect(spec_));
        network_->attach(spec_);
        EXPECT_TRUE(network_->inspect(spec_));
    }
}

TEST_P(SeveralCards, AForeignLinkOfAFurtherTapsNameIsRefusedAndStays) {
    if (GetParam().topology != "tap") GTEST_SKIP() << "the names are of a namespace of the VM's own";
    const std::string tap = spec_.further[0].tap.str();
    ip(here, {"link", "add", tap, "type", "veth", "peer", "name", "peer"});
    expectRefused(spec_, tap);
    ip(here, {"link", "delete", tap});
}

TEST_P(SeveralCards, ARouteToAFurtherAddressIsRefused) {
    ip(here, {"link", "add", "other", "type", "veth", "peer", "name", "peer"});
    for (const char* link : {"other", "peer"}) {
        Sysctls().disableIpv6(link);  // its routes would come in their own time
        ip(here, {"link", "set", link, "up"});
    }
    const std::string guest = spec_.further[1].guest.str();
    ip(here, {"route", "add", guest, "dev", "other"});
    expectRefused(spec_, guest);
    ip(here, {"link", "delete", "other"});
}

TEST_P(SeveralCards, EachTapIsTaggedAndTheVmUsersAndWithoutIpv6) {
    network_->attach(spec_);
    const auto look = [&] {
        for (const FurtherNic& card : cardsOf(spec_)) {
            const std::string tap = card.tap.str();
            EXPECT_THAT(runTool({"/usr/sbin/ip", "-d", "link", "show", "dev", tap}),
                        ::testing::AllOf(HasSubstr("vnet_hdr on persist on user " + std::to_string(spec_.tapOwner)),
                                         HasSubstr("alias " + spec_.owner.str())));
            EXPECT_EQ(readSysctl("ipv6/conf/" + tap + "/disable_ipv6").value_or("1"), "1") << tap;
        }
    };
    if (GetParam().topology == "tap") return look();
    namespaceOf(spec_).run(look);
}

TEST_P(SeveralCards, EachAddressIsReachedAndReachesTheWorldByItsOwnCard) {
    const NetworkAttachment wire = network_->attach(spec_);
    const test::Guest guest(spec_, wire);
    const test::Neighbour neighbour("world", "10.7.0.1", "10.7.0.2");
    const test::Server world(&neighbour.space(), "world", "10.7.0.2", 80);
    const std::vector<std::string> addresses{spec_.guest.str(), spec_.further[0].guest.str(),
                                             spec_.further[1].guest.str()};
    for (const std::string& address : addresses) {
        SCOPED_TRACE(address);
        const test::Server server(&guest.space(), "guest", address, 80);
        for (const Protocol protocol : {Protocol::Tcp, Protocol::Udp}) {
            EXPECT_THAT(test::probe(here, address, 80, {}, protocol), ::testing::StartsWith("guest "));
            // Out by masquerade, and the answer back to this card.
            EXPECT_EQ(test::probe(&guest.space(), "10.7.0.2", 80, address, protocol), "world 10.7.0.1");
            EXPECT_EQ(test::probe(&neighbour.space(), address, 80, {}, protocol), "dropped: not published");
        }
    }
}

TEST_P(SeveralCards, WhatIsPublishedLeadsToTheFirstCard) {
    const NetworkAttachment wire = network_->attach(spec_);
    network_->publish(spec_);
    const test::Guest guest(spec_, wire);
    const test::Server server(&guest.space(), "first", spec_.guest.str(), 80);
    const test::Server further(&guest.space(), "further", spec_.further[0].guest.str(), 80);
    EXPECT_THAT(test::probe(here, "127.0.0.1", 20001), ::testing::StartsWith("first "));
}

TEST_P(SeveralCards, NoCardMayUseTheAddressOfAnother) {
    const NetworkAttachment wire = network_->attach(spec_);
    const test::Guest guest(spec_, wire);
    const test::Neighbour neighbour("world", "10.7.0.1", "10.7.0.2");
    const test::Server world(&neighbour.space(), "world", "10.7.0.2", 80);
    const std::vector<FurtherNic> cards = cardsOf(spec_);
    // Packets from the address of `card` leave the guest by the link of `other`, with no need to ask for the gateway.
    const auto leaveBy = [&](std::size_t card, std::size_t other) {
        const std::string link = "eth" + std::to_string(other);
        const std::string gateway = spec_.gateway.str();
        const auto tapMac = [&] { return Rtnetlink().findLink(cards[other].tap.str())->mac->str(); };
        const std::string mac = GetParam().topology == "tap" ? tapMac() : namespaceOf(spec_).run(tapMac);
        ip(&guest.space(), {"neigh", "replace", gateway, "lladdr", mac, "dev", link, "nud", "permanent"});
        ip(&guest.space(), {"rule", "add", "pref", "10", "from", cards[card].guest.str(), "lookup", "200"});
        ip(&guest.space(), {"route", "replace", "default", "via", gateway, "dev", link, "onlink", "table", "200"});
    };
    const bool tap = GetParam().topology == "tap";
    const std::optional<NetNamespace> space = tap ? std::nullopt : std::optional(namespaceOf(spec_));
    for (const auto& [card, other] : {std::pair<std::size_t, std::size_t>{0, 1}, {1, 0}, {1, 2}, {2, 1}}) {
        const std::string address = cards[card].guest.str();
        SCOPED_TRACE(address + " by eth" + std::to_string(other));
        leaveBy(card, other);
        EXPECT_EQ(test::fateOf(
                      guest.space(), [&] { test::sendDatagram("10.7.0.2", 80, address); }, space ? &*space : nullptr),
                  tap ? "dropped: foreign source" : "dropped: reverse path");
        ip(&guest.space(), {"rule", "delete", "pref", "10"});
    }
    EXPECT_EQ(world.heard(), 0U);
    EXPECT_EQ(test::probe(&guest.space(), "10.7.0.2", 80, cards[1].guest.str()), "world 10.7.0.1") << "by its own card";
}

TEST_P(SeveralCards, OtherGuestsAndTheHostAreOutOfReachFromEveryCard) {
    const NetworkSpec other = mergen::test::withCards(networkSpec(host_.instance(), 50), 2);
    const NetworkAttachment wire = network_->attach(spec_);
    const NetworkAttachment otherWire = network_->attach(other);
    {
        const test::Guest guest(spec_, wire);
        const test::Guest neighbour(other, otherWire);
        const std::string second = spec_.further[0].guest.str();
        const std::string theirs = other.further[0].guest.str();
        const test::Server server(&neighbour.space(), "theirs", theirs, 80);
        const test::Neighbour world("world", "10.7.0.1", "10.7.0.2");
        const test::Server service(here, "host", "10.7.0.1", 8022);
        // In a namespace of its own the guests' network ends at the VM's first tap.
        const std::string fate = GetParam().topology == "tap" ? "dropped: guest to guest" : "unreachable";
        for (const Protocol protocol : {Protocol::Tcp, Protocol::Udp}) {
            EXPECT_EQ(test::probe(&guest.space(), theirs, 80, second, protocol), fate);
            EXPECT_EQ(test::probe(&guest.space(), "10.7.0.1", 8022, second, protocol), "dropped: guest to host");
            EXPECT_THAT(test::probe(here, theirs, 80, {}, protocol), ::testing::StartsWith("theirs "));
        }
        EXPECT_EQ(service.heard(), 0U);
        EXPECT_EQ(server.heard(), 1U) << "the host alone";
    }
    network_->detach(other);
}

TEST_P(SeveralCards, AnEgressPolicyHoldsForEveryCard) {
    stop();
    mergen::test::TestHost host(LinuxNetwork::keys, {{"topology", GetParam().topology}, {"egress", "none"}});
    LinuxNetwork closed;
    closed.configure(host);
    closed.start();
    const NetworkAttachment wire = closed.attach(spec_);
    {
        const test::Guest guest(spec_, wire);
        const test::Neighbour neighbour("world", "10.7.0.1", "10.7.0.2");
        const test::Server world(&neighbour.space(), "world", "10.7.0.2", 80);
        for (const FurtherNic& card : cardsOf(spec_)) {
            EXPECT_EQ(test::probe(&guest.space(), "10.7.0.2", 80, card.guest.str()), "dropped: egress policy");
        }
    }
    closed.detach(spec_);
    closed.stop();
    start();
}

// --- parts that were taken away by hand ---

TEST_F(LinuxNetworkTest, AttachCompletesAWireOfWhichAnyPartWasTakenAway) {
    const auto tapIndex = [&] {
        return namespaceOf(spec_).run([&] { return Rtnetlink().findLink(spec_.tap.str())->index; });
    };
    const std::string table = "mergen_" + host_.instance();
    const std::string guest = spec_.guest.str();
    const std::string tap = spec_.tap.str();
    const std::map<std::string, std::function<void(const NetNamespace&)>> parts{
        {"host end",
         [&](const NetNamespace&) {
             ip(here, {"link", "delete", hostLink()});
         }},
        {"host end's state",
         [&](const NetNamespace&) {
             ip(here, {"link", "set", hostLink(), "down"});
         }},
        {"host route",
         [&](const NetNamespace&) {
             ip(here, {"route", "delete", guest});
         }},
        {"uplink",
         [&](const NetNamespace& space) {
             ip(&space, {"link", "delete", "uplink"});
         }},
        {"uplink's address",
         [&](const NetNamespace& space) {
             ip(&space, {"address", "flush", "dev", "uplink"});
         }},
        {"default route",
         [&](const NetNamespace& space) {
             ip(&space, {"route", "delete", "default"});
         }},
        {"tap's address",
         [&](const NetNamespace& space) {
             ip(&space, {"address", "flush", "dev", tap});
         }},
        {"tap's state",
         [&](const NetNamespace& space) {
             ip(&space, {"link", "set", tap, "down"});
         }},
        {"filter element",
         [&](const NetNamespace&) {
             runTool({"/usr/sbin/nft", "delete element inet " + table + " guest_links { \"" + hostLink() + "\" }"});
         }},
        {"rules",
         [&](const NetNamespace&) {
             runTool({"/usr/sbin/nft", "flush chain inet " + table + " through"});
         }},
        {"table",
         [&](const NetNamespace&) {
             runTool({"/usr/sbin/nft", "delete table inet " + table});
         }},
    };
    network_->attach(spec_);
    const int tapBefore = tapIndex();
    for (const auto& [part, takeAway] : parts) {
        SCOPED_TRACE(part);
        takeAway(namespaceOf(spec_));
        EXPECT_FALSE(network_->inspect(spec_));
        network_->attach(spec_);
        EXPECT_TRUE(network_->inspect(spec_));
        EXPECT_EQ(tapIndex(), tapBefore) << "a tap that a VMM may have open is kept";
    }
    const NetNamespace space = namespaceOf(spec_);
    ip(&space, {"link", "delete", tap});
    EXPECT_FALSE(network_->inspect(spec_));
    network_->attach(spec_);
    EXPECT_TRUE(network_->inspect(spec_));
}

TEST_F(LinuxNetworkTest, DetachSucceedsWhateverPartIsMissing) {
    const std::string table = "mergen_" + host_.instance();
    const std::map<std::string, std::function<void()>> parts{
        {"link",
         [&] {
             ip(here, {"link", "delete", hostLink()});
         }},
        {"table",
         [&] {
             runTool({"/usr/sbin/nft", "delete table inet " + table});
         }},
        {"name",
         [&] {
             ip(here, {"netns", "delete", spec_.netns});
         }},
        {"mount",
         [&] {
             runTool({"/usr/bin/umount", handle()});
         }},
    };
    for (const auto& [part, takeAway] : parts) {
        SCOPED_TRACE(part);
        network_->attach(spec_);
        network_->publish(spec_);
        takeAway();
        network_->detach(spec_);
        EXPECT_THAT(network_->list(), IsEmpty());
        network_->attach(spec_);  // which also makes the table again
        network_->detach(spec_);
        EXPECT_EQ(difference(started_, settledSnapshot(started_)), "");
    }
}

TEST_F(LinuxNetworkTest, AFileOfTheVmOnWhichNothingIsMountedIsUsedAgain) {
    network_->attach(spec_);
    runTool({"/usr/bin/umount", handle()});
    network_->attach(spec_);
    EXPECT_TRUE(network_->inspect(spec_));
}

// --- what belongs to others ---

TEST_F(LinuxNetworkTest, AForeignLinkOfTheHostEndsNameIsRefusedAndStays) {
    ip(here, {"link", "add", hostLink(), "type", "veth", "peer", "name", "peer"});
    expectRefused(spec_, hostLink());
    ip(here, {"link", "set", hostLink(), "alias", networkSpec("deadbeef", 2).owner.str()});
    expectRefused(spec_, hostLink());
    ip(here, {"link", "delete", hostLink()});
}

TEST_F(LinuxNetworkTest, AForeignNamespaceOfTheNameIsRefusedAndStays) {
    ip(here, {"netns", "add", spec_.netns});
    expectRefused(spec_, spec_.netns);
    ip(here, {"netns", "delete", spec_.netns});
}

TEST_F(LinuxNetworkTest, ForeignFilesOfTheNameAreRefusedAndStay) {
    const std::filesystem::path path = handle();
    writeFileAtomically(path, "", 0644);
    expectRefused(spec_, spec_.netns);
    writeFileAtomically(path, "something", 0644);
    expectRefused(spec_, spec_.netns);
    writeFileAtomically(path, networkSpec(host_.instance(), 2).owner.str(), 0644);
    expectRefused(spec_, spec_.netns);
    std::filesystem::remove(path);
    std::filesystem::create_symlink("/proc/self/ns/net", path);
    expectRefused(spec_, spec_.netns);
    std::filesystem::remove(path);
    ASSERT_EQ(::mkfifo(path.c_str(), 0600), 0);
    expectRefused(spec_, spec_.netns);
    std::filesystem::remove(path);
    std::filesystem::create_directory(path);
    expectRefused(spec_, spec_.netns);
    std::filesystem::remove(path);
}

TEST_F(LinuxNetworkTest, ARouteToTheGuestsAddressIsRefusedUnlessItLeadsEverywhere) {
    ip(here, {"link", "add", "other", "type", "veth", "peer", "name", "peer"});
    for (const char* link : {"other", "peer"}) {
        Sysctls().disableIpv6(link);  // its routes would come in their own time
        ip(here, {"link", "set", link, "up"});
    }
    for (const char* route : {"172.30.0.2/32", "172.30.0.0/24", "172.16.0.0/12"}) {
        ip(here, {"route", "add", route, "dev", "other"});
        expectRefused(spec_, route);
        ip(here, {"route", "delete", route, "dev", "other"});
    }
    ip(here, {"address", "add", "172.30.0.9/24", "dev", "other"});
    expectRefused(spec_, "172.30.0.0/24");
    ip(here, {"address", "flush", "dev", "other"});
    ip(here, {"address", "add", "172.30.0.2/32", "dev", "other"});
    expectRefused(spec_, "172.30.0.2/32");
    ip(here, {"address", "flush", "dev", "other"});

    // A default route, and the two halves of it that VPNs set, are in nobody's way.
    for (const char* route : {"default", "128.0.0.0/1"}) ip(here, {"route", "add", route, "dev", "other"});
    network_->checkNames(spec_);
    network_->attach(spec_);
    EXPECT_TRUE(network_->inspect(spec_));
    network_->detach(spec_);
    ip(here, {"link", "delete", "other"});
}

TEST_F(LinuxNetworkTest, APortThatSomebodyPutIntoTheMapIsRefused) {
    const std::string table = "mergen_" + host_.instance();
    network_->attach(spec_);
    runTool({"/usr/sbin/nft", "add element inet " + table + " published_tcp { 20001 : 10.1.2.3 . 80 }"});
    const auto error = errorOf([&] { network_->publish(spec_); });
    ASSERT_TRUE(error);
    EXPECT_EQ(error->kind(), ErrorKind::AlreadyExists);
    runTool({"/usr/sbin/nft", "delete element inet " + table + " published_tcp { 20001 }"});
    network_->publish(spec_);
}

TEST_P(EitherShape, TwoServersOnOneHostLeaveEachOtherAlone) {
    mergen::test::TestHost folders(LinuxNetwork::keys);
    OtherHost host(folders);
    LinuxNetwork other;
    other.configure(host);
    other.start();
    const NetworkSpec theirs = withPort(networkSpec(host.instance(), 3), 20003);
    other.attach(theirs);
    other.publish(theirs);
    network_->attach(spec_);
    network_->publish(spec_);

    const auto findings = network_->list();
    ASSERT_THAT(findings, SizeIs(1));
    EXPECT_EQ(findings.front().owner, spec_.owner);
    const auto error = errorOf([&] { network_->removeStray(theirs.owner); });
    EXPECT_EQ(error->kind(), ErrorKind::InvalidArgument);
    EXPECT_EQ(errorOf([&] { network_->detach(theirs); })->kind(), ErrorKind::InvalidArgument);

    network_->detach(spec_);
    stop();
    EXPECT_TRUE(other.inspect(theirs));
    EXPECT_THAT(other.list().at(0).objects, Contains("element published_tcp 20003"));
    EXPECT_THAT(hostSnapshot(), HasSubstr("== forwarding\n1")) << "their guest needs it";
    other.detach(theirs);
    other.stop();
    start();  // whose note says what forwarding was
}

TEST_F(LinuxNetworkTest, RulesOfOthersStay) {
    runTool({"/usr/sbin/nft",
             "add table ip other; add chain ip other c { type filter hook forward priority 0; }; "
             "add rule ip other c ip daddr 10.9.9.9 drop"});
    const std::string before = runTool({"/usr/sbin/nft", "list table ip other"});
    network_->attach(spec_);
    network_->publish(spec_);
    network_->detach(spec_);
    stop();
    EXPECT_EQ(runTool({"/usr/sbin/nft", "list table ip other"}), before);
    runTool({"/usr/sbin/nft", "delete table ip other"});
}

// --- the host's settings ---

TEST_F(LinuxNetworkTest, ProgramsThatChangeTheirRulesAllTheTimeAreInNobodysWay) {
    const auto change = [](const std::stop_token& stop, const std::string& table) {
        while (!stop.stop_requested()) {
            runTool({"/usr/sbin/nft", "add table ip " + table});
            runTool({"/usr/sbin/nft", "delete table ip " + table});
        }
    };
    std::vector<std::jthread> others;
    for (const char* const table : {"one", "another"}) others.emplace_back(change, table);
    for (int i = 0; i < 20; ++i) {
        network_->attach(spec_);
        network_->publish(spec_);
        EXPECT_THAT(elements(), Contains("element published_tcp 20001"));
        EXPECT_TRUE(network_->inspect(spec_));
        network_->detach(spec_);
        EXPECT_THAT(network_->list(), IsEmpty());
    }
}

TEST_F(LinuxNetworkTest, StopWithAGuestLeavesEverythingAndTheLastStopGivesForwardingBack) {
    network_->attach(spec_);
    network_->publish(spec_);
    const std::string before = hostSnapshot();
    stop();
    EXPECT_EQ(difference(before, hostSnapshot()), "");
    start();
    network_->detach(spec_);
    stop();
    EXPECT_EQ(difference(untouched_, settledSnapshot(untouched_)), "");
    EXPECT_FALSE(std::filesystem::exists(host_.paths().runRoot / "network"));
}

TEST_F(LinuxNetworkTest, ForwardingThatWasOnStaysOn) {
    stop();
    test::sysctl(here, "ipv4/ip_forward", "1");
    start();
    stop();
    EXPECT_THAT(hostSnapshot(), HasSubstr("== forwarding\n1"));
    test::sysctl(here, "ipv4/ip_forward", "0");
}

TEST_F(LinuxNetworkTest, ADockerThatDropsWhatItDoesNotKnowIsNamedWithWhatToDo) {
    stop();
    // As Docker's iptables-nft leaves it.
    runTool({"/usr/sbin/nft", R"(table ip filter {
        chain DOCKER-USER { counter return
        }
        chain DOCKER {
        }
        chain FORWARD { type filter hook forward priority filter; policy drop;
            counter jump DOCKER-USER
            oifname "docker0" ct state related,established counter accept
            oifname "docker0" counter jump DOCKER
        }
    })"});
    start();
    const auto lines = host_.log().lines("network.forward.drop_elsewhere");
    ASSERT_THAT(lines, SizeIs(1));
    EXPECT_EQ(lines.front().fields.at("chain"), "ip filter FORWARD (policy drop)");
    EXPECT_THAT(lines.front().fields.at("hint"), HasSubstr("iptables -I DOCKER-USER -i mg-+ -j ACCEPT"));
    EXPECT_TRUE(network_->health().ok) << "the server can work";
    EXPECT_THAT(network_->health().detail, HasSubstr("ip filter FORWARD (policy drop)"));
    // What the hint says to do.
    for (const char* direction : {"iifname", "oifname"}) {
        runTool({"/usr/sbin/nft",
                 std::string("insert rule ip filter DOCKER-USER ") + direction + " \"mg-*\" counter accept"});
    }
    EXPECT_THAT(network_->health().detail, Not(HasSubstr("FORWARD")));
    runTool({"/usr/sbin/nft", "delete table ip filter"});
}

TEST_F(LinuxNetworkTest, AFirewallThatComesLaterIsSeenAndOneThatGoesIsForgotten) {
    network_->attach(spec_);
    EXPECT_THAT(network_->health().detail, Not(HasSubstr("FORWARD")));
    // As firewalld ends its chain.
    runTool({"/usr/sbin/nft", R"(table inet firewalld {
        chain filter_FORWARD { type filter hook forward priority filter + 10; policy accept;
            ct state established,related accept
            ct status dnat accept
            iifname "lo" accept
            ct state invalid drop
            reject with icmpx admin-prohibited
        }
    })"});
    EXPECT_THAT(network_->health().detail, HasSubstr("inet firewalld filter_FORWARD (ends in reject)"));
    network_->publish(spec_);  // a change of ours in between
    EXPECT_THAT(network_->health().detail, HasSubstr("inet firewalld filter_FORWARD (ends in reject)"));
    runTool({"/usr/sbin/nft", "delete table inet firewalld"});
    EXPECT_THAT(network_->health().detail, Not(HasSubstr("FORWARD")));
}

TEST_F(LinuxNetworkTest, PortsForGuestsThatOverlapTheEphemeralOnesAreSaid) {
    stop();
    test::sysctl(here, "ipv4/ip_local_port_range", "32768 60999");
    host_.plan({.guests = Ipv4Network::parse("172.30.0.0/24"), .portStart = 20000, .portEnd = 40000});
    start();
    const auto lines = host_.log().lines("network.ports.ephemeral");
    ASSERT_THAT(lines, SizeIs(1));
    EXPECT_THAT(lines.front().fields.at("cause"), HasSubstr("20000-40000"));
    EXPECT_THAT(lines.front().fields.at("cause"), HasSubstr("32768-60999"));
    EXPECT_THAT(network_->health().detail, HasSubstr("ip_local_reserved_ports = 32768-40000"));
    test::sysctl(here, "ipv4/ip_local_reserved_ports", "100,32768-35000,35001-50000");
    EXPECT_THAT(network_->health().detail, Not(HasSubstr("ephemeral"))) << "what the advice says has been done";
    EXPECT_THAT(network_->health().detail, Not(HasSubstr("ip_local")));
    test::sysctl(here, "ipv4/ip_local_reserved_ports", "32768-35000");
    EXPECT_THAT(network_->health().detail, HasSubstr("ip_local")) << "only in part";
    test::sysctl(here, "ipv4/ip_local_reserved_ports", "");
    host_.plan({.guests = Ipv4Network::parse("172.30.0.0/24"), .portStart = 20000, .portEnd = 32767});
    EXPECT_THAT(network_->health().detail, Not(HasSubstr("ip_local")));
}

TEST_F(LinuxNetworkTest, StartWithoutTheCapabilitiesIsNotSupported) {
    stop();
    const pid_t child = ::fork();
    if (child == 0) {
        __user_cap_header_struct header{};
        header.version = _LINUX_CAPABILITY_VERSION_3;
        const std::array<__user_cap_data_struct, _LINUX_CAPABILITY_U32S_3> none{};
        if (::syscall(SYS_capset, &header, none.data()) != 0) ::_exit(2);
        LinuxNetwork server;
        server.configure(host_);
        try {
            server.start();
        } catch (const Error& error) {
            ::_exit(error.kind() == ErrorKind::NotSupported ? 0 : 3);
        }
        ::_exit(4);
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFEXITED(status));
    EXPECT_EQ(WEXITSTATUS(status), 0);
}

TEST_F(LinuxNetworkTest, APortThatAProgramHasOnAnyOneAddressIsNotHeld) {
    for (const int type : {SOCK_STREAM, SOCK_DGRAM}) {
        const Protocol protocol = type == SOCK_STREAM ? Protocol::Tcp : Protocol::Udp;
        {
            const UniqueFd fd(::socket(AF_INET, type | SOCK_CLOEXEC, 0));
            sockaddr_in at{};
            at.sin_family = AF_INET;
            at.sin_port = htons(20001);
            at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
            ASSERT_EQ(::bind(fd.get(), reinterpret_cast<const sockaddr*>(&at), sizeof(at)), 0);
            EXPECT_FALSE(network_->holdPort(protocol, 20001));
        }
        const UniqueFd fd(::socket(AF_INET6, type | SOCK_CLOEXEC, 0));
        if (!fd) continue;  // a host without IPv6
        const int on = 1;
        ASSERT_EQ(::setsockopt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on)), 0);
        sockaddr_in6 at{};
        at.sin6_family = AF_INET6;
        at.sin6_port = htons(20001);
        at.sin6_addr = in6addr_loopback;
        ASSERT_EQ(::bind(fd.get(), reinterpret_cast<const sockaddr*>(&at), sizeof(at)), 0);
        EXPECT_FALSE(network_->holdPort(protocol, 20001));
    }
}

// --- settings and specs ---

TEST_F(LinuxNetworkTest, SettingsAndSpecsThatMakeNoSenseAreRefused) {
    for (const auto& [key, value] : {std::pair{"transit", "192.0.0.1/30"},
                                     {"transit", "192.0.0.0"},
                                     {"transit", "172.30.0.0/24"},
                                     {"topology", "bridge"},
                                     {"mtu", "575"},
                                     {"mtu", "65522"},
                                     {"dns", "dns.example"},
                                     {"dns", "9.9.9.9,1.1.1.1,8.8.8.8"},
                                     {"dns", "169.254.169.254"},
                                     {"egress", "closed"},
                                     {"egress", "listed"},
                                     {"allowed_networks", "10.0.0.0/8"},
                                     {"denied_networks", "x"},
                                     {"denied_networks", "10.0.0.1/8"},
                                     {"denied_networks", "10.0.0.0/33"},
                                     {"denied_networks", "169.254.0.0/16,,"}}) {
        mergen::test::TestHost host(LinuxNetwork::keys, {{key, value}});
        LinuxNetwork network;
        const auto error = errorOf([&] { network.configure(host); });
        ASSERT_TRUE(error);
        EXPECT_EQ(error->kind(), ErrorKind::InvalidArgument);
        EXPECT_THAT(error->what(), HasSubstr(key)) << value;
    }
    NetworkSpec overlap = spec_;
    overlap.network = Ipv4Network::parse("192.0.0.0/24");
    overlap.gateway = overlap.network.host(1);
    overlap.guest = overlap.network.host(2);
    NetworkSpec outside = spec_;
    outside.guest = Ipv4Address::parse("172.31.0.2");
    NetworkSpec furtherOutside = mergen::test::withCards(spec_, 2);
    furtherOutside.further[0].guest = Ipv4Address::parse("172.31.0.2");
    NetworkSpec furtherGateway = mergen::test::withCards(spec_, 2);
    furtherGateway.further[0].guest = spec_.gateway;
    NetworkSpec sameTap = mergen::test::withCards(spec_, 2);
    sameTap.further[0].tap = spec_.tap;
    for (const char* name : {"", "..", "../x", "a/b", "-\n"}) {
        NetworkSpec spec = spec_;
        spec.netns = name;
        EXPECT_EQ(errorOf([&] { network_->attach(spec); })->kind(), ErrorKind::InvalidArgument) << name;
    }
    for (const NetworkSpec& spec : {overlap, outside, furtherOutside, furtherGateway, sameTap}) {
        EXPECT_EQ(errorOf([&] { network_->attach(spec); })->kind(), ErrorKind::InvalidArgument);
    }
    EXPECT_EQ(difference(started_, hostSnapshot()), "");
}

TEST_F(LinuxNetworkTest, DeniedNetworksMayOverlapAndMayBeNone) {
    stop();
    for (const char* networks : {"10.0.0.0/8, 10.1.0.0/16,169.254.0.0/16", ""}) {
        mergen::test::TestHost host(LinuxNetwork::keys, {{"denied_networks", networks}});
        LinuxNetwork network;
        network.configure(host);
        network.start();
        const std::string rules = runTool({"/usr/sbin/nft", "list table inet mergen_" + host.instance()});
        EXPECT_EQ(rules.find("10.1.0.0/16") != std::string::npos, networks[0] != '\0');
        EXPECT_TRUE(network.health().ok);
        network.stop();
    }
}

TEST_F(LinuxNetworkTest, HealthTellsOfGuestsWithoutTheirFilter) {
    network_->attach(spec_);
    EXPECT_TRUE(network_->health().ok);
    runTool({"/usr/sbin/nft", "flush chain inet mergen_" + host_.instance() + " through"});
    EXPECT_FALSE(network_->health().ok);
    network_->attach(spec_);
    EXPECT_TRUE(network_->health().ok);
}

TEST_F(LinuxNetworkTest, EveryObjectBearsTheOwnersTag) {
    network_->attach(spec_);
    network_->publish(spec_);
    const std::string tag = spec_.owner.str();
    const auto alias = [](const char* name) {
        const auto link = Rtnetlink().findLink(name);
        return link ? link->alias : "no such link";
    };
    EXPECT_EQ(alias(hostLink().c_str()), tag);
    for (const std::string& name : {std::string("lo"), std::string("uplink"), spec_.tap.str()}) {
        EXPECT_EQ(namespaceOf(spec_).run([&] { return alias(name.c_str()); }), tag) << name;
    }
    runTool({"/usr/bin/umount", handle()});
    EXPECT_EQ(readFile(handle(), 100), tag);
    const std::string rules = runTool({"/usr/sbin/nft", "list table inet mergen_" + host_.instance()});
    std::size_t tags = 0;
    for (std::size_t at = 0; (at = rules.find(tag, at)) != std::string::npos; ++at) ++tags;
    EXPECT_EQ(tags, 3U) << rules;
}

TEST_F(LinuxNetworkTest, RulesCanBeChangedWhateverNumberOfFilesIsOpen) {
    rlimit before{};
    ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
    rlimit more = before;
    more.rlim_cur = 4096;
    ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &more), 0);
    network_->attach(spec_);
    {
        std::vector<UniqueFd> open;
        while (open.empty() || open.back().get() < 1100) open.push_back(openFile("/dev/null", O_RDONLY));
        NetworkSpec with = spec_;
        with.ports = {{.host = 20001, .protocol = Protocol::Tcp, .guest = 80}};
        // libnftables' context is replaced on the way, which is when it opens its socket.
        for (int i = 0; i < 1100; ++i) {
            network_->publish(with);
            network_->unpublish(with);
        }
        EXPECT_TRUE(network_->inspect(spec_));
    }
    ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &before), 0);
}

TEST_F(LinuxNetworkTest, AGuestThatIsNotThereYetIsNotAskedForByArp) {
    network_->attach(spec_);
    EXPECT_THAT(runTool({"/usr/sbin/ip", "-n", spec_.netns, "neigh", "show", "dev", spec_.tap.str()}),
                ::testing::AllOf(HasSubstr(spec_.guest.str() + " lladdr " + spec_.mac.str()), HasSubstr("PERMANENT")));
}

TEST_F(LinuxNetworkTest, TheTapIsForItsOwnerAndHasAHeaderForOffloads) {
    network_->attach(spec_);
    const std::string shown = namespaceOf(spec_).run([&] {
        return runTool({"/usr/sbin/ip", "-d", "link", "show", "dev", spec_.tap.str()});
    });
    EXPECT_THAT(shown, HasSubstr("type tap pi off vnet_hdr on persist on user " + std::to_string(spec_.tapOwner)));
}

TEST_F(LinuxNetworkTest, TheTapCanBeOpenedAtOnceWhateverProcessesAreStartedMeanwhile) {
    // Each child keeps a copy of every descriptor for a while, as one does between fork(2) and exec(2).
    std::jthread starter([](const std::stop_token& stop) {
        while (!stop.stop_requested()) {
            const pid_t child = ::fork();
            if (child == 0) {
                ::usleep(20'000);
                ::_exit(0);
            }
            ::waitpid(child, nullptr, 0);
        }
    });
    for (int turn = 0; turn < 5; ++turn) {
        failpoint::arm(failpointOf("attach.tap.made", "delay(50)"));  // so that one is sure to be started here
        network_->attach(spec_);
        EXPECT_NO_THROW(namespaceOf(spec_).run([&] { static_cast<void>(test::openTap(spec_.tap.str())); }));
        network_->detach(spec_);
    }
}

TEST_F(LinuxNetworkTest, HeldPortsAreNotInheritedAndAQueueOfDatagramsDoesNotGrow) {
    ASSERT_TRUE(network_->holdPort(Protocol::Udp, 20001));
    ASSERT_TRUE(network_->holdPort(Protocol::Tcp, 20001));
    std::size_t sockets = 0;
    for (const std::string& name : listDirectory("/proc/self/fd")) {
        const int fd = std::stoi(name);
        sockaddr_in6 at{};
        socklen_t size = sizeof(at);
        if (::getsockname(fd, reinterpret_cast<sockaddr*>(&at), &size) != 0 || at.sin6_port != htons(20001)) continue;
        ++sockets;
        EXPECT_NE(::fcntl(fd, F_GETFD) & FD_CLOEXEC, 0);
        const UniqueFd client(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
        sockaddr_in to{};
        to.sin_family = AF_INET;
        to.sin_port = htons(20001);
        to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        for (int i = 0; i < 100; ++i) {
            ASSERT_EQ(::sendto(client.get(), "x", 1, 0, reinterpret_cast<const sockaddr*>(&to), sizeof(to)), 1);
        }
        int queued = -1;
        ASSERT_EQ(::ioctl(fd, FIONREAD, &queued), 0);
        EXPECT_EQ(queued, 0);
    }
    EXPECT_EQ(sockets, 2U);
}

TEST_F(LinuxNetworkTest, AServerThatMayOpenNoMoreFilesSaysSoAndHoldsWhatItHas) {
    ASSERT_TRUE(network_->holdPort(Protocol::Tcp, 20001));
    rlimit before{};
    ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
    const rlimit none{0, before.rlim_max};
    ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &none), 0);
    const auto error = errorOf([&] { static_cast<void>(network_->holdPort(Protocol::Tcp, 20002)); });
    const bool held = network_->holdPort(Protocol::Tcp, 20001);
    ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &before), 0);
    ASSERT_TRUE(error);
    EXPECT_EQ(error->kind(), ErrorKind::ResourceExhausted);
    EXPECT_THAT(error->what(), HasSubstr("LimitNOFILE"));
    EXPECT_TRUE(held);
    EXPECT_TRUE(network_->holdPort(Protocol::Tcp, 20002));
}

TEST_F(LinuxNetworkTest, TheMtuIsThatOfEveryLinkOfTheWireAndIsToldToTheGuest) {
    EXPECT_EQ(network_->guestSettings().mtu, 0U) << "1500 is what a guest takes by itself";
    stop();
    for (const char* topology : {"netns", "tap"}) {
        for (const char* mtu : {"576", "1420", "65521"}) {
            mergen::test::TestHost host(LinuxNetwork::keys, {{"topology", topology}, {"mtu", mtu}});
            LinuxNetwork network;
            network.configure(host);
            network.start();
            const NetworkAttachment made = network.attach(spec_);
            EXPECT_EQ(network.guestSettings().mtu, std::stoul(mtu));
            const auto mtuOf = [](const std::string& name) {
                const auto link = Rtnetlink().findLink(name);
                return link ? std::to_string(link->mtu) : "no link " + name;
            };
            if (made.netns) {
                EXPECT_EQ(mtuOf(hostLink()), mtu);
                for (const std::string& name : {std::string("uplink"), spec_.tap.str()}) {
                    EXPECT_EQ(namespaceOf(spec_).run([&] { return mtuOf(name); }), mtu);
                }
            } else {
                EXPECT_EQ(mtuOf(spec_.tap.str()), mtu);
            }
            network.detach(spec_);
            network.stop();
        }
    }
}

TEST_F(LinuxNetworkTest, NameServersAreThoseOfTheSetting) {
    mergen::test::TestHost host(LinuxNetwork::keys, {{"dns", "9.9.9.9, 1.1.1.1"}});
    LinuxNetwork network;
    network.configure(host);
    EXPECT_EQ(network.guestSettings().dns,
              (std::vector<Ipv4Address>{Ipv4Address::parse("9.9.9.9"), Ipv4Address::parse("1.1.1.1")}));
    EXPECT_TRUE(network_->guestSettings().dns.empty());
}

// --- the other shape ---

TEST_F(LinuxNetworkTest, AWireOfAnotherSettingKeepsItsShapeUntilItIsTakenAway) {
    for (const auto& [first, second] : {std::pair{"netns", "tap"}, {"tap", "netns"}}) {
        SCOPED_TRACE(first);
        const auto serve = [&](const char* topology, const std::function<void(LinuxNetwork&)>& work) {
            mergen::test::TestHost host(LinuxNetwork::keys, {{"topology", topology}});
            LinuxNetwork network;
            network.configure(host);
            network.start();
            work(network);
            network.stop();
        };
        NetworkAttachment made;
        serve(first, [&](LinuxNetwork& network) {
            made = network.attach(spec_);
            network.publish(spec_);
        });
        const std::string before = hostSnapshot();
        serve(second, [&](LinuxNetwork& network) {
            const auto found = network.inspect(spec_);
            ASSERT_TRUE(found);
            EXPECT_EQ(found->netns, made.netns);
            network.checkNames(spec_);
            EXPECT_EQ(network.attach(spec_).netns, made.netns);
            network.publish(spec_);
            EXPECT_EQ(difference(before, hostSnapshot()), "") << "a running guest's wire is left as it is";
            network.detach(spec_);
            EXPECT_THAT(network.list(), IsEmpty());
            EXPECT_EQ(difference(started_, settledSnapshot(started_)), "");
            EXPECT_NE(network.attach(spec_).netns, made.netns) << "the next one is made as the setting says";
        });
        serve(first, [&](LinuxNetwork& network) {
            network.removeStray(spec_.owner);
            EXPECT_EQ(difference(started_, settledSnapshot(started_)), "");
        });
    }
}

class TapTopologyTest : public LinuxNetworkTest {
protected:
    TapTopologyTest() : LinuxNetworkTest("tap") {}
    [[nodiscard]] std::string tap() const { return spec_.tap.str(); }
};

TEST_F(TapTopologyTest, TheTapStandsInTheHostsNamespaceTaggedAndSilentOnIpv6) {
    const NetworkAttachment made = network_->attach(spec_);
    EXPECT_FALSE(made.netns);
    EXPECT_TRUE(made.tap);
    EXPECT_FALSE(std::filesystem::exists(handle())) << "no namespace is made";
    EXPECT_FALSE(Rtnetlink().findLink(hostLink()));
    const auto link = Rtnetlink().findLink(tap());
    ASSERT_TRUE(link);
    EXPECT_EQ(link->alias, spec_.owner.str());
    EXPECT_THAT(runTool({"/usr/sbin/ip", "-d", "link", "show", "dev", tap()}),
                HasSubstr("type tap pi off vnet_hdr on persist on user " + std::to_string(spec_.tapOwner)));
    const auto off = readFile("/proc/sys/net/ipv6/conf/" + tap() + "/disable_ipv6", 64);
    EXPECT_EQ(off.value_or("1\n"), "1\n") << "or the host has no IPv6";
    EXPECT_EQ(runTool({"/usr/sbin/ip", "-6", "address", "show", "dev", tap()}), "");
    const std::string rules = runTool({"/usr/sbin/nft", "list table inet mergen_" + host_.instance()});
    EXPECT_THAT(rules, HasSubstr("\"" + tap() + "\" . " + spec_.guest.str()));
}

TEST_F(TapTopologyTest, AForeignLinkOfTheTapsNameIsRefusedAndStays) {
    ip(here, {"link", "add", tap(), "type", "veth", "peer", "name", "peer"});
    expectRefused(spec_, tap());
    ip(here, {"link", "set", tap(), "alias", networkSpec("deadbeef", 2).owner.str()});
    expectRefused(spec_, tap());
    ip(here, {"link", "delete", tap()});
    ip(here, {"tuntap", "add", "dev", tap(), "mode", "tap"});  // the very kind, of nobody
    expectRefused(spec_, tap());
    ip(here, {"link", "delete", tap()});
}

TEST_F(TapTopologyTest, AttachCompletesAWireOfWhichAnyPartWasTakenAway) {
    network_->attach(spec_);
    const int before = Rtnetlink().findLink(tap())->index;
    const std::string table = "mergen_" + host_.instance();
    const std::map<std::string, std::vector<std::string>> parts{
        {"state", {"/usr/sbin/ip", "link", "set", tap(), "down"}},
        {"route", {"/usr/sbin/ip", "route", "delete", spec_.guest.str()}},
        {"address", {"/usr/sbin/ip", "address", "flush", "dev", tap()}},
        {"filter element", {"/usr/sbin/nft", "delete element inet " + table + " guest_links { \"" + tap() + "\" }"}},
        {"table", {"/usr/sbin/nft", "delete table inet " + table}}};
    for (const auto& [part, takeAway] : parts) {
        SCOPED_TRACE(part);
        runTool(takeAway);
        EXPECT_FALSE(network_->inspect(spec_));
        network_->attach(spec_);
        EXPECT_TRUE(network_->inspect(spec_));
        EXPECT_EQ(Rtnetlink().findLink(tap())->index, before) << "a tap that a VMM may have open is kept";
    }
    ip(here, {"link", "delete", tap()});
    EXPECT_FALSE(network_->inspect(spec_));
    network_->attach(spec_);
    EXPECT_TRUE(network_->inspect(spec_));
}

TEST_F(LinuxNetworkTest, TheNextVmsNamespaceIsReadyAndEndsWithStop) {
    const auto awaitOne = [] {
        constexpr std::chrono::seconds patience{30};
        const auto deadline = std::chrono::steady_clock::now() + patience;
        while (openNamespaces().empty() && std::chrono::steady_clock::now() < deadline) std::this_thread::yield();
        const std::multiset<std::string> open = openNamespaces();
        return open.empty() ? std::string() : *open.begin();
    };
    // One that is to be seen may not be ready yet, in the very moment in which it is made.
    bool used = false;
    for (int i = 0; i < 10 && !used; ++i) {
        const std::string ready = awaitOne();
        ASSERT_NE(ready, "");
        network_->attach(spec_);
        struct stat status {};
        ASSERT_EQ(::stat(("/run/netns/" + spec_.netns).c_str(), &status), 0);
        used = ready == "net:[" + std::to_string(status.st_ino) + "]";
        network_->detach(spec_);
    }
    EXPECT_TRUE(used);
    ASSERT_NE(awaitOne(), "");
    network_->stop();
    EXPECT_THAT(openNamespaces(), IsEmpty());
    network_.reset();
}

TEST_F(LinuxNetworkTest, TheNamespaceIsAnIpNetnsOfItsName) {
    network_->attach(spec_);
    EXPECT_THAT(runTool({"/usr/sbin/ip", "netns", "list"}), HasSubstr(spec_.netns));
    EXPECT_THAT(runTool({"/usr/sbin/ip", "-n", spec_.netns, "link", "show"}), HasSubstr(spec_.tap.str()));
}

}  // namespace

}  // namespace mergen::network
