#include "network_contract.hpp"

#include <algorithm>
#include <future>
#include <latch>
#include <set>

namespace mergen {

namespace {

using test::difference;
using test::errorOf;
using test::hostSnapshot;
using test::settledSnapshot;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr PortBinding tcp(std::uint16_t host, std::uint16_t guest) {
    return {host, Protocol::Tcp, guest};
}

std::set<std::string> ownersIn(const std::vector<NetworkFinding>& findings) {
    std::set<std::string> owners;
    for (const NetworkFinding& finding : findings) owners.insert(finding.owner.str());
    return owners;
}

}  // namespace

NetworkContract::NetworkContract()
    : host_(GetParam().keys, GetParam().settings, GetParam().libexec), untouched_(hostSnapshot()), network_(make()) {
    network_->configure(host_);
    network_->start();
    started_ = hostSnapshot();
}

NetworkContract::~NetworkContract() {
    for (const NetworkSpec& spec : vms_) network_->detach(spec);
    network_->stop();
    network_.reset();
    EXPECT_EQ(difference(untouched_, settledSnapshot(untouched_)), "") << "the backend leaves something on the host";
}

void NetworkContract::restart() {
    network_->stop();
    network_ = make();
    network_->configure(host_);
    network_->start();
}

NetworkSpec NetworkContract::vm(std::uint32_t number, std::vector<PortBinding> ports, std::uint8_t cards) {
    NetworkSpec spec = test::withCards(test::networkSpec(host_.instance(), number), cards);
    spec.ports = std::move(ports);
    vms_.push_back(spec);
    return spec;
}

bool NetworkContract::published(std::uint16_t port, Protocol protocol) {
    constexpr std::uint32_t unused = 200;
    NetworkSpec rival = test::networkSpec(host_.instance(), unused);
    rival.ports = {{port, protocol, 1}};
    network_->attach(rival);
    bool refused = false;
    try {
        network_->publish(rival);
    } catch (const Error& error) {
        refused = error.kind() == ErrorKind::AlreadyExists;
        if (!refused) ADD_FAILURE() << error.what();
    }
    network_->detach(rival);
    return refused;
}

TEST_P(NetworkContract, StopMayComeTwiceAndWithoutStart) {
    const auto other = make();
    other->stop();
    other->configure(host());
    other->stop();
    network().stop();
    network().stop();
    EXPECT_EQ(difference(untouched(), settledSnapshot(untouched())), "");
}

TEST_P(NetworkContract, ABackendThatDoesNotTouchTheHostDoesNot) {
    if (network().traits().touchesHost) GTEST_SKIP() << "this backend touches the host";
    const NetworkSpec spec = vm(2, {tcp(20001, 80)});
    network().attach(spec);
    network().publish(spec);
    EXPECT_EQ(difference(untouched(), hostSnapshot()), "");
}

TEST_P(NetworkContract, InspectFindsWhatAttachMade) {
    const NetworkSpec spec = vm(2);
    EXPECT_FALSE(network().inspect(spec));
    const NetworkAttachment made = network().attach(spec);
    const auto found = network().inspect(spec);
    ASSERT_TRUE(found);
    EXPECT_EQ(found->netns, made.netns);
    EXPECT_EQ(found->tap, made.tap);
    EXPECT_EQ(made.tap, network().traits().touchesHost);
}

TEST_P(NetworkContract, QuestionsChangeNothing) {
    const NetworkSpec spec = vm(2, {tcp(20001, 80)});
    network().checkNames(spec);
    static_cast<void>(network().inspect(spec));
    static_cast<void>(network().list());
    static_cast<void>(network().guestSettings());
    EXPECT_EQ(difference(started(), hostSnapshot()), "");
    EXPECT_THAT(network().list(), IsEmpty());
}

TEST_P(NetworkContract, AttachingTwiceIsAttachingOnce) {
    const NetworkSpec spec = vm(2);
    const NetworkAttachment first = network().attach(spec);
    const std::string once = hostSnapshot();
    const NetworkAttachment second = network().attach(spec);
    EXPECT_EQ(first.netns, second.netns);
    EXPECT_EQ(difference(once, hostSnapshot()), "");
}

TEST_P(NetworkContract, AReservedPlaceIsTheOneThatAttachFills) {
    const NetworkSpec spec = vm(2);
    const NetworkAttachment place = network().reserve(spec);
    const std::string reserved = hostSnapshot();
    const NetworkAttachment again = network().reserve(spec);
    EXPECT_EQ(again.netns, place.netns);
    EXPECT_EQ(again.tap, place.tap);
    EXPECT_EQ(difference(reserved, hostSnapshot()), "");
    const NetworkAttachment made = network().attach(spec);
    EXPECT_EQ(made.netns, place.netns);
    EXPECT_EQ(made.tap, place.tap);
    EXPECT_TRUE(network().inspect(spec));
    const std::string whole = hostSnapshot();
    static_cast<void>(network().reserve(spec));
    EXPECT_EQ(difference(whole, hostSnapshot()), "") << "a wire that is there is left as it is";
}

TEST_P(NetworkContract, AReservationAloneIsTakenAwayByDetachAndByRemoveStray) {
    const NetworkSpec spec = vm(2);
    static_cast<void>(network().reserve(spec));
    network().detach(spec);
    EXPECT_THAT(network().list(), IsEmpty());
    EXPECT_EQ(difference(started(), settledSnapshot(started())), "");
    static_cast<void>(network().reserve(spec));
    network().removeStray(spec.owner);
    EXPECT_THAT(network().list(), IsEmpty());
    EXPECT_EQ(difference(started(), settledSnapshot(started())), "");
}

TEST_P(NetworkContract, AReservationOfAServerThatEndedIsCompletedByTheNextOne) {
    const NetworkSpec spec = vm(2);
    const NetworkAttachment place = network().reserve(spec);
    restart();
    EXPECT_EQ(network().attach(spec).netns, place.netns);
    EXPECT_TRUE(network().inspect(spec));
}

TEST_P(NetworkContract, DetachLeavesNothingPublishedPortsIncluded) {
    const NetworkSpec spec = vm(2, {tcp(20001, 80), tcp(20002, 443)});
    network().attach(spec);
    network().publish(spec);
    network().detach(spec);
    EXPECT_FALSE(network().inspect(spec));
    EXPECT_FALSE(published(20001));
    EXPECT_THAT(network().list(), IsEmpty());
    EXPECT_EQ(difference(started(), settledSnapshot(started())), "");
}

TEST_P(NetworkContract, DetachAndUnpublishSucceedTwiceInAnyOrderAndWithoutAttach) {
    const NetworkSpec spec = vm(2, {tcp(20001, 80)});
    network().detach(spec);
    network().unpublish(spec);
    network().attach(spec);
    network().publish(spec);
    network().detach(spec);
    network().unpublish(spec);
    network().unpublish(spec);
    network().detach(spec);
    EXPECT_EQ(difference(started(), settledSnapshot(started())), "");
}

TEST_P(NetworkContract, AWireCanBeMadeAgainAfterDetach) {
    const NetworkSpec spec = vm(2, {tcp(20001, 80)});
    for (int round = 0; round < 3; ++round) {
        network().attach(spec);
        network().publish(spec);
        EXPECT_TRUE(network().inspect(spec));
        network().detach(spec);
        EXPECT_FALSE(network().inspect(spec));
    }
}

TEST_P(NetworkContract, PublishMakesThePortsExactlyThoseOfTheSpec) {
    NetworkSpec spec = vm(2, {tcp(20001, 80), tcp(20002, 81)});
    network().attach(spec);
    network().publish(spec);
    const std::string before = hostSnapshot();
    network().publish(spec);
    EXPECT_EQ(difference(before, hostSnapshot()), "") << "publishing twice is publishing once";
    EXPECT_TRUE(published(20001));

    spec.ports = {tcp(20002, 8081), tcp(20003, 82)};
    network().publish(spec);
    EXPECT_FALSE(published(20001));
    EXPECT_TRUE(published(20002));
    EXPECT_TRUE(published(20003));
    if (network().traits().touchesHost) {
        EXPECT_THAT(hostSnapshot(), HasSubstr("8081"));
    }

    spec.ports = {};
    network().publish(spec);
    EXPECT_FALSE(published(20002));
    EXPECT_FALSE(published(20003));
    EXPECT_TRUE(network().inspect(spec)) << "the wire does not depend on published ports";
}

TEST_P(NetworkContract, UnpublishTakesAllPortsOfThisVmAndOfNoOther) {
    const NetworkSpec one = vm(2, {tcp(20001, 80), tcp(20002, 81)});
    const NetworkSpec two = vm(3, {tcp(20003, 80)});
    for (const NetworkSpec& spec : {one, two}) {
        network().attach(spec);
        network().publish(spec);
    }
    network().unpublish(one);
    EXPECT_FALSE(published(20001));
    EXPECT_FALSE(published(20002));
    EXPECT_TRUE(published(20003));
}

TEST_P(NetworkContract, APortOfAnotherVmIsRefusedWithItsOwnerAndNothingIsChanged) {
    const NetworkSpec holder = vm(2, {tcp(20002, 80)});
    network().attach(holder);
    network().publish(holder);
    NetworkSpec late = vm(3, {tcp(20009, 80)});
    network().attach(late);
    network().publish(late);
    const std::string before = hostSnapshot();

    late.ports = {tcp(20001, 80), tcp(20002, 80), tcp(20003, 80)};
    const auto error = errorOf([&] { network().publish(late); });
    ASSERT_TRUE(error);
    EXPECT_EQ(error->kind(), ErrorKind::AlreadyExists);
    EXPECT_THAT(error->what(), HasSubstr("20002"));
    EXPECT_THAT(error->what(), HasSubstr(holder.owner.vm.str()));
    EXPECT_FALSE(published(20001));
    EXPECT_FALSE(published(20003));
    EXPECT_TRUE(published(20009)) << "the ports that it had are still there";
    EXPECT_EQ(difference(before, settledSnapshot(before)), "");

    network().unpublish(holder);
    EXPECT_NO_THROW(network().publish(late)) << "the port is free now";
}

TEST_P(NetworkContract, AProtocolIsPublishedOrRefusedAsNotSupported) {
    const NetworkSpec spec = vm(2, {{20001, Protocol::Udp, 53}});
    network().attach(spec);
    const std::string before = hostSnapshot();
    try {
        network().publish(spec);
        EXPECT_TRUE(network().traits().udp);
        EXPECT_TRUE(published(20001, Protocol::Udp));
        EXPECT_FALSE(published(20001, Protocol::Tcp)) << "a number of its own for each protocol";
    } catch (const Error& error) {
        EXPECT_FALSE(network().traits().udp);
        EXPECT_EQ(error.kind(), ErrorKind::NotSupported);
        EXPECT_EQ(error.field(), "ports");
        EXPECT_EQ(difference(before, hostSnapshot()), "");
    }
}

TEST_P(NetworkContract, APortIsHeldUntilItIsReleased) {
    for (const Protocol protocol : {Protocol::Tcp, Protocol::Udp}) {
        EXPECT_TRUE(network().holdPort(protocol, 20001));
        EXPECT_TRUE(network().holdPort(protocol, 20001)) << "it is held already";
        EXPECT_TRUE(network().holdPort(protocol, 20002));
        EXPECT_EQ(test::portIsFree(protocol, 20001), !network().traits().touchesHost);
        network().releasePort(protocol, 20001);
        network().releasePort(protocol, 20001);
        EXPECT_TRUE(test::portIsFree(protocol, 20001));
        EXPECT_EQ(test::portIsFree(protocol, 20002), !network().traits().touchesHost);
    }
    EXPECT_EQ(difference(started(), hostSnapshot()), "") << "a port that is held is nothing but a socket";
    network().stop();
    EXPECT_TRUE(test::portIsFree(Protocol::Tcp, 20002)) << "a server that ends holds nothing";
}

TEST_P(NetworkContract, APortOfAnotherProgramIsNotHeldAndStaysIts) {
    if (!network().traits().touchesHost) GTEST_SKIP() << "this backend knows no other programs";
    for (const Protocol protocol : {Protocol::Tcp, Protocol::Udp}) {
        {
            const UniqueFd program = test::bindPort(protocol, 20001);
            ASSERT_TRUE(program);
            EXPECT_FALSE(network().holdPort(protocol, 20001));
        }
        EXPECT_TRUE(test::portIsFree(protocol, 20001)) << "a refusal holds nothing";
        EXPECT_TRUE(network().holdPort(protocol, 20001));
    }
}

TEST_P(NetworkContract, AHeldPortStaysHeldWhateverBecomesOfItsVm) {
    const NetworkSpec spec = vm(2, {tcp(20001, 80)});
    ASSERT_TRUE(network().holdPort(Protocol::Tcp, 20001));
    const bool free = !network().traits().touchesHost;
    network().attach(spec);
    network().publish(spec);
    EXPECT_EQ(test::portIsFree(Protocol::Tcp, 20001), free);
    network().unpublish(spec);
    network().detach(spec);
    EXPECT_EQ(test::portIsFree(Protocol::Tcp, 20001), free);
}

TEST_P(NetworkContract, GuestSettingsAreWithinWhatAGuestCanBeTold) {
    const GuestSettings settings = network().guestSettings();
    EXPECT_LE(settings.dns.size(), 2U);
    EXPECT_TRUE(settings.mtu == 0 || settings.mtu >= 576) << settings.mtu;
}

TEST_P(NetworkContract, NamesAndAddressOfAnotherVmAreRefusedAndItsWireStaysWhole) {
    const NetworkSpec holder = vm(2);
    network().attach(holder);
    network().checkNames(holder);  // its own are no clash
    const std::string before = hostSnapshot();

    NetworkSpec sameName = vm(3);
    sameName.netns = holder.netns;
    sameName.tap = holder.tap;
    NetworkSpec sameAddress = vm(2);
    for (const NetworkSpec& spec : {sameName, sameAddress}) {
        for (const auto& action : {std::function<void()>([&] { network().checkNames(spec); }),
                                   std::function<void()>([&] { network().attach(spec); })}) {
            const auto error = errorOf(action);
            ASSERT_TRUE(error);
            EXPECT_EQ(error->kind(), ErrorKind::AlreadyExists) << error->what();
        }
        network().detach(spec);  // takes nothing of the holder's
        EXPECT_TRUE(network().inspect(holder));
        EXPECT_EQ(difference(before, settledSnapshot(before)), "");
    }
}

TEST_P(NetworkContract, ListTellsWhoHasWhatAndRemoveStrayTakesIt) {
    const NetworkSpec one = vm(2, {tcp(20001, 80)});
    const NetworkSpec two = vm(3, {tcp(20002, 80)});
    for (const NetworkSpec& spec : {one, two}) {
        network().attach(spec);
        network().publish(spec);
    }
    const auto findings = network().list();
    EXPECT_EQ(ownersIn(findings), (std::set<std::string>{one.owner.str(), two.owner.str()}));
    for (const NetworkFinding& finding : findings) EXPECT_FALSE(finding.objects.empty());

    network().removeStray(one.owner);
    EXPECT_EQ(ownersIn(network().list()), (std::set<std::string>{two.owner.str()}));
    EXPECT_FALSE(network().inspect(one));
    EXPECT_TRUE(network().inspect(two));
    EXPECT_FALSE(published(20001));
    EXPECT_TRUE(published(20002));
    network().removeStray(one.owner);
    network().removeStray(two.owner);
    EXPECT_EQ(difference(started(), settledSnapshot(started())), "");
}

TEST_P(NetworkContract, AWireOfSeveralCardsIsMadeFoundCompletedAndTakenAwayAsOne) {
    const NetworkSpec three = vm(2, {}, 3);
    NetworkSpec one = three;
    one.further.clear();
    network().attach(one);
    EXPECT_FALSE(network().inspect(three)) << "two cards are missing";
    const NetworkAttachment made = network().attach(three);
    EXPECT_EQ(made.tap, network().traits().touchesHost);
    EXPECT_TRUE(network().inspect(three));
    const std::string whole = hostSnapshot();
    network().attach(three);
    EXPECT_EQ(difference(whole, hostSnapshot()), "") << "attaching twice is attaching once";
    EXPECT_THAT(network().list(), SizeIs(1)) << "the cards are one VM's";

    network().detach(three);
    EXPECT_FALSE(network().inspect(three));
    network().detach(three);
    EXPECT_EQ(difference(started(), settledSnapshot(started())), "");
    network().attach(three);
    network().removeStray(three.owner);
    EXPECT_THAT(network().list(), IsEmpty());
    EXPECT_EQ(difference(started(), settledSnapshot(started())), "");
}

TEST_P(NetworkContract, TheAddressOfAFurtherCardIsRefusedToOthersAndSoIsOneOfTheirs) {
    const NetworkSpec holder = vm(2, {}, 3);
    network().attach(holder);
    network().checkNames(holder);     // its own are no clash
    const NetworkSpec first = vm(4);  // the holder's eth2
    const NetworkSpec further = vm(100, {}, 2);
    NetworkSpec taken = further;
    taken.further[0].guest = holder.guest;
    const std::string before = hostSnapshot();
    for (const NetworkSpec& spec : {first, taken}) {
        for (const auto& action : {std::function<void()>([&] { network().checkNames(spec); }),
                                   std::function<void()>([&] { network().attach(spec); })}) {
            const auto error = errorOf(action);
            ASSERT_TRUE(error);
            EXPECT_EQ(error->kind(), ErrorKind::AlreadyExists) << error->what();
        }
        EXPECT_TRUE(network().inspect(holder));
        EXPECT_EQ(difference(before, settledSnapshot(before)), "");
    }
    network().detach(holder);
    network().attach(first);
    network().attach(further);
    EXPECT_TRUE(network().inspect(first));
    EXPECT_TRUE(network().inspect(further));
}

TEST_P(NetworkContract, TwoCardsOfOneAddressAreRefusedAndNothingIsMade) {
    NetworkSpec spec = vm(2, {}, 2);
    spec.further[0].guest = spec.guest;
    EXPECT_EQ(errorOf([&] { network().checkNames(spec); })->kind(), ErrorKind::InvalidArgument);
    EXPECT_EQ(errorOf([&] { network().attach(spec); })->kind(), ErrorKind::InvalidArgument);
    EXPECT_THAT(network().list(), IsEmpty());
    EXPECT_EQ(difference(started(), settledSnapshot(started())), "");
}

TEST_P(NetworkContract, ManyVmsAtOnceDoNotDisturbEachOther) {
    constexpr std::uint32_t count = 12;
    std::vector<NetworkSpec> specs;
    for (std::uint32_t i = 0; i < count; ++i) {
        specs.push_back(vm(2 + 2 * i, {tcp(static_cast<std::uint16_t>(20001 + i), 80)}, i % 2 == 0 ? 1 : 2));
    }
    std::latch ready(count);
    std::vector<std::future<void>> running;
    for (const NetworkSpec& spec : specs) {
        running.push_back(std::async(std::launch::async, [&] {
            ready.arrive_and_wait();
            for (int round = 0; round < 3; ++round) {
                network().attach(spec);
                network().publish(spec);
                if (!network().inspect(spec)) throw Error(ErrorKind::Internal, "the wire is not whole");
                network().unpublish(spec);
                network().detach(spec);
            }
            network().attach(spec);
            network().publish(spec);
        }));
    }
    for (auto& one : running) one.wait();
    for (auto& one : running) EXPECT_NO_THROW(one.get());
    EXPECT_THAT(network().list(), SizeIs(count));
    for (const NetworkSpec& spec : specs) {
        EXPECT_TRUE(network().inspect(spec));
        EXPECT_TRUE(published(spec.ports.front().host));
    }
}

TEST_P(NetworkContract, WhatIsOnTheHostOutlivesTheServer) {
    if (!network().traits().touchesHost) GTEST_SKIP() << "this backend keeps its account in memory";
    const NetworkSpec spec = vm(2, {tcp(20001, 80)});
    network().attach(spec);
    network().publish(spec);
    const std::string before = hostSnapshot();
    restart();
    EXPECT_EQ(difference(before, hostSnapshot()), "");
    EXPECT_TRUE(network().inspect(spec));
    EXPECT_TRUE(published(20001));
    EXPECT_EQ(ownersIn(network().list()), (std::set<std::string>{spec.owner.str()}));
    const NetworkSpec late = vm(3, {tcp(20001, 80)});
    network().attach(late);
    const auto error = errorOf([&] { network().publish(late); });
    ASSERT_TRUE(error);
    EXPECT_THAT(error->what(), HasSubstr(spec.owner.vm.str()));
}

}  // namespace mergen
