#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <mergen/launcher/command.hpp>
#include <mergen/sdk/error.hpp>

namespace mergen::launcher {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

const std::string owner = "mergen:0a1b2c3d:01234567-89ab-4cde-8f01-23456789abcd";

std::vector<std::string> words(const std::vector<std::string>& extra = {}) {
    std::vector<std::string> all{"--dir",     "/d",     "--owner",         owner,  "--uid", "7", "--gid", "8",
                                 "--console", "/c/log", "--console-limit", "4096", "--cwd", "/w"};
    all.insert(all.end(), extra.begin(), extra.end());
    all.insert(all.end(), {"--", "/bin/vmm", "--uid", ""});
    return all;
}

/// The refusal's text; fails the test if there is none.
std::string refusal(const std::vector<std::string>& line) {
    try {
        static_cast<void>(parseCommand(line));
    } catch (const Error& error) {
        EXPECT_EQ(error.kind(), ErrorKind::InvalidArgument);
        return error.what();
    }
    ADD_FAILURE() << "not refused";
    return {};
}

TEST(MergenVmCommand, IsReadWholeAndTheProgramsOwnWordsAreLeftAlone) {
    const Command command = parseCommand(words({"--netns", "/run/netns/x", "--groups", "36,1000", "--tap", "tap-a=3",
                                                "--tap", "tap-b=4", "--env", "A=1", "--env", "B="}));
    EXPECT_EQ(command.directory, "/d");
    EXPECT_EQ(command.spec.owner.str(), owner);
    EXPECT_EQ(command.spec.credentials, (Credentials{7, 8}));
    EXPECT_EQ(command.spec.console, "/c/log");
    EXPECT_EQ(command.spec.consoleLimit, Bytes{4096});
    EXPECT_EQ(command.spec.workingDirectory, "/w");
    EXPECT_EQ(command.spec.netns, "/run/netns/x");
    EXPECT_THAT(command.spec.groups, ElementsAre(36U, 1000U));
    ASSERT_EQ(command.spec.taps.size(), 2U);
    EXPECT_EQ(command.spec.taps[1].name.str(), "tap-b");
    EXPECT_EQ(command.spec.taps[1].fd, 4);
    EXPECT_THAT(command.spec.environment, ElementsAre("A=1", "B="));
    EXPECT_THAT(command.spec.arguments, ElementsAre("/bin/vmm", "--uid", ""));
}

TEST(MergenVmCommand, AsksForAPidNamespaceByOneWord) {
    EXPECT_FALSE(parseCommand(words()).spec.pidNamespace);
    EXPECT_TRUE(parseCommand(words({"--pid-namespace", "new"})).spec.pidNamespace);
    EXPECT_THAT(refusal(words({"--pid-namespace", "old"})), AllOf(HasSubstr("--pid-namespace"), HasSubstr("'old'")));
}

TEST(MergenVmCommand, TakesARestartPolicyWithItsCommandLine) {
    const Command plain = parseCommand(words());
    EXPECT_EQ(plain.spec.restart.policy, RestartPolicy::No);
    EXPECT_EQ(plain.backoff.first, std::chrono::milliseconds(100));
    const Command command = parseCommand(words(
        {"--restart", "on-failure", "--max-restarts", "5", "--again", "/bin/vmm", "--again", "--config", "--again", "",
         "--stale", "/r/socket", "--restart-delay", "7", "--restart-delay-max", "8", "--restart-reset", "9"}));
    EXPECT_EQ(command.spec.restart.policy, RestartPolicy::OnFailure);
    EXPECT_EQ(command.spec.restart.maxRestarts, 5U);
    EXPECT_THAT(command.spec.restart.arguments, ElementsAre("/bin/vmm", "--config", ""));
    EXPECT_THAT(command.spec.restart.stale, ElementsAre("/r/socket"));
    EXPECT_EQ(command.backoff.first, std::chrono::milliseconds(7));
    EXPECT_EQ(command.backoff.most, std::chrono::milliseconds(8));
    EXPECT_EQ(command.backoff.lasting, std::chrono::milliseconds(9));
}

TEST(MergenVmCommand, WrongWordsAreRefusedWithTheOptionAndTheRule) {
    const std::vector<std::pair<std::vector<std::string>, std::string>> cases{
        {{"--colour", "red"}, "--colour: there is no such option"},
        {{"--uid", "9"}, "--uid: given twice"},
        {{"--groups", "36,"}, "--groups: '' is no number"},
        {{"--groups", "4294967295"}, "--groups: '4294967295' is no number"},
        {{"--netns", "netns/x"}, "--netns: 'netns/x' is no absolute path"},
        {{"--tap", "tap-a"}, "--tap: 'tap-a' is not NAME=DESCRIPTOR"},
        {{"--tap", "tap-a=2"}, "--tap: '2' is no number from 3 to 63"},
        {{"--tap", "tap-a=64"}, "--tap: '64' is no number from 3 to 63"},
        {{"--tap", "a/b=3"}, "interface name"},
        {{"--tap", "tap-a=3", "--tap", "tap-b=3"}, "--tap: descriptor 3 is given twice"},
        {{"--env", "PATH"}, "--env: 'PATH' is not KEY=VALUE"},
        {{"--env", "=x"}, "--env: '=x' is not KEY=VALUE"},
        {{"--restart", "never"}, "--restart: 'never' is none of no, on-failure, always"},
        {{"--restart", "always"}, "--again: missing"},
        {{"--again", "vmm"}, "--again: 'vmm' is no absolute path"},
        {{"--stale", "socket"}, "--stale: 'socket' is no absolute path"},
        {{"--max-restarts", "-1"}, "--max-restarts: '-1' is no number"},
        {{"--restart-delay", "1s"}, "--restart-delay: '1s' is no number"},
    };
    for (const auto& [extra, expected] : cases) EXPECT_THAT(refusal(words(extra)), HasSubstr(expected));
}

TEST(MergenVmCommand, EachNeededOptionIsMissedByName) {
    for (const char* const option : {"--dir", "--owner", "--uid", "--gid", "--console", "--console-limit", "--cwd"}) {
        std::vector<std::string> line = words();
        const auto at = std::ranges::find(line, option);
        line.erase(at, at + 2);
        EXPECT_THAT(refusal(line), AllOf(HasSubstr(option), HasSubstr("missing")));
    }
}

TEST(MergenVmCommand, WithoutAProgramThereIsNothingToRun) {
    std::vector<std::string> line = words();
    line.resize(line.size() - 3);
    EXPECT_THAT(refusal(line), HasSubstr("needs a program"));
    line.pop_back();
    EXPECT_THAT(refusal(line), HasSubstr("needs a program"));
    EXPECT_THAT(refusal({"--dir"}), HasSubstr("--dir: needs a value"));
    line = words();
    line[line.size() - 3] = "bin/vmm";
    EXPECT_THAT(refusal(line), HasSubstr("'bin/vmm' is no absolute path"));
}

TEST(MergenVmCommand, AnIdThatWouldMeanKeepRootIsRefused) {
    std::vector<std::string> line = words();
    *(std::ranges::find(line, "--uid") + 1) = "4294967295";
    EXPECT_THAT(refusal(line), HasSubstr("--uid: '4294967295' is no number from 0 to 4294967294"));
}

}  // namespace
}  // namespace mergen::launcher
