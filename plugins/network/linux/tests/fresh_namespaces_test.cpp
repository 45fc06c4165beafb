#include "fresh_namespaces.hpp"

#include <atomic>
#include <chrono>
#include <functional>
#include <set>
#include <sstream>
#include <string>
#include <sys/stat.h>
#include <thread>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <mergen/sdk/error.hpp>

#include "named_namespaces.hpp"
#include "netns_topology.hpp"
#include "network_fixture.hpp"
#include "sysctl.hpp"

namespace mergen::network {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;
using ::testing::HasSubstr;

constexpr auto patience = 30s;
const std::string mark = "furnished";

ino_t inodeOf(const NetNamespace& space) {
    struct stat status {};
    EXPECT_EQ(::fstat(space.fd(), &status), 0);
    return status.st_ino;
}

void await(const std::string& what, const std::function<bool()>& done) {
    const auto deadline = Clock::now() + patience;
    while (!done()) {
        ASSERT_LT(Clock::now(), deadline) << what;
        std::this_thread::yield();
    }
}

FreshNamespace takeKept(FreshNamespaces& spaces) {
    await("one is ready", [&] { return spaces.hasOne(); });
    return spaces.take();
}

/// The mark is set in a namespace that is made ready, and in no other.
bool isMarked(FreshNamespace& fresh) {
    return fresh.inside.findLink("lo").value().alias == mark;
}

class FreshNamespacesTest : public ::testing::Test {
protected:
    void furnish(Rtnetlink& inside) {
        ++tries_;
        if (fail_) throw Error(ErrorKind::Unavailable, "not now");
        inside.setAlias(inside.findLink("lo").value().index, mark);
    }
    std::unique_ptr<FreshNamespaces> make(std::chrono::milliseconds quiet) {
        return std::make_unique<FreshNamespaces>([this](Rtnetlink& inside) { furnish(inside); },
                                                 [this](const std::exception&) { ++reports_; }, quiet);
    }

    const std::string before_ = test::hostSnapshot();
    const std::multiset<std::string> open_ = test::openNamespaces();
    std::atomic<unsigned> tries_ = 0, reports_ = 0;
    std::atomic<bool> fail_ = false;
    const std::unique_ptr<FreshNamespaces> spaces_ = make(0ms);
};

TEST_F(FreshNamespacesTest, WithoutOneReadyItIsMadeOnTheSpotAndBare) {
    std::set<ino_t> inodes{inodeOf(NetNamespace::current())};
    std::vector<FreshNamespace> taken;
    for (int i = 0; i < 3; ++i) {
        taken.push_back(spaces_->take());
        inodes.insert(inodeOf(taken.back().space));
        EXPECT_FALSE(isMarked(taken.back()));
    }
    EXPECT_EQ(inodes.size(), 4U) << "one was given twice, or is ours";
    EXPECT_EQ(tries_, 0U);
}

TEST_F(FreshNamespacesTest, TheSocketIsOfTheNamespaceAndTheThreadStaysWhereItWas) {
    spaces_->keepOne();
    FreshNamespace fresh = takeKept(*spaces_);
    EXPECT_TRUE(isMarked(fresh));
    const std::string alias = fresh.space.run([] { return Rtnetlink().findLink("lo").value().alias; });
    EXPECT_EQ(alias, mark);
    EXPECT_NE(Rtnetlink().findLink("lo").value().alias, mark);
}

TEST_F(FreshNamespacesTest, OneIsReadyAgainAfterEachThatWasTaken) {
    spaces_->keepOne();
    for (int i = 0; i < 5; ++i) {
        FreshNamespace fresh = takeKept(*spaces_);
        EXPECT_TRUE(isMarked(fresh));
    }
    EXPECT_EQ(test::difference(before_, test::hostSnapshot()), "") << "none has a name";
}

TEST_F(FreshNamespacesTest, WhileSeveralAreTakenInARowNoneIsMadeBeside) {
    constexpr auto quiet = 100ms;
    // A machine that stood still for so long in between has seen no row.
    const auto takeSome = [&](FreshNamespaces& spaces) {
        bool row = true;
        auto last = Clock::now();
        for (const auto end = last + 3 * quiet; last < end;) {
            static_cast<void>(spaces.take());
            std::this_thread::sleep_for(1ms);
            const auto now = Clock::now();
            row = row && now - last < quiet;
            last = now;
        }
        return row;
    };
    for (int i = 0; i < 20; ++i) {
        tries_ = 0;
        const auto spaces = make(quiet);
        spaces->keepOne();
        const bool row = takeSome(*spaces);
        const unsigned tries = tries_;
        if (!row) continue;
        EXPECT_EQ(tries, 0U);
        return;
    }
    GTEST_SKIP() << "this machine is too busy";
}

TEST_F(FreshNamespacesTest, NobodyGetsWhatAnotherGot) {
    spaces_->keepOne();
    await("one is ready", [&] { return spaces_->hasOne(); });
    constexpr std::size_t each = 20;
    std::vector<std::vector<FreshNamespace>> taken(4);
    {
        std::vector<std::jthread> threads;
        for (auto& own : taken) {
            threads.emplace_back(
                [&] { EXPECT_NO_THROW(for (std::size_t i = 0; i < each; ++i) own.push_back(spaces_->take())); });
        }
    }
    std::set<ino_t> inodes;
    unsigned kept = 0;
    for (auto& own : taken) {
        for (FreshNamespace& fresh : own) {
            inodes.insert(inodeOf(fresh.space));
            kept += isMarked(fresh) ? 1 : 0;
        }
    }
    EXPECT_EQ(inodes.size(), taken.size() * each);
    EXPECT_GE(kept, 1U);
}

TEST_F(FreshNamespacesTest, OneThatCannotBeFurnishedIsNotKeptAndTheNextOneIsTried) {
    fail_ = true;
    spaces_->keepOne();
    await("it was tried", [&] { return reports_ == 1; });
    EXPECT_FALSE(spaces_->hasOne());
    FreshNamespace bare = spaces_->take();
    EXPECT_FALSE(isMarked(bare)) << "half of it is not given out";
    await("it was tried again", [&] { return reports_ == 2; });
    fail_ = false;
    const FreshNamespace another = spaces_->take();  // which asks for the next
    FreshNamespace fresh = takeKept(*spaces_);
    EXPECT_TRUE(isMarked(fresh));
    EXPECT_EQ(reports_, 2U);
}

TEST_F(FreshNamespacesTest, WhatIsKeptEndsWithStop) {
    spaces_->keepOne();
    await("one is ready", [&] { return spaces_->hasOne(); });
    spaces_->stop();
    EXPECT_EQ(test::openNamespaces(), open_);
    FreshNamespace fresh = spaces_->take();
    EXPECT_FALSE(isMarked(fresh));
    spaces_->stop();
    spaces_->keepOne();
    FreshNamespace again = takeKept(*spaces_);
    EXPECT_TRUE(isMarked(again)) << "it is kept anew";
}

/// What was made of a namespace, line by line.
std::string describe(const NetNamespace& space) {
    return space.run([] {
        std::ostringstream text;
        const Sysctls sysctls;
        Rtnetlink inside;
        for (const Link& link : inside.links()) {
            text << link.name << ' ' << link.alias << ' ' << (link.up ? "up" : "down") << '\n';
            text << link.name << " disable_ipv6 "
                 << sysctls.read("ipv6/conf/" + link.name + "/disable_ipv6").value_or("1") << '\n';
            if (link.name == "lo") continue;
            for (const char* key : {"forwarding", "route_localnet", "arp_ignore", "proxy_arp"}) {
                for (const std::string conf : {"all", "default", link.name.c_str()})
                    text << conf << ' ' << key << ' ' << sysctls.read("ipv4/conf/" + conf + "/" + key).value() << '\n';
            }
        }
        for (const LinkAddress& at : inside.addresses())
            text << at.address.str() << '/' << at.prefix << " on " << at.link << '\n';
        for (const Route& route : inside.routes())
            text << route.base.str() << '/' << route.prefix << " by " << route.link << '\n';
        return text.str();
    });
}

/// The inner part of a VM's wire that is made in a namespace of `fresh`.
std::string describeWireIn(FreshNamespaces& fresh) {
    const NamedNamespaces names{"/run/netns"};
    const NetworkSpec spec = test::networkSpec("fresh", 2);
    const NetnsTopology topology(names, fresh, Ipv4Address::parse("192.0.0.1"), Ipv4Address::parse("192.0.0.2"), 1500);
    static_cast<void>(topology.reserve(spec));
    static_cast<void>(topology.make(spec));
    EXPECT_TRUE(topology.whole(spec));
    std::string text = describe(names.find(spec.netns).value().space.value());
    for (const std::string& own : {spec.owner.str(), spec.owner.vm.short8()}) {
        for (std::size_t at; (at = text.find(own)) != std::string::npos;) text.replace(at, own.size(), "VM");
    }
    Rtnetlink host;
    host.removeLink(host.findLink(NetnsTopology::hostLink(spec.owner)).value().index);
    names.remove(spec.netns, spec.owner);
    return text;
}

class WireInAKeptNamespace : public FreshNamespacesTest {
protected:
    WireInAKeptNamespace() {
        names_.prepare([] {});
    }
    ~WireInAKeptNamespace() override { EXPECT_TRUE(names_.unprepare()); }

    const NamedNamespaces names_{"/run/netns"};
};

TEST_F(WireInAKeptNamespace, IsAsInABareOne) {
    const std::string bare = describeWireIn(*spaces_);
    EXPECT_THAT(bare, HasSubstr("uplink forwarding 1\n"));
    EXPECT_THAT(bare, HasSubstr("lo disable_ipv6 1\n"));
    FreshNamespaces kept(
        &NetnsTopology::furnish, [](const std::exception& error) { FAIL() << error.what(); }, 0ms);
    kept.keepOne();
    await("one is ready", [&] { return kept.hasOne(); });
    EXPECT_EQ(describeWireIn(kept), bare);
}

/// As of a host whose administrator has set them so, and perhaps set them back since.
TEST_F(WireInAKeptNamespace, IsAsEverWhateverSettingsItInherited) {
    const std::string bare = describeWireIn(*spaces_);
    FreshNamespaces odd(
        [](Rtnetlink&) {
            const Sysctls sysctls;
            sysctls.write("ipv4/ip_forward", "1");  // whereupon it is not carried over to what comes next
            sysctls.write("ipv4/conf/default/forwarding", "0");
            for (const std::string links : {"all", "default"}) {
                for (const std::string key : {"route_localnet", "arp_ignore", "proxy_arp"})
                    sysctls.write("ipv4/conf/" + links + "/" + key, "1");
            }
            sysctls.disableIpv6("all");  // and lo has it on again
            if (sysctls.read("ipv6/conf/lo/disable_ipv6")) sysctls.write("ipv6/conf/lo/disable_ipv6", "0");
        },
        [](const std::exception& error) { FAIL() << error.what(); }, 0ms);
    odd.keepOne();
    await("one is ready", [&] { return odd.hasOne(); });
    EXPECT_EQ(describeWireIn(odd), bare);
}

}  // namespace
}  // namespace mergen::network
