#include "jailer.hpp"

#include <filesystem>
#include <string>
#include <unistd.h>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <mergen/base/file.hpp>
#include <mergen/sdk/error.hpp>

#include "test_host.hpp"

namespace mergen::vmm {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

namespace fs = std::filesystem;
using namespace std::chrono_literals;

const FirecrackerVersion current{1, 17, 0};

TEST(KnownHoles, AreInEveryReleaseBeforeTheirRepair) {
    for (const char* const bad : {"1.0.0", "1.13.2", "1.14.0", "1.14.3", "1.15.0", "v1.15.0-dev"})
        EXPECT_TRUE(hasKnownHoles(FirecrackerVersion::parse(bad).value())) << bad;
    for (const char* const good : {"1.14.4", "1.14.5", "1.15.1", "1.16.0", "v1.17.0-dev", "2.0.0"})
        EXPECT_FALSE(hasKnownHoles(FirecrackerVersion::parse(good).value())) << good;
}

TEST(TheJailerSetting, IsAWordAnAbsolutePathOrABareName) {
    for (const char* const good : {"auto", "off", "/opt/jailer", "jailer-1.17"})
        EXPECT_NO_THROW(checkJailerSetting(good));
    for (const char* const bad : {"", "bin/jailer", "./jailer"}) {
        try {
            checkJailerSetting(bad);
            ADD_FAILURE() << bad;
        } catch (const Error& error) {
            EXPECT_EQ(error.field(), "jailer");
        }
    }
}

TEST(AProgram, ThatNeedsALoaderCannotStartInAJail) {
    EXPECT_EQ(hindranceInJail(MERGEN_FAKE_FIRECRACKER), "");
    EXPECT_THAT(hindranceInJail("/proc/self/exe"), HasSubstr("dynamically linked"));
    test::TestHost host(nullptr);
    writeFileAtomically(host.root() / "script", "#!/bin/sh\n", 0755);
    EXPECT_THAT(hindranceInJail(host.root() / "script"), HasSubstr("no 64-bit ELF program"));
    const std::string whole = readFile(MERGEN_FAKE_FIRECRACKER, 64U << 20U).value();
    writeFileAtomically(host.root() / "cut", whole.substr(0, 70), 0755);
    EXPECT_THAT(hindranceInJail(host.root() / "cut"), HasSubstr("truncated"));
}

/// A folder with a copy of the fake Firecracker, and perhaps a jailer that is a script.
class FindingAJailer : public ::testing::Test {
protected:
    void SetUp() override {
        if (::geteuid() != 0) GTEST_SKIP() << "needs root: only root can make a jail";
        fs::copy_file(MERGEN_FAKE_FIRECRACKER, firecracker_);
    }
    fs::path jailer(const std::string& line, mode_t mode = 0755) const {
        const fs::path path = host_.root() / "jailer";
        writeFileAtomically(path, "#!/bin/sh\necho '" + line + "'\n", mode);
        return path;
    }
    [[nodiscard]] Jailing find(const fs::path& wish = "auto", bool allowVulnerable = false) const {
        return findJailer({wish, allowVulnerable}, firecracker_, current);
    }
    [[nodiscard]] std::string refusal(const fs::path& wish = "auto", bool allowVulnerable = false) const {
        try {
            return "not refused: " + find(wish, allowVulnerable).reason;
        } catch (const Error& error) {
            return error.what();
        }
    }

    test::TestHost host_{nullptr};
    const fs::path firecracker_ = host_.root() / "firecracker";
};

TEST_F(FindingAJailer, OffIsOff) {
    jailer("Jailer v1.17.0");
    EXPECT_FALSE(find("off").jailer);
    EXPECT_EQ(find("off").reason, "not jailed: jailer = off");
}

TEST_F(FindingAJailer, TheOneBesideFirecrackerIsTakenAndAMissingOneIsSaid) {
    if (!fs::exists("/usr/local/bin/jailer") && !fs::exists("/usr/bin/jailer")) {
        EXPECT_FALSE(find().jailer);
        EXPECT_THAT(find().reason, StartsWith("not jailed: there is no jailer beside " + firecracker_.string()));
    }
    const fs::path path = jailer("Jailer v1.17.0-dev");
    EXPECT_EQ(find().jailer, path);
    EXPECT_EQ(find().reason, "jailed by " + path.string() + " 1.17.0");
    EXPECT_EQ(find(path).jailer, path);
    EXPECT_THAT(refusal("/nonexistent/jailer"), HasSubstr("/nonexistent/jailer"));
}

TEST_F(FindingAJailer, OneThatMustNotBeUsedIsAnErrorAndNoStartWithoutAJail) {
    jailer("Jailer v1.14.3");
    EXPECT_THAT(refusal(), AllOf(HasSubstr("1.14.3 has known holes"), HasSubstr("allow_vulnerable")));
    EXPECT_THAT(refusal("auto", /*allowVulnerable=*/true), HasSubstr("both must be of one release"));
    jailer("Jailer v1.16.1");
    EXPECT_THAT(refusal(), HasSubstr("1.16.1 does not belong to"));
    jailer("hello");
    EXPECT_THAT(refusal(), HasSubstr("of an unknown version does not belong to"));
    jailer("Jailer v1.17.0", 0777);
    EXPECT_THAT(refusal(), Not(HasSubstr("not refused"))) << "anybody could change it";
}

TEST_F(FindingAJailer, AFirecrackerThatCannotStartInAJailRunsWithoutUnlessAJailerIsNamed) {
    const fs::path path = jailer("Jailer v1.17.0");
    fs::remove(firecracker_);
    fs::copy_file("/proc/self/exe", firecracker_);
    EXPECT_FALSE(find().jailer);
    EXPECT_THAT(find().reason, AllOf(StartsWith("not jailed: "), HasSubstr("dynamically linked")));
    EXPECT_THAT(refusal(path), HasSubstr("dynamically linked"));
}

}  // namespace
}  // namespace mergen::vmm
