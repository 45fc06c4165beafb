#include "target.hpp"

#include <gtest/gtest.h>

#include <mergen/sdk/error.hpp>

namespace mergen::api {
namespace {

TEST(ApiTarget, IsTakenApartBeforeItIsDecodedAndDecodedOnce) {
    const Target target = parseTarget("/v1/a%2fb/%252e?x=%26%3d&y&z=a=b+c");
    EXPECT_EQ(target.segments, (std::vector<std::string>{"v1", "a/b", "%2e"}));
    EXPECT_EQ(target.query, (std::map<std::string, std::string>{{"x", "&="}, {"y", ""}, {"z", "a=b+c"}}));
    EXPECT_EQ(parseTarget("/").segments, (std::vector<std::string>{""}));
    EXPECT_EQ(parseTarget("/a/").segments, (std::vector<std::string>{"a", ""}));
    EXPECT_TRUE(parseTarget("/a?").query.empty());
}

TEST(ApiTarget, RefusesBrokenPercentEncoding) {
    for (const char* text : {"/%", "/%4", "/%zz", "/%4g", "/a?%=1", "/a?b=%f", "/%+1", "/%-1"}) {
        EXPECT_THROW(static_cast<void>(parseTarget(text)), Error) << text;
    }
}

TEST(ApiTarget, RefusesAParameterThatStandsTwice) {
    EXPECT_THROW(static_cast<void>(parseTarget("/a?b=1&b=1")), Error);
    EXPECT_THROW(static_cast<void>(parseTarget("/a?b=1&%62=2")), Error);
}

TEST(ApiTarget, NamesTheNearestParameter) {
    try {
        checkParameters(parseTarget("/a?retaindata=1"), std::vector<std::string>{"retainData"});
        FAIL() << "nothing was thrown";
    } catch (const Error& error) {
        EXPECT_EQ(error.field(), "retaindata");
        EXPECT_STREQ(error.what(), "retaindata: unknown query parameter, did you mean retainData?");
    }
    EXPECT_NO_THROW(checkParameters(parseTarget("/a?retainData=1"), std::vector<std::string>{"retainData"}));
}

TEST(ApiTarget, BooleansAreThoseOfParseBool) {
    for (const char* text : {"1", "t", "T", "true", "TRUE", "True"}) EXPECT_TRUE(parseBool("b", text)) << text;
    for (const char* text : {"0", "f", "F", "false", "FALSE", "False"}) EXPECT_FALSE(parseBool("b", text)) << text;
    for (const char* text : {"", "yes", "no", "2", "tRUE", " true", "true ", "on", "-1", "00"}) {
        EXPECT_THROW(static_cast<void>(parseBool("b", text)), Error) << text;
    }
}

TEST(ApiTarget, NumbersAreDecimalAndInRange) {
    EXPECT_EQ(parseNumber("n", "1", 1, 10), 1U);
    EXPECT_EQ(parseNumber("n", "10", 1, 10), 10U);
    for (const char* text : {"", "0", "11", "-1", "+1", "1.0", "0x1", " 1", "1 ", "99999999999999999999"}) {
        EXPECT_THROW(static_cast<void>(parseNumber("n", text, 1, 10)), Error) << text;
    }
}

}  // namespace
}  // namespace mergen::api
