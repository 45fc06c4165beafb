// The report of a preflight, read by a server that trusts nothing in it.

#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "report.hpp"

namespace mergen::pluginhost::report {
namespace {

ManifestCopy manifest() {
    return {"storage",
            "memory",
            "1.0.0",
            {{"limit", MERGEN_KEY_SIZE, false, "1MiB", "How much."}, {"path", MERGEN_KEY_PATH, true, "", "Where."}}};
}

std::string whole() {
    return stepLine(opening) + stepLine(reading) + manifestLines(manifest()) + stepLine(creating) +
           stepLine(destroying) + stepLine(closing) + doneLine();
}

TEST(PreflightReport, IsReadAsItWasWritten) {
    const Report report = parse(whole());
    EXPECT_TRUE(report.done);
    EXPECT_FALSE(report.refusal);
    EXPECT_EQ(report.step, closing);
    ASSERT_TRUE(report.manifest);
    EXPECT_EQ(report.manifest->kind, "storage");
    EXPECT_EQ(report.manifest->name, "memory");
    EXPECT_EQ(report.manifest->version, "1.0.0");
    ASSERT_EQ(report.manifest->keys.size(), 2U);
    EXPECT_EQ(report.manifest->keys[0].defaultValue, "1MiB");
    EXPECT_EQ(report.manifest->keys[1].type, MERGEN_KEY_PATH);
    EXPECT_TRUE(report.manifest->keys[1].required);
    EXPECT_EQ(report.manifest->keys[1].sentence, "Where.");
}

TEST(PreflightReport, TellsTheStepAtWhichTheWriterDied) {
    EXPECT_EQ(parse("").step, "");
    const Report report = parse(stepLine(opening) + stepLine(reading) + "plugin\tstor");
    EXPECT_EQ(report.step, reading);
    EXPECT_FALSE(report.manifest);
    EXPECT_FALSE(report.done);
}

TEST(PreflightReport, KeepsARefusalOnOneLine) {
    const Report report = parse(stepLine(creating) + refusedLine("line one\nline\ttwo"));
    EXPECT_EQ(report.refusal, "line one\\x0aline\\x09two");
}

TEST(PreflightReport, WithAForeignLineIsRefused) {
    const std::string begin = stepLine(opening) + manifestLines(manifest());
    for (const std::string& bad : {
             std::string("\n"),
             std::string("hello\n"),
             std::string("step\n"),
             std::string("step\tmaking tea\n"),
             std::string("step\tcreate()\tagain\n"),
             std::string("plugin\tstorage\ttwice\t1\n"),
             std::string("key\tname\t1\tdefault\t1\n"),
             std::string("key\tname\t99\tdefault\t1\tA sentence.\n"),
             std::string("key\tname\t-1\tdefault\t1\tA sentence.\n"),
             std::string("key\tname\tx\tdefault\t1\tA sentence.\n"),
             std::string("key\tname\t1\tperhaps\t1\tA sentence.\n"),
             std::string("key\tname\t1\tdefault\tx\tA sentence.\n"),
             std::string("key\tlimit\t1\tdefault\t1\tThe same again.\n"),
             std::string("key\tna me\t1\tdefault\t1\tA sentence.\n"),
             std::string("done\tindeed\n"),
             doneLine() + doneLine(),
             refusedLine("no") + doneLine(),
             doneLine() + stepLine(closing),
             std::string("done\0\n", 6),
         }) {
        EXPECT_THROW((void)parse(begin + bad), Error) << bad;
    }
    EXPECT_THROW((void)parse(doneLine()), Error) << "done without a manifest";
    EXPECT_THROW((void)parse("key\tname\t1\tdefault\t1\tBefore its plugin.\n"), Error);
    EXPECT_THROW((void)parse("plugin\tteleport\tname\t1\n"), Error);
    EXPECT_THROW((void)parse("plugin\tstorage\tna/me\t1\n"), Error);
    EXPECT_THROW((void)parse("plugin\tstorage\tname\t\xff\n"), Error);
}

TEST(PreflightReport, OfTooManySettingsIsRefused) {
    std::string text = "plugin\tstorage\tname\t1\n";
    for (std::size_t i = 0; i <= maxKeys; ++i) text += "key\tk" + std::to_string(i) + "\t0\tdefault\t\tA sentence.\n";
    EXPECT_THROW((void)parse(text), Error);
}

/// Whatever arrives, the answer is a report or an Error.
TEST(PreflightReport, DamagedAnywhereIsReadOrRefused) {
    const std::string good = whole();
    for (std::size_t at = 0; at < good.size(); ++at) {
        const Report cut = parse(good.substr(0, at));
        EXPECT_FALSE(cut.done) << at;
        for (unsigned bit = 0; bit < 8; ++bit) {
            std::string flipped = good;
            flipped[at] = static_cast<char>(static_cast<unsigned char>(flipped[at]) ^ (1U << bit));
            try {
                (void)parse(flipped);
            } catch (const Error& error) {
                EXPECT_EQ(error.kind(), ErrorKind::FailedPrecondition);
            }
        }
    }
}

}  // namespace
}  // namespace mergen::pluginhost::report
