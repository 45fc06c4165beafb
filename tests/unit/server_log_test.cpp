#include <array>
#include <chrono>
#include <cstdlib>
#include <fcntl.h>
#include <limits>
#include <thread>
#include <unistd.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <mergen/base/fd.hpp>
#include <mergen/base/json.hpp>
#include <mergen/base/text.hpp>
#include <mergen/server/log.hpp>

#include "server_test_support.hpp"

namespace mergen::server {
namespace {

const auto time0 = std::chrono::sys_days(std::chrono::year(2026) / 11 / 22) + std::chrono::milliseconds(123);

std::string line(LogFormat format, std::initializer_list<LogField> fields, std::string_view event = "a.b") {
    return formatLogLine(format, LogLevel::Warning, time0, event, {fields.begin(), fields.size()});
}

std::string json(std::string_view value) {
    return line(LogFormat::Json, {{"k", value}});
}
std::string text(std::string_view value) {
    return line(LogFormat::Text, {{"k", value}});
}

TEST(LogLine, JsonHasTimeLevelEventAndTypedFields) {
    EXPECT_EQ(line(LogFormat::Json, {{"s", "x y"}, {"i", -5}, {"d", 0.5}, {"b", true}}),
              R"({"time":"2026-11-22T00:00:00.123Z","level":"warn","event":"a.b","s":"x y","i":-5,"d":0.5,"b":true})");
}

TEST(LogLine, TextHasLevelTimeEventAndQuotesWhereNeeded) {
    EXPECT_EQ(line(LogFormat::Text, {{"plain", "a/b:1"}, {"blank", "x y"}, {"empty", ""}, {"equals", "a=b"}, {"n", 7}}),
              R"([WARN] 2026-11-22T00:00:00.123Z a.b plain=a/b:1 blank="x y" empty="" equals="a=b" n=7)");
}

TEST(LogLine, ConsoleIsTextWithTheColourOfTheLevelIfAsked) {
    const auto console = [](LogLevel level, bool coloured) {
        const LogField fields[] = {{"plain", "a/b:1"}, {"blank", "x y"}, {"quote", "a\"b"}, {"equals", "a=b"}};
        return formatLogLine(LogFormat::Console, level, time0, "a.b", fields, coloured);
    };
    const std::string rest = R"(] 2026-11-22T00:00:00.123Z a.b plain=a/b:1 blank="x y" quote="a\"b" equals="a=b")";
    EXPECT_EQ(console(LogLevel::Info, false), "[INFO" + rest);
    EXPECT_EQ(console(LogLevel::Info, true), "[\x1b[34mINFO\x1b[0m" + rest);
    EXPECT_EQ(console(LogLevel::Warning, true), "[\x1b[33mWARN\x1b[0m" + rest);
    EXPECT_EQ(console(LogLevel::Error, true), "[\x1b[31mERROR\x1b[0m" + rest);
    EXPECT_EQ(console(LogLevel::Debug, true), "[\x1b[36mDEBUG\x1b[0m" + rest);
}

TEST(LogLine, NoOtherFormatHasColours) {
    for (const LogFormat format : {LogFormat::Json, LogFormat::Text}) {
        const std::string made = formatLogLine(format, LogLevel::Error, time0, "a.b", {}, /*coloured=*/true);
        EXPECT_EQ(made.find('\x1b'), std::string::npos) << made;
    }
}

TEST(LogLine, NothingInAValueEndsTheLineOrMovesTheTerminal) {
    std::string all;
    for (int byte = 0; byte < 256; ++byte) all += static_cast<char>(byte);
    for (const std::string& made : {json(all), text(all)}) {
        for (const char c : made) {
            const auto byte = static_cast<unsigned char>(c);
            EXPECT_TRUE(byte >= 0x20 && byte != 0x7f);
        }
        EXPECT_TRUE(isCleanUtf8(made));
    }
}

TEST(LogLine, AValueCannotForgeAField) {
    EXPECT_EQ(text("x level=error\n[ERROR] forged"),
              R"([WARN] 2026-11-22T00:00:00.123Z a.b k="x level=error\n[ERROR] forged")");
    const auto object = json::parseObject(json(R"(x","level":"error","y":")"));
    EXPECT_EQ(object->getValue<std::string>("k"), R"(x","level":"error","y":")");
    EXPECT_EQ(object->getValue<std::string>("level"), "warn");
    EXPECT_EQ(object->size(), 4U);
}

TEST(LogLine, BidirectionalAndInvisibleCharactersAreEscaped) {
    EXPECT_NE(json("a\u202Eb").find(R"("a\u202eb")"), std::string::npos);
    EXPECT_NE(text("a\u2066b").find(R"("a\u2066b")"), std::string::npos);
    EXPECT_NE(json("\u200B").find(R"("\u200b")"), std::string::npos);
    EXPECT_NE(json("\u0085").find(R"("\u0085")"), std::string::npos);            // C1: next line
    EXPECT_NE(json("\u2028").find(R"("\u2028")"), std::string::npos);            // line separator
    EXPECT_NE(json("\U000E0041").find(R"("\udb40\udc41")"), std::string::npos);  // a tag
    EXPECT_NE(json("häuser \U0001F600 日本").find("häuser \U0001F600 日本"), std::string::npos);
}

TEST(LogLine, BytesThatAreNotUtf8BecomeReplacementCharacters) {
    EXPECT_NE(json("a\xff\xc3").find(R"("a\ufffd\ufffd")"), std::string::npos);
    EXPECT_NE(json("\xed\xa0\x80").find(R"("\ufffd\ufffd\ufffd")"), std::string::npos);  // a surrogate
    EXPECT_NE(json("\xc0\xaf").find(R"("\ufffd\ufffd")"), std::string::npos);            // overlong
    EXPECT_NE(json("\uFFFD").find("\"\uFFFD\""), std::string::npos);                     // really meant
}

TEST(LogLine, ALongValueIsCutBetweenCharactersAndSaysSo) {
    const std::string made = json(std::string(4095, 'a') + "ä" + std::string(100, 'b'));
    EXPECT_NE(made.find("aaa...(+102 bytes)\""), std::string::npos) << made.substr(made.size() - 60);
    EXPECT_TRUE(isCleanUtf8(made));
    EXPECT_NE(text(std::string(5000, 'a')).find("a...(+904 bytes)\""), std::string::npos);
}

TEST(LogLine, ALongLineDropsFieldsAndCountsThem) {
    const std::string large(4000, 'x');
    const std::string made =
        line(LogFormat::Json,
             {{"a", large}, {"b", large}, {"c", large}, {"d", large}, {"e", large}, {"f", large}, {"g", "x"}});
    EXPECT_LT(made.size(), 32768U);
    EXPECT_NE(made.find("\"fields_dropped\":2}"), std::string::npos);
}

TEST(LogLine, AFieldCannotTakeTheNameOfAnother) {
    const auto object = json::parseObject(line(LogFormat::Json, {{"level", "x"}, {"k", 1}, {"k", 2}}));
    EXPECT_EQ(object->getValue<std::string>("level"), "warn");
    EXPECT_EQ(object->getValue<std::string>("level_"), "x");
    EXPECT_EQ(object->getValue<int>("k"), 1);
    EXPECT_EQ(object->getValue<int>("k_"), 2);
}

TEST(LogLine, NamesHoldOnlyNameCharacters) {
    EXPECT_EQ(line(LogFormat::Text, {{"a b=\n", "v"}, {"", "w"}}, "ev ent\x1b"),
              "[WARN] 2026-11-22T00:00:00.123Z ev_ent_ a_b__=v _=w");
}

TEST(LogLine, NumbersThatJsonLacksAreNull) {
    EXPECT_NE(line(LogFormat::Json, {{"d", std::numeric_limits<double>::infinity()}}).find("\"d\":null"),
              std::string::npos);
    EXPECT_NE(line(LogFormat::Json, {{"d", std::numeric_limits<double>::quiet_NaN()}}).find("\"d\":null"),
              std::string::npos);
    EXPECT_NE(line(LogFormat::Json, {{"i", std::numeric_limits<std::int64_t>::min()}}).find("-9223372036854775808"),
              std::string::npos);
}

TEST(ServerLog, WritesWholeLinesFromManyThreads) {
    const TempDir dir;
    const auto file = dir.path() / "log";
    const UniqueFd fd(::open(file.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
    ServerLog log(fd.get(), LogFormat::Json, LogLevel::Info);
    {
        std::vector<std::jthread> threads;
        for (int thread = 0; thread < 4; ++thread) {
            threads.emplace_back([&log, thread] {
                for (int i = 0; i < 200; ++i)
                    log.info("line", {{"thread", thread}, {"i", i}, {"pad", std::string(300, 'p')}});
            });
        }
    }
    std::size_t count = 0;
    for (const std::string& each : split(contentOf(file), '\n')) {
        if (each.empty()) continue;
        EXPECT_NO_THROW(static_cast<void>(json::parseObject(each))) << each;
        ++count;
    }
    EXPECT_EQ(count, 800U);
    EXPECT_EQ(log.dropped(), 0U);
}

TEST(ServerLog, LeavesOutWhatIsBelowItsLevel) {
    const TempDir dir;
    const auto file = dir.path() / "log";
    const UniqueFd fd(::open(file.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
    ServerLog log(fd.get(), LogFormat::Text, LogLevel::Warning);
    log.debug("no.debug");
    log.info("no.info");
    log.warning("yes.warning");
    log.error("yes.error");
    const std::string written = contentOf(file);
    EXPECT_EQ(written.find("no."), std::string::npos);
    EXPECT_NE(written.find("[WARN]"), std::string::npos);
    EXPECT_NE(written.find("[ERROR]"), std::string::npos);
}

TEST(ServerLog, TakesAnotherFormatAndLevelWhileItIsUsed) {
    const TempDir dir;
    const auto file = dir.path() / "log";
    const UniqueFd fd(::open(file.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
    ServerLog log(fd.get(), LogFormat::Json, LogLevel::Warning);
    log.info("before");
    log.configure(LogFormat::Text, LogLevel::Debug);
    log.debug("after");
    EXPECT_THAT(contentOf(file), testing::MatchesRegex("\\[DEBUG\\] [^ ]+ after\n"));
}

TEST(ServerLog, ATerminalGetsColoursUnlessTheEnvironmentSaysNoAndNothingElseDoes) {
    const UniqueFd master(::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC));
    ASSERT_TRUE(master) << "needs a pseudo-terminal";
    ASSERT_EQ(::grantpt(master.get()), 0);
    ASSERT_EQ(::unlockpt(master.get()), 0);
    const UniqueFd terminal(::open(::ptsname(master.get()), O_RDWR | O_NOCTTY | O_CLOEXEC));
    ASSERT_TRUE(terminal);
    ::unsetenv("NO_COLOR");
    EXPECT_TRUE(wantsColours(terminal.get()));
    const TempDir dir;
    const UniqueFd file(::open((dir.path() / "log").c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
    EXPECT_FALSE(wantsColours(file.get()));
    ::setenv("NO_COLOR", "1", /*overwrite=*/1);
    EXPECT_FALSE(wantsColours(terminal.get()));
    ::unsetenv("NO_COLOR");

    ServerLog log(terminal.get(), LogFormat::Console, LogLevel::Info);
    log.info("a.b");
    std::array<char, 256> buffer{};
    const ssize_t got = ::read(master.get(), buffer.data(), buffer.size());
    ASSERT_GT(got, 0);
    EXPECT_THAT(std::string(buffer.data(), static_cast<std::size_t>(got)),
                testing::StartsWith("[\x1b[34mINFO\x1b[0m] "));
}

TEST(ServerLog, ALineThatCannotBeWrittenIsDroppedAndCounted) {
    const UniqueFd full(::open("/dev/full", O_WRONLY | O_CLOEXEC));
    ServerLog log(full.get(), LogFormat::Json, LogLevel::Debug);
    log.info("lost");
    log.error("lost");
    EXPECT_EQ(log.dropped(), 2U);
}

}  // namespace
}  // namespace mergen::server
