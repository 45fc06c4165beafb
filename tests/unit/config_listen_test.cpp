#include <gtest/gtest.h>

#include <mergen/sdk/error.hpp>
#include <mergen/server/listen.hpp>

namespace mergen::server {
namespace {

TEST(Listen, TakesEveryFormOfLoopback) {
    EXPECT_EQ(parseListen("127.0.0.1:8080"), (ListenAddress{"127.0.0.1", 8080}));
    EXPECT_EQ(parseListen("localhost:1"), (ListenAddress{"127.0.0.1", 1}));
    EXPECT_EQ(parseListen(":65535"), (ListenAddress{"127.0.0.1", 65535}));
    EXPECT_EQ(parseListen("[::1]:0"), (ListenAddress{"::1", 0}));
}

TEST(Listen, TakesEveryOtherAddressInOneSpelling) {
    EXPECT_EQ(parseListen("192.0.2.7:80"), (ListenAddress{"192.0.2.7", 80}));
    EXPECT_EQ(parseListen("*:80"), (ListenAddress{"0.0.0.0", 80}));
    EXPECT_EQ(parseListen("[::]:80"), (ListenAddress{"::", 80}));
    EXPECT_EQ(parseListen("[0:0:0:0:0:0:0:1]:80"), (ListenAddress{"::1", 80}));
    EXPECT_EQ(parseListen("[2001:DB8::0:1]:80"), (ListenAddress{"2001:db8::1", 80}));
    EXPECT_EQ(parseListen("[::ffff:127.0.0.1]:80"), (ListenAddress{"::ffff:127.0.0.1", 80}));
}

TEST(Listen, AnEmptyTextIsNoAddress) {
    EXPECT_EQ(parseListen(""), ListenAddress{});
    EXPECT_EQ(toString(ListenAddress{}), "");
}

TEST(Listen, PrintsWhatItReads) {
    for (const char* const text : {"127.0.0.1:8080", "[::1]:0", "0.0.0.0:1", "[2001:db8::1]:2"})
        EXPECT_EQ(toString(parseListen(text)), text);
}

std::string refusalOf(std::string_view text) {
    try {
        static_cast<void>(parseListen(text));
    } catch (const Error& error) {
        EXPECT_EQ(error.kind(), ErrorKind::InvalidArgument);
        return error.what();
    }
    return "accepted";
}

TEST(Listen, RefusesNamesAndWhatOnlyLooksLikeAnAddress) {
    for (const char* const text :
         {"example.org:80", "127.0.0.1.evil:80", "127.1:80", "[127.0.0.1]:80", " 127.0.0.1:80", "0x7f.0.0.1:80",
          "2130706433:80", "[]:80", "[::1%lo]:80", "**:80", "LOCALHOST.:80"}) {
        EXPECT_NE(refusalOf(text).find("is no address, and names are not looked up"), std::string::npos)
            << refusalOf(text);
    }
    EXPECT_NE(refusalOf("[fe80::1]:80").find("a link-local address needs an interface"), std::string::npos);
}

TEST(Listen, RefusesWhatIsNoPort) {
    for (const char* const text :
         {":", "127.0.0.1:", ":65536", ":-1", ":+1", ":80x", ":0x50", ": 80", "localhost:http"}) {
        EXPECT_NE(refusalOf(text).find("the port is not a number from 0 to 65535"), std::string::npos)
            << refusalOf(text);
    }
    EXPECT_NE(refusalOf("8080").find("the port is missing"), std::string::npos);
}

TEST(Listen, RefusesAnIpv6AddressWithoutBrackets) {
    EXPECT_NE(refusalOf("::1:8080").find("stands in brackets"), std::string::npos);
}

}  // namespace
}  // namespace mergen::server
