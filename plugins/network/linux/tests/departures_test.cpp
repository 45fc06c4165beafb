#include "departures.hpp"

#include <atomic>
#include <chrono>
#include <functional>
#include <future>
#include <latch>
#include <new>
#include <set>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace mergen::network {
namespace {

using namespace std::chrono_literals;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

OwnerTag vm(unsigned number) {
    return {"0a1b2c3d", Uuid::parse("00000000-0000-4000-8000-00000000000" + std::to_string(number))};
}

Ipv4Address address(unsigned number) {
    return Ipv4Address(0x0a000000U + number);
}

/// VM `number`, with the address of that number.
Departures::Guest guest(unsigned number) {
    return {vm(number), {address(number)}};
}

/// What the work was called for, call by call, and the VMs that it fails for.
class DeparturesTest : public ::testing::Test {
protected:
    [[nodiscard]] Departures::Work work() {
        return [this](const std::vector<Departures::Guest>& guests) {
            if (gos_.empty() && held_ != nullptr) {
                begun_.count_down();
                held_->wait();
            }
            done_ = true;
            std::vector<OwnerTag> owners;
            for (const Departures::Guest& one : guests) owners.push_back(one.owner);
            gos_.push_back(owners);
            for (const OwnerTag& owner : owners) {
                if (failing_.contains(owner)) throw Error(ErrorKind::Unavailable, "no: " + owner.vm.str());
            }
        };
    }
    [[nodiscard]] Departures::Report report() {
        return [this](const OwnerTag& owner, const Error& /*error*/) { reported_.push_back(owner); };
    }

    /// VM 1, and in the next go 2 to 4.
    void departInTwoGos(Departures& departures) {
        std::latch go{1};
        held_ = &go;
        departures.add(guest(1));
        begun_.wait();
        for (unsigned number = 2; number <= 4; ++number) departures.add(guest(number));
        go.count_down();
        departures.awaitAll();
    }

    std::latch begun_{1};
    std::latch* held_ = nullptr;  // the first go waits for it
    std::atomic<bool> done_ = false;
    // Written by the thread of Departures; read when nobody is departing.
    std::vector<std::vector<OwnerTag>> gos_;
    std::vector<OwnerTag> reported_;
    std::set<OwnerTag> failing_;  // changed when nobody is departing
};

TEST_F(DeparturesTest, WhoComesWhileItWorksIsDoneInOneGo) {
    Departures departures(work(), report(), 0ms);
    departInTwoGos(departures);
    EXPECT_THAT(gos_, ElementsAre(ElementsAre(vm(1)), ElementsAre(vm(2), vm(3), vm(4))));
    EXPECT_THAT(reported_, IsEmpty());
}

TEST_F(DeparturesTest, TheSameVmAndWhoGetsTheAddressWaitAndNobodyElseDoes) {
    std::latch go{1};
    held_ = &go;
    Departures departures(work(), report(), 0ms);
    departures.add(guest(1));
    begun_.wait();
    departures.await(vm(2), {address(2)});  // would wait for ever
    std::latch asking{2};
    const auto waitFor = [&](const OwnerTag& owner, Ipv4Address own) {
        return std::async(std::launch::async, [&, owner, own] {
            asking.count_down();
            departures.await(owner, {own});
            return done_.load();
        });
    };
    std::future<bool> same = waitFor(vm(1), address(9));
    std::future<bool> heir = waitFor(vm(3), address(1));
    asking.wait();
    go.count_down();
    EXPECT_TRUE(same.get());
    EXPECT_TRUE(heir.get());
    EXPECT_THAT(gos_, ElementsAre(ElementsAre(vm(1))));
}

TEST_F(DeparturesTest, WantOfMemoryEndsNothing) {
    unsigned calls = 0;
    const auto failingReport = [&](const OwnerTag& owner, const Error& /*error*/) {
        if (++calls == 1) throw std::bad_alloc();
        reported_.push_back(owner);
    };
    failing_ = {vm(1)};
    Departures departures(work(), failingReport, 0ms);
    departures.add(guest(1));
    departures.awaitAll();
    EXPECT_THAT(reported_, ElementsAre(vm(1)));
}

TEST_F(DeparturesTest, AFailureIsToldAndTriedAgainByWhoNeedsTheAddress) {
    failing_ = {vm(1)};
    Departures departures(work(), report(), 0ms);
    departures.add(guest(1));
    departures.awaitAll();
    EXPECT_THAT(reported_, ElementsAre(vm(1)));
    departures.await(vm(2), {address(2)});
    EXPECT_EQ(gos_.size(), 1U) << "nobody has asked for it";
    EXPECT_THROW(departures.await(vm(2), {address(1)}), Error);
    EXPECT_THROW(departures.await(vm(1), {}), Error);
    EXPECT_EQ(gos_.size(), 3U);
    failing_ = {};
    departures.await(vm(2), {address(1)});
    departures.await(vm(1), {});
    EXPECT_EQ(gos_.size(), 4U) << "done once is done";
}

TEST_F(DeparturesTest, AFailureOfOneIsNotThatOfTheOthers) {
    failing_ = {vm(3)};
    Departures departures(work(), report(), 0ms);
    departInTwoGos(departures);
    EXPECT_THAT(reported_, ElementsAre(vm(3)));
    departures.await(vm(2), {});
    departures.await(vm(4), {});
    EXPECT_THROW(departures.await(vm(3), {}), Error);
}

TEST_F(DeparturesTest, AVmThatComesAgainAfterAFailureKeepsTheAddressesItHad) {
    failing_ = {vm(1)};
    Departures departures(work(), report(), 0ms);
    departures.add(guest(1));
    departures.awaitAll();
    departures.add({vm(1), {}});
    departures.awaitAll();
    EXPECT_THROW(departures.await(vm(2), {address(1)}), Error);
}

TEST_F(DeparturesTest, ItWaitsForMoreToComeUntilSomebodyNeedsItDone) {
    Departures departures(work(), report(), std::chrono::hours(1));
    for (unsigned number = 1; number <= 3; ++number) departures.add(guest(number));
    departures.await(vm(9), {address(2)});
    EXPECT_THAT(gos_, ElementsAre(ElementsAre(vm(1), vm(2), vm(3))));
    departures.add(guest(4));
    departures.awaitAll();
    EXPECT_EQ(gos_.size(), 2U);
    departures.add(guest(5));  // and its end does not wait for an hour
}

TEST_F(DeparturesTest, ItsEndWaitsForWhoCameBefore) {
    {
        Departures departures(work(), report(), 0ms);
        for (unsigned number = 1; number <= 9; ++number) departures.add(guest(number));
    }
    std::set<OwnerTag> done;
    for (const auto& owners : gos_) done.insert(owners.begin(), owners.end());
    EXPECT_EQ(done.size(), 9U);
}

}  // namespace
}  // namespace mergen::network
