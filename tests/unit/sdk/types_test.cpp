#include <set>

#include <gtest/gtest.h>

#include <mergen/sdk/error.hpp>
#include <mergen/sdk/types.hpp>

namespace mergen {
namespace {

/// Whether `parse` refuses the text as wrong input and says the rule.
template <typename Parse>
testing::AssertionResult refuses(Parse parse, std::string_view text) {
    try {
        static_cast<void>(parse(text));
    } catch (const Error& error) {
        if (error.kind() == ErrorKind::InvalidArgument) return testing::AssertionSuccess();
        return testing::AssertionFailure() << "wrong kind: " << error.what();
    }
    return testing::AssertionFailure() << "accepted '" << text << "'";
}

TEST(Uuid, RandomOnesAreVersionFourAndDiffer) {
    std::set<std::string> seen;
    for (int i = 0; i < 1000; ++i) {
        const std::string text = Uuid::random().str();
        EXPECT_EQ(text.size(), 36U);
        EXPECT_EQ(text[14], '4');
        EXPECT_NE(std::string("89ab").find(text[19]), std::string::npos);
        EXPECT_TRUE(seen.insert(text).second);
        EXPECT_EQ(Uuid::parse(text).str(), text);
    }
}

TEST(Uuid, RefusesWhatIsNone) {
    for (const char* bad :
         {"", "0a1b2c3d", "0a1b2c3d-4e5f-4a6b-8c7d-9e0f1a2b3c4", "0a1b2c3d-4e5f-4a6b-8c7d-9e0f1a2b3c4dd",
          "0A1B2C3D-4e5f-4a6b-8c7d-9e0f1a2b3c4d", "0a1b2c3d-4e5f-1a6b-8c7d-9e0f1a2b3c4d",
          "0a1b2c3d-4e5f-4a6b-0c7d-9e0f1a2b3c4d", "0a1b2c3d+4e5f-4a6b-8c7d-9e0f1a2b3c4d",
          "0a1b2c3g-4e5f-4a6b-8c7d-9e0f1a2b3c4d", "../../../../../../../../../../../../etc"}) {
        EXPECT_TRUE(refuses(Uuid::parse, bad));
    }
}

TEST(RecordId, TakesLowerCaseLettersDigitsAndHyphens) {
    for (const char* good : {"a", "machine-app1", "0", "0a1b2c3d-4e5f-4a6b-8c7d-9e0f1a2b3c4d"}) {
        EXPECT_EQ(RecordId::parse(good).str(), good);
    }
    EXPECT_EQ(RecordId::parse(std::string(63, 'x')).str().size(), 63U);
}

TEST(RecordId, RefusesWhateverCouldLeaveAPath) {
    for (const std::string& bad :
         {std::string(), std::string("."), std::string(".."), std::string("a/b"), std::string("-a"), std::string("A"),
          std::string("a_b"), std::string("a b"), std::string("a\0b", 3), std::string("a\n"), std::string("\xc3\xa9"),
          std::string(64, 'x'), std::string("%2e")}) {
        EXPECT_TRUE(refuses(RecordId::parse, bad));
    }
}

TEST(OwnerTag, ReadsBackWhatItWrites) {
    const OwnerTag tag{"0a1b2c3d", Uuid::random()};
    EXPECT_EQ(OwnerTag::parse(tag.str()), tag);
}

TEST(OwnerTag, IsNothingForEverythingElse) {
    const std::string uuid = Uuid::random().str();
    for (const std::string& bad :
         {std::string(), std::string("mergen:"), "mergen:0a1b2c3d:" + uuid + "x", "mergen:0a1b2c3:" + uuid,
          "Mergen:0a1b2c3d:" + uuid, "mergen:0A1B2C3D:" + uuid, "mergen:0a1b2c3d-" + uuid, "docker:0a1b2c3d:" + uuid}) {
        EXPECT_FALSE(OwnerTag::parse(bad).has_value()) << bad;
    }
}

TEST(IfName, KeepsToTheKernelsLength) {
    EXPECT_EQ(IfName::parse("tap-0a1b2c3d").str(), "tap-0a1b2c3d");
    EXPECT_EQ(IfName::parse("fifteen-letters").str().size(), 15U);
    for (const char* bad : {"", "sixteen-letters-", ".", "..", "a/b", "a b", "a\n", "tap:0", "t\xc3\xa9"}) {
        EXPECT_TRUE(refuses(IfName::parse, bad));
    }
}

TEST(MacAddress, ComesFromTheFirstThreeBytesOfTheUuid) {
    const Uuid uuid = Uuid::parse("0a1b2c3d-4e5f-4a6b-8c7d-9e0f1a2b3c4d");
    EXPECT_EQ(MacAddress::of(uuid).str(), "02:fc:0a:1b:2c:01");
    EXPECT_EQ(MacAddress::parse("02:FC:0A:1B:2C:01"), MacAddress::of(uuid));
    EXPECT_EQ(MacAddress::of(uuid, 1).str(), "02:fc:0a:1b:2c:02");
    EXPECT_EQ(MacAddress::of(uuid, 3).str(), "02:fc:0a:1b:2c:04");
    EXPECT_EQ(MacAddress::of(uuid).bytes()[0] & 3U, 2U) << "locally administered, unicast";
    for (const char* bad : {"", "02:fc:0a:1b:2c", "02-fc-0a-1b-2c-01", "02:fc:0a:1b:2c:0g", "02:fc:0a:1b:2c:01:"}) {
        EXPECT_TRUE(refuses(MacAddress::parse, bad));
    }
}

TEST(Ipv4Address, ReadsDottedQuadsOnly) {
    EXPECT_EQ(Ipv4Address::parse("172.30.0.2").str(), "172.30.0.2");
    EXPECT_EQ(Ipv4Address::parse("255.255.255.255").value(), 0xffffffffU);
    for (const char* bad :
         {"", "1.2.3", "1.2.3.4.5", "1.2.3.256", "1.2.3.04", "1.2.3.-4", "1.2.3. 4", "1.2.3.4 ", "::1", "1..2.3"}) {
        EXPECT_TRUE(refuses(Ipv4Address::parse, bad));
    }
}

TEST(Ipv4Network, KnowsItsAddresses) {
    const Ipv4Network network = Ipv4Network::parse("172.30.4.0/22");
    EXPECT_EQ(network.str(), "172.30.4.0/22");
    EXPECT_EQ(network.size(), 1024U);
    EXPECT_EQ(network.netmask().str(), "255.255.252.0");
    EXPECT_EQ(network.broadcast().str(), "172.30.7.255");
    EXPECT_EQ(network.host(2).str(), "172.30.4.2");
    EXPECT_TRUE(network.contains(Ipv4Address::parse("172.30.7.9")));
    EXPECT_FALSE(network.contains(Ipv4Address::parse("172.30.8.0")));
}

TEST(Ipv4Network, RefusesHostBitsAndOddPrefixes) {
    for (const char* bad : {"172.30.0.1/24", "172.30.0.0", "172.30.0.0/", "172.30.0.0/7", "172.30.0.0/31",
                            "172.30.0.0/24x", "172.30.0.0/-1", "172.30.0.0/024", "/24"}) {
        EXPECT_TRUE(refuses(Ipv4Network::parse, bad));
    }
}

TEST(PortBinding, SortsByHostPort) {
    EXPECT_LT((PortBinding{20000, Protocol::Udp, 1}), (PortBinding{20001, Protocol::Tcp, 0}));
    EXPECT_LT((PortBinding{20000, Protocol::Tcp, 9}), (PortBinding{20000, Protocol::Udp, 1}));
}

TEST(Parse, ErrorsQuoteTheTextWithoutItsControlCharacters) {
    try {
        static_cast<void>(RecordId::parse("a\x1b[31m\n"));
        FAIL();
    } catch (const Error& error) {
        EXPECT_NE(std::string(error.what()).find("'a?[31m?' is not a VM id: 1 to 63"), std::string::npos)
            << error.what();
    }
}

}  // namespace
}  // namespace mergen
