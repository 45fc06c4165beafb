#include "restarts.hpp"

#include <filesystem>
#include <signal.h>
#include <string>

#include <gtest/gtest.h>

#include <mergen/base/file.hpp>

#include "temp_dir.hpp"

namespace mergen::launcher {
namespace {

/// The folder of a VM whose restarts are permitted.
class RestartsOfAVm : public ::testing::Test {
protected:
    RestartsOfAVm() {
        command_.directory = folder_.path();
        writeFileAtomically(command_.directory / "restart", "", 0600);
    }

    /// Whether an end is followed by a restart under `policy`.
    bool follows(RestartPolicy policy, const End& end) {
        command_.spec.restart.policy = policy;
        return Restarts(command_).plan(end, std::chrono::milliseconds(1)).has_value();
    }
    static End ended(int status, std::string panic = {}) {
        End end;
        end.exit = ExitStatus{false, status, std::chrono::system_clock::now()};
        end.panic = std::move(panic);
        return end;
    }

    test::TempDir folder_;
    Command command_;
};

TEST_F(RestartsOfAVm, OnFailureFollowAPanicAndNotACleanEnd) {
    EXPECT_TRUE(follows(RestartPolicy::OnFailure, ended(0, "Kernel panic - not syncing: Fatal exception")));
    EXPECT_FALSE(follows(RestartPolicy::OnFailure, ended(0)));
    EXPECT_TRUE(follows(RestartPolicy::OnFailure, ended(1)));
    EXPECT_TRUE(follows(RestartPolicy::Always, ended(0)));
    EXPECT_FALSE(follows(RestartPolicy::No, ended(0, "Kernel panic - not syncing: Fatal exception")));
}

TEST_F(RestartsOfAVm, AreWrittenWithThePanicAsTheRestOfTheLine) {
    EXPECT_TRUE(follows(RestartPolicy::OnFailure, ended(0, "Kernel panic - not syncing: sent 9 by nobody")));
    const std::string runs = readFile(command_.directory / "runs", 4096).value_or("");
    EXPECT_TRUE(runs.starts_with("run 1 exited 0 at ")) << runs;
    EXPECT_TRUE(runs.ends_with(" panic Kernel panic - not syncing: sent 9 by nobody\n")) << runs;
}

/// What describe() takes for the cause of an end with this status of waitpid(2), after these signals.
std::string causeOf(int status, const std::string& signals) {
    const test::TempDir folder;
    const ProcessIdentity run{42, 7, {}};
    std::string lines = "42 6 15 another-run\n";
    for (const char signal : signals) lines += signal == 'T' ? "42 7 15 stop\n" : "42 7 9 stop\n";
    writeFileAtomically(folder.path() / "signals", lines, 0600);
    const End end = describe(folder.path(), run, status, {});
    return end.sent ? std::to_string(end.sent->signal) + " by " + end.sent->by : "nobody";
}

TEST(EndOfAVm, ThatExitedIsBySigtermAlsoIfSigkillWasUnderWay) {
    constexpr int exited0 = 0;
    constexpr int exited1 = 1 << 8;
    EXPECT_EQ(causeOf(exited0, "T"), "15 by stop");
    EXPECT_EQ(causeOf(exited0, "TK"), "15 by stop");
    EXPECT_EQ(causeOf(exited1, "TK"), "15 by stop");
    EXPECT_EQ(causeOf(exited0, "K"), "nobody");
    EXPECT_EQ(causeOf(exited0, ""), "nobody");
}

TEST(EndOfAVm, ByASignalIsByWhoSentThatOne) {
    EXPECT_EQ(causeOf(SIGKILL, "TK"), "9 by stop");
    EXPECT_EQ(causeOf(SIGTERM, "TK"), "15 by stop");
    EXPECT_EQ(causeOf(SIGKILL, "T"), "nobody");
}

TEST_F(RestartsOfAVm, DoNotFollowAPanicOnceTheyAreForbidden) {
    std::filesystem::remove(command_.directory / "restart");
    EXPECT_FALSE(follows(RestartPolicy::OnFailure, ended(0, "Kernel panic - not syncing: Fatal exception")));
}

}  // namespace
}  // namespace mergen::launcher
