#include <gtest/gtest.h>

#include <mergen/base/text.hpp>
#include <mergen/sdk/error.hpp>

namespace mergen {
namespace {

TEST(NearestWord, FindsTypingMistakesAndNothingFarther) {
    const std::vector<std::string> words{"rootfs", "kernel", "vcpu", "memMiB", "ports"};
    EXPECT_EQ(nearestWord("kernal", words), "kernel");
    EXPECT_EQ(nearestWord("port", words), "ports");
    EXPECT_EQ(nearestWord("vcpus", words), "vcpu");
    EXPECT_EQ(nearestWord("hooks", words), "");
    EXPECT_EQ(nearestWord("", words), "");
    EXPECT_EQ(nearestWord(std::string(100'000, 'k'), words), "");
}

TEST(Split, KeepsEmptyPieces) {
    EXPECT_EQ(split("a,,b,", ','), (std::vector<std::string>{"a", "", "b", ""}));
    EXPECT_EQ(split("", ','), (std::vector<std::string>{""}));
}

TEST(Trim, TakesBlanksAtBothEnds) {
    EXPECT_EQ(trim(" \t a b\r "), "a b");
    EXPECT_EQ(trim(" \t "), "");
}

TEST(CleanUtf8, RefusesNulOverlongSurrogatesAndTornSequences) {
    EXPECT_TRUE(isCleanUtf8("plain \xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80"));
    using namespace std::string_view_literals;
    for (const std::string_view bad : {"a\0b"sv, "\xc0\xaf"sv, "\xe0\x80\xaf"sv, "\xed\xa0\x80"sv, "\xf4\x90\x80\x80"sv,
                                       "\xf0\x80\x80\x80"sv, "\xc3"sv, "\xe2\x82"sv, "\x80"sv, "\xff"sv, "\xc3("sv}) {
        EXPECT_FALSE(isCleanUtf8(bad));
    }
}

TEST(Printable, ShowsControlCharactersAndCutsLongText) {
    EXPECT_EQ(printable("a\nb\x1b"), "a\\x0ab\\x1b");
    EXPECT_LE(printable(std::string(1000, 'x'), 50).size(), 53U);
}

TEST(Rfc3339, ReadsBackWhatItWrites) {
    const auto time = std::chrono::system_clock::time_point(std::chrono::milliseconds(1'795'323'120'045));
    EXPECT_EQ(rfc3339(time), "2026-11-22T04:52:00.045Z");
    EXPECT_EQ(parseRfc3339(rfc3339(time)), time);
    EXPECT_EQ(parseRfc3339("2026-11-22T04:52:00Z"), time - std::chrono::milliseconds(45));
}

TEST(Rfc3339, RefusesWhatIsNoTime) {
    for (const char* bad :
         {"", "2026-11-22", "2026-11-22T04:52:00", "2026-13-22T04:52:00Z", "2026-02-30T04:52:00Z",
          "2026-11-22T24:52:00Z", "2026-11-22T04:52:00.Z", "2026-11-22T04:52:00.1aZ", "2026-11-22 04:52:00Z"}) {
        EXPECT_THROW(static_cast<void>(parseRfc3339(bad)), Error) << bad;
    }
}

}  // namespace
}  // namespace mergen
