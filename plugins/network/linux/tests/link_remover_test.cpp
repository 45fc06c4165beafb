#include "link_remover.hpp"

#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "net_namespace.hpp"
#include "network_fixture.hpp"

namespace mergen::network {
namespace {

class LinkRemoverTest : public ::testing::Test {
protected:
    Link makePair(const std::string& name) {
        host_.makeVethPair({name, MacAddress::parse("06:00:00:00:00:01")},
                           {name + "p", MacAddress::parse("06:00:00:00:00:02")}, NetNamespace::current().fd(), 1500);
        return host_.findLink(name).value();
    }

    const std::string before_ = test::hostSnapshot();
    Rtnetlink host_;
    LinkRemover remover_;
};

TEST_F(LinkRemoverTest, ALinkIsOutOfSightAndItsNameFreeOnReturn) {
    for (int round = 0; round < 20; ++round) {
        const Link link = makePair("lr-a");
        remover_.remove(host_, link);
        EXPECT_FALSE(host_.findLink("lr-a"));
        EXPECT_FALSE(host_.findLink("lr-ap")) << "the other end goes with it";
    }
    EXPECT_EQ(test::difference(before_, test::hostSnapshot()), "");
}

TEST_F(LinkRemoverTest, MoreThanItWaitsForAtOnceAreRemovedAllTheSame) {
    for (int number = 0; number < 80; ++number) {
        const Link link = makePair("lr-" + std::to_string(number));
        remover_.remove(host_, link);
    }
    EXPECT_EQ(test::difference(before_, test::hostSnapshot()), "");
    remover_.finish();
    remover_.finish();
    EXPECT_EQ(test::difference(before_, test::hostSnapshot()), "");
}

TEST_F(LinkRemoverTest, ALinkThatIsGoneIsNoErrorAndAnotherOfItsNameIsLeft) {
    const Link link = makePair("lr-a");
    host_.removeLink(link.index);
    remover_.remove(host_, link);
    const Link other = makePair("lr-a");
    remover_.remove(host_, link);
    EXPECT_EQ(host_.findLink("lr-a").value().index, other.index);
    remover_.remove(host_, other);
}

TEST_F(LinkRemoverTest, WhatTheKernelRefusesIsThrown) {
    const Link loopback = host_.findLink("lo").value();
    EXPECT_THROW(remover_.remove(host_, loopback), Error);
    EXPECT_EQ(test::difference(before_, test::hostSnapshot()), "");
}

}  // namespace
}  // namespace mergen::network
