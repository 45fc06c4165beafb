// What is judged by text alone: no root, no network.
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <mergen/sdk/error.hpp>

#include "egress.hpp"
#include "foreign_firewall.hpp"

namespace mergen::network {

namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST(Prefix, IsANetworkOfAnySizeOrAnAddress) {
    EXPECT_EQ(Prefix::parse("10.0.0.0/8").str(), "10.0.0.0/8");
    EXPECT_EQ(Prefix::parse("0.0.0.0/0").str(), "0.0.0.0/0");
    EXPECT_EQ(Prefix::parse("10.1.2.3").str(), "10.1.2.3/32");
    for (const char* const text : {"", "10.0.0.0/", "10.0.0.0/33", "10.0.0.1/8", "10.0.0.0/-1", "10.0.0.0/8x", "x/8"}) {
        EXPECT_THROW(static_cast<void>(Prefix::parse(text)), Error) << text;
    }
    EXPECT_TRUE(Prefix::parse("0.0.0.0/0").contains(Ipv4Address::parse("255.255.255.255")));
    EXPECT_TRUE(Prefix::parse("10.1.2.3").contains(Ipv4Address::parse("10.1.2.3")));
    EXPECT_FALSE(Prefix::parse("10.1.2.0/24").contains(Ipv4Address::parse("10.1.3.0")));
}

TEST(Egress, DeniesFirstThenLetsNameServersThroughThenTheListed) {
    const EgressPolicy policy{.mode = EgressPolicy::Mode::Listed,
                              .denied = parsePrefixes("169.254.0.0/16"),
                              .dns = {Ipv4Address::parse("9.9.9.9")},
                              .allowed = parsePrefixes("10.0.0.0/8, 192.0.2.1")};
    EXPECT_THAT(
        egressRules(policy, "G"),
        ElementsAre("G ip daddr 169.254.0.0/16 counter drop comment \"denied network\"",
                    "G ip daddr 9.9.9.9 meta l4proto { tcp, udp } th dport 53 accept", "G ip daddr 10.0.0.0/8 accept",
                    "G ip daddr 192.0.2.1/32 accept", "G counter drop comment \"egress policy\""));
}

std::vector<std::string> drops(const std::string& chains, const std::string& links = "mg-*") {
    return chainsThatDrop("table ip filter {\n" + chains + "}\n", links);
}

TEST(ForeignFirewall, IsAForwardChainThatDropsByPolicyOrByItsLastRule) {
    const std::string hook = "\tchain F {\n\t\ttype filter hook forward priority 0; policy ";
    EXPECT_THAT(drops(hook + "drop;\n\t}\n"), ElementsAre("F (policy drop)"));
    EXPECT_THAT(drops(hook + "accept;\n\t\tcounter packets 3 bytes 180 drop\n\t}\n"), ElementsAre("F (ends in drop)"));
    EXPECT_THAT(drops(hook + "accept;\n\t\treject with icmpx admin-prohibited\n\t}\n"),
                ElementsAre("F (ends in reject)"));
    EXPECT_THAT(drops(hook + "accept;\n\t\tiifname \"x\" drop\n\t}\n"), IsEmpty()) << "of somebody's link";
    EXPECT_THAT(drops(hook + "accept;\n\t\tdrop\n\t\taccept\n\t}\n"), IsEmpty()) << "not the last";
    EXPECT_THAT(drops("\tchain I {\n\t\ttype filter hook input priority 0; policy drop;\n\t\tdrop\n\t}\n"), IsEmpty());
    EXPECT_THAT(drops("\tchain C {\n\t\tdrop\n\t}\n"), IsEmpty()) << "no base chain";
}

TEST(ForeignFirewall, IsNoneOnceItsTableDecidesAboutOurLinksInBothDirections) {
    const std::string forward = "\tchain F {\n\t\ttype filter hook forward priority 0; policy drop;\n\t\tjump U\n\t}\n";
    const std::string in = "\t\tiifname \"mg-*\" counter packets 0 bytes 0 accept\n";
    const std::string out = "\t\toifname \"mg-*\" counter packets 0 bytes 0 accept\n";
    EXPECT_THAT(drops("\tchain U {\n" + in + out + "\t}\n" + forward), IsEmpty());
    EXPECT_THAT(drops("\tchain U {\n" + in + "\t}\n" + forward), ElementsAre("F (policy drop)"));
    EXPECT_THAT(drops("\tchain U {\n" + in + out + "\t}\n" + forward, "tap-*"), ElementsAre("F (policy drop)"));
    EXPECT_THAT(drops("\tchain U {\n\t\tiifname \"mg-*\" drop\n" + out + "\t}\n" + forward),
                ElementsAre("F (policy drop)"));
}

TEST(ForeignFirewall, MayBeATableOfLegacyIptables) {
    EXPECT_TRUE(hasLegacyFilter("nat\nfilter\n"));
    EXPECT_FALSE(hasLegacyFilter("nat\nmangle\n"));
    EXPECT_FALSE(hasLegacyFilter(""));
}

TEST(ForeignFirewall, SurvivesAnyBeginningOfAListing) {
    const std::string listing =
        "table ip filter {\n\tchain F {\n\t\ttype filter hook forward priority 0; policy drop;\n\t\tcounter packets 0 "
        "bytes 0 drop\n\t}\n}\n";
    for (std::size_t length = 0; length <= listing.size(); ++length) {
        EXPECT_LE(chainsThatDrop(std::string_view(listing).substr(0, length), "mg-*").size(), 1U);
    }
    EXPECT_THAT(drops("\tchain F {\n\t\ttype filter hook forward priority 0; policy accept;\n\t\tcounter packets "
                      "\n\t}\n"),
                IsEmpty());
}

}  // namespace

}  // namespace mergen::network
