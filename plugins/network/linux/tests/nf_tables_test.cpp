// What stands in the kernel's sets, and who is heard changing them.
#include "nf_tables.hpp"

#include <cerrno>
#include <string>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "network_fixture.hpp"
#include "ruleset_watch.hpp"

namespace mergen::network {

namespace {

using mergen::test::runTool;
using ::testing::HasSubstr;

constexpr const char* table = "mergen_words";

void nft(const std::string& command) {
    runTool({"/usr/sbin/nft", command});
}

std::string nftList(TableSet set) {
    return runTool({"/usr/sbin/nft", std::string("list ") + (isMap(set) ? "map" : "set") + " inet " + table + " " +
                                         std::string(nameOf(set))});
}

class NfTablesTest : public ::testing::Test {
protected:
    NfTablesTest() {
        nft(std::string("add table inet ") + table);
        for (const TableSet set : allTableSets) {
            nft(std::string("add ") + (isMap(set) ? "map" : "set") + " inet " + table + " " + std::string(nameOf(set)) +
                " { type " + std::string(typeOf(set)) + "; }");
        }
    }
    ~NfTablesTest() override { nft(std::string("delete table inet ") + table); }

    [[nodiscard]] Elements all() {
        Elements found;
        for (const TableSet set : allTableSets) EXPECT_TRUE(tables_.read(set, found));
        return found;
    }

    const Ipv4Address guest_ = Ipv4Address::parse("172.29.7.2");
    const Elements elements_{{guestLink("mg-0123abcd"), {"", "a comment"}},
                             {guestSource("mg-0123abcd", guest_), {"", "a comment"}},
                             {publishedPort(Protocol::Tcp, 20001), {publishedTarget(guest_, 80), "another"}},
                             {publishedPort(Protocol::Udp, 53), {publishedTarget(guest_, 5353), ""}}};
    NfTables tables_{table};
};

TEST_F(NfTablesTest, WhatIsMadeIsWhatNftReads) {
    ASSERT_EQ(tables_.change({}, elements_, {}), 0);
    EXPECT_THAT(nftList(TableSet::GuestLinks), HasSubstr(R"("mg-0123abcd" comment "a comment")"));
    EXPECT_THAT(nftList(TableSet::GuestSources), HasSubstr(R"("mg-0123abcd" . 172.29.7.2 comment "a comment")"));
    EXPECT_THAT(nftList(TableSet::PublishedTcp), HasSubstr(R"(20001 comment "another" : 172.29.7.2 . 80)"));
    EXPECT_THAT(nftList(TableSet::PublishedUdp), HasSubstr("53 : 172.29.7.2 . 5353"));
    EXPECT_EQ(all(), elements_);
}

TEST_F(NfTablesTest, WhatNftMakesIsReadAndTakenAway) {
    const std::string to = std::string("add element inet ") + table;
    nft(to + R"( guest_links { "mg-0123abcd" comment "a comment" })");
    nft(to + R"( guest_sources { "mg-0123abcd" . 172.29.7.2 comment "a comment" })");
    nft(to + R"( published_tcp { 20001 comment "another" : 172.29.7.2 . 80 })");
    nft(to + " published_udp { 53 : 172.29.7.2 . 5353 }");
    EXPECT_EQ(all(), elements_);
    std::vector<ElementKey> gone;
    for (const auto& [key, entry] : elements_) gone.push_back(key);
    ASSERT_EQ(tables_.change(gone, {}, {}), 0);
    EXPECT_EQ(all(), Elements());
}

TEST_F(NfTablesTest, AChangeIsDoneWholeOrNotAtAll) {
    const Elements taken{{publishedPort(Protocol::Tcp, 20001), {publishedTarget(guest_, 81), "first"}}};
    ASSERT_EQ(tables_.change({}, taken, {}), 0);
    EXPECT_EQ(tables_.change({}, elements_, {}), EEXIST);
    EXPECT_THAT(tables_.changeFailure(EEXIST).what(), HasSubstr(table));
    EXPECT_EQ(tables_.change({guestLink("mg-89abcdef")}, elements_, {}), ENOENT) << "the first that fails is told";
    EXPECT_EQ(all(), taken);
    // An element that is replaced goes and comes in one transaction.
    ASSERT_EQ(tables_.change({taken.begin()->first}, elements_, {}), 0);
    EXPECT_EQ(all(), elements_);
}

TEST_F(NfTablesTest, AChangeIsDoneOnlyInTheGenerationThatItIsFor) {
    const std::uint32_t before = tables_.generation();
    nft("add table ip other");
    EXPECT_EQ(tables_.change({}, elements_, before), ERESTART);
    EXPECT_EQ(all(), Elements());
    const std::uint32_t now = tables_.generation();
    ASSERT_EQ(tables_.change({}, elements_, now), 0);
    EXPECT_EQ(tables_.generation(), NfTables::after(now));
    nft("delete table ip other");
}

TEST_F(NfTablesTest, ATransactionMayBeLongerThanASocketsBuffer) {
    Elements many;
    for (std::uint16_t port = 20000; port < 30000; ++port) {
        many.insert_or_assign(publishedPort(Protocol::Tcp, port),
                              ElementEntry{publishedTarget(guest_, port), std::string(100, 'c')});
    }
    ASSERT_EQ(tables_.change({}, many, {}), 0);
    // A hash table that grows meanwhile is listed with gaps.
    Elements found = all();
    for (Elements again = all(); again != found; again = all()) found = std::move(again);
    EXPECT_TRUE(found == many) << found.size();
    // Every one of them fails, which is more than fits into the answers.
    EXPECT_NE(tables_.change({}, many, {}), 0);
    EXPECT_TRUE(all() == many);
}

TEST_F(NfTablesTest, WithoutATableThereAreNoSetsAndNoRules) {
    NfTables none("mergen_none");
    Elements found;
    EXPECT_FALSE(none.read(TableSet::GuestLinks, found));
    EXPECT_EQ(none.countRules(), 0U);
    EXPECT_EQ(none.change({}, elements_, {}), ENOENT);
}

TEST_F(NfTablesTest, TheRulesOfTheOneTableAreCounted) {
    for (const char* const name : {table, "mergen_other"}) {
        nft(std::string("table inet ") + name + " { chain a { accept; accept; }; chain b { drop; }; }");
    }
    EXPECT_EQ(tables_.countRules(), 3U);
    nft("delete table inet mergen_other");
}

TEST(SetElements, AreWrittenAsNftWritesThemWhateverBytesTheyAreOf) {
    EXPECT_EQ(toText(guestLink("mg-0123abcd")), "mg-0123abcd");
    EXPECT_EQ(toText(guestLink("fifteen-letters")), "fifteen-letters");
    EXPECT_EQ(toText(guestSource("mg-0123abcd", Ipv4Address::parse("10.1.2.3"))), "mg-0123abcd . 10.1.2.3");
    EXPECT_EQ(toText(pastSource(guestSource("mg-0123abcd", Ipv4Address::parse("10.1.2.3")))), "mg-0123abcd . 10.1.2.3");
    EXPECT_EQ(toText(publishedPort(Protocol::Udp, 65535)), "65535");
    EXPECT_EQ(toText({TableSet::GuestSources, "short"}), "short . 0.0.0.0");
    EXPECT_EQ(toText({TableSet::PublishedTcp, ""}), "0");
}

class RulesetWatchTest : public NfTablesTest {
protected:
    RulesetWatchTest() { restart(); }
    ~RulesetWatchTest() override {
        nft("add table inet other");
        nft("delete table inet other");
    }
    void restart() {
        watch_.restart();
        from_ = tables_.generation();
    }
    [[nodiscard]] bool untouched() { return watch_.untouched(from_, tables_.generation()); }

    RulesetWatch watch_{table, tables_.port()};
    std::uint32_t from_ = 0;
};

TEST_F(RulesetWatchTest, TransactionsThatLeaveTheTableAloneAreKnownAsSuch) {
    nft(std::string("add table ip ") + table);  // of the name, but of another family
    EXPECT_TRUE(untouched());
    nft("table inet other { set s { type ifname; elements = { \"a\" }; }; chain c { accept; }; counter n { }; }");
    nft("flush chain inet other c");
    EXPECT_TRUE(untouched());
    nft(std::string("delete table ip ") + table);
    nft("delete table inet other");
    EXPECT_TRUE(untouched());
}

TEST_F(RulesetWatchTest, OurOwnAreNoNews) {
    ASSERT_EQ(tables_.change({}, elements_, {}), 0);
    EXPECT_TRUE(untouched());
    nft("add table inet other");
    EXPECT_TRUE(untouched());
}

TEST_F(RulesetWatchTest, WhateverIsChangedOfTheTableIsHeard) {
    const std::string in = std::string("inet ") + table;
    for (const std::string& command :
         {"add element " + in + " guest_links { \"a\" }", "delete element " + in + " guest_links { \"a\" }",
          "add chain " + in + " c", "add rule " + in + " c accept", "flush chain " + in + " c",
          "add counter " + in + " n", "delete chain " + in + " c", "add table " + in + " { flags dormant; }",
          std::string("flush ruleset"), "table " + in + " { set guest_links { type ifname; }; }"}) {
        SCOPED_TRACE(command);
        restart();
        nft(command);
        EXPECT_FALSE(untouched());
        nft("add table inet other");
        EXPECT_FALSE(untouched()) << "until somebody has looked";
        restart();
        nft("delete table inet other");
        EXPECT_TRUE(untouched());
    }
}

TEST_F(RulesetWatchTest, AGenerationThatWasNotHeardOfIsNotVouchedFor) {
    EXPECT_TRUE(untouched()) << "nothing has happened";
    EXPECT_FALSE(watch_.untouched(from_, NfTables::after(from_)));
    nft("add table inet other");
    EXPECT_FALSE(watch_.untouched(from_, NfTables::after(tables_.generation())));
}

TEST_F(RulesetWatchTest, WhatDidNotFitIsNotVouchedFor) {
    NfTables other("other");
    nft("table inet other { set guest_links { type ifname; }; }");
    EXPECT_TRUE(untouched());
    const Elements element{{guestLink("a"), {}}};
    constexpr int more = 2000;  // than a socket takes
    for (int i = 0; i < more; ++i) {
        ASSERT_EQ(other.change({}, element, {}), 0);
        ASSERT_EQ(other.change({guestLink("a")}, {}, {}), 0);
    }
    EXPECT_FALSE(untouched());
    restart();
    ASSERT_EQ(other.change({}, element, {}), 0);
    EXPECT_TRUE(untouched());
}

}  // namespace

}  // namespace mergen::network
