#include <gtest/gtest.h>

#include <mergen/sdk/plugin.hpp>

namespace mergen {
namespace {

const mergen_key keys[] = {
    {"name", MERGEN_KEY_STRING, "none", "A name."},    {"count", MERGEN_KEY_INTEGER, "3", "How many."},
    {"fast", MERGEN_KEY_BOOLEAN, "false", "Whether."}, {"wait", MERGEN_KEY_DURATION, "500ms", "How long."},
    {"size", MERGEN_KEY_SIZE, "1MiB", "How much."},    {"file", MERGEN_KEY_PATH, nullptr, "Which file."},
    {nullptr, MERGEN_KEY_STRING, nullptr, nullptr}};

TEST(Settings, DefaultsStandForWhatIsNotGiven) {
    const Settings settings(keys, {{"file", "/a"}, {"count", "-7"}});
    EXPECT_EQ(settings.text("name"), "none");
    EXPECT_EQ(settings.integer("count"), -7);
    EXPECT_FALSE(settings.boolean("fast"));
    EXPECT_EQ(settings.duration("wait"), std::chrono::milliseconds(500));
    EXPECT_EQ(settings.bytes("size"), 1048576U);
    EXPECT_EQ(settings.path("file"), "/a");
    EXPECT_EQ(settings.all().size(), 6U);
}

TEST(Settings, MissingRequiredOneAndUnknownOneAreRefusedByName) {
    try {
        const Settings settings(keys, {});
        FAIL();
    } catch (const Error& error) {
        EXPECT_NE(std::string(error.what()).find("'file' must be given: Which file."), std::string::npos);
    }
    EXPECT_THROW(Settings(keys, {{"file", "/a"}, {"cuont", "3"}}), Error);
}

TEST(Settings, AskingForWhatTheManifestDoesNotDeclareIsAFaultOfThePlugin) {
    const Settings settings(keys, {{"file", "/a"}});
    EXPECT_THROW(static_cast<void>(settings.text("other")), Error);
    EXPECT_THROW(static_cast<void>(settings.integer("name")), Error);
}

TEST(Settings, ValuesAreCheckedAgainstTheirType) {
    const auto ok = [](mergen_key_type type, std::string_view value) {
        try {
            Settings::check(type, value);
            return true;
        } catch (const Error&) {
            return false;
        }
    };
    for (const char* good : {"0", "-1", "9223372036854775807"}) EXPECT_TRUE(ok(MERGEN_KEY_INTEGER, good)) << good;
    for (const char* bad : {"", "1.5", "12abc", " 1", "+1", "9223372036854775808", "0x10"}) {
        EXPECT_FALSE(ok(MERGEN_KEY_INTEGER, bad)) << bad;
    }
    for (const char* bad : {"", "yes", "TRUE", "1"}) EXPECT_FALSE(ok(MERGEN_KEY_BOOLEAN, bad)) << bad;
    for (const char* good : {"0ms", "10s", "5m", "2h"}) EXPECT_TRUE(ok(MERGEN_KEY_DURATION, good)) << good;
    for (const char* bad : {"", "10", "10d", "-1s", "1.5s", "s", "99999999999999999999s", "9223372036854775807h"}) {
        EXPECT_FALSE(ok(MERGEN_KEY_DURATION, bad)) << bad;
    }
    for (const char* good : {"0", "512", "64KiB", "2GiB"}) EXPECT_TRUE(ok(MERGEN_KEY_SIZE, good)) << good;
    for (const char* bad : {"", "1MB", "-1", "KiB", "1 KiB", "18446744073709551615GiB"}) {
        EXPECT_FALSE(ok(MERGEN_KEY_SIZE, bad)) << bad;
    }
}

}  // namespace
}  // namespace mergen
