// Child processes and identities of core/base, which the supervisor stands on.
#include <array>
#include <chrono>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <mergen/base/process.hpp>
#include <mergen/sdk/error.hpp>

namespace mergen {
namespace {

using ::testing::HasSubstr;
using namespace std::chrono_literals;

SpawnOptions shell(const std::string& script) {
    SpawnOptions options;
    options.arguments = {"/bin/sh", "-c", script};
    options.environment = {"PATH=/usr/bin:/bin"};
    return options;
}

TEST(RunProgram, GivesOutputErrorsAndStatus) {
    const RunResult result = run(shell("echo out; echo err >&2; exit 3"), 60s);
    EXPECT_FALSE(result.timedOut);
    EXPECT_EQ(result.output, "out\n");
    EXPECT_EQ(result.errors, "err\n");
    EXPECT_EQ(describeStatus(result.status), "exit status 3");
}

TEST(RunProgram, ThatDiesOfASignalSaysSo) {
    EXPECT_EQ(describeStatus(run(shell("kill -9 $$"), 60s).status), "signal 9 (Killed)");
}

TEST(RunProgram, KeepsOutputToTheLimitWithoutStoppingTheProgram) {
    const RunResult result = run(shell("head -c 1000000 /dev/zero | tr '\\0' x; echo done >&2"), 60s, 1000);
    EXPECT_EQ(result.output, std::string(1000, 'x'));
    EXPECT_EQ(result.errors, "done\n");
    EXPECT_EQ(result.status, 0);
}

TEST(RunProgram, ThatHangsIsKilledAtTheTimeout) {
    const RunResult result = run(shell("echo begun; exec sleep 600"), 200ms);
    EXPECT_TRUE(result.timedOut);
    EXPECT_EQ(describeStatus(result.status), "signal 9 (Killed)");
}

TEST(RunProgram, InASessionOfItsOwnIsKilledWithItsChildren) {
    SpawnOptions options = shell("sleep 600 & echo $!; wait");
    options.newSession = true;
    const RunResult result = run(options, 300ms);
    ASSERT_TRUE(result.timedOut);
    const UniqueFd child(static_cast<int>(::syscall(SYS_pidfd_open, std::stoi(result.output), 0)));
    if (!child) return;  // gone and reaped already
    pollfd polled{child.get(), POLLIN, 0};
    EXPECT_EQ(::poll(&polled, 1, 60000), 1) << "the child lives on";
}

TEST(RunProgram, DoesNotWaitForAChildThatKeepsTheOutputOpen) {
    const RunResult result = run(shell("sleep 600 & echo $!"), 60s);
    EXPECT_FALSE(result.timedOut);
    ASSERT_FALSE(result.output.empty());
    EXPECT_EQ(::kill(std::stoi(result.output), SIGKILL), 0) << "the test cleans up after itself";
}

TEST(RunProgram, MissingIsNotFoundAndNamed) {
    SpawnOptions options;
    options.arguments = {"/nonexistent/program"};
    try {
        static_cast<void>(run(options, 1s));
        FAIL() << "ran";
    } catch (const Error& error) {
        EXPECT_EQ(error.kind(), ErrorKind::NotFound);
        EXPECT_THAT(error.what(), HasSubstr("/nonexistent/program"));
    }
}

TEST(RunProgram, NeedsAnAbsolutePath) {
    for (const std::vector<std::string>& arguments : {std::vector<std::string>{}, {"true"}, {""}}) {
        SpawnOptions options;
        options.arguments = arguments;
        EXPECT_THROW(static_cast<void>(run(options, 1s)), Error);
    }
}

TEST(RunProgram, GetsNothingButWhatIsGiven) {
    const UniqueFd open(::open("/dev/zero", O_RDONLY | O_CLOEXEC));
    const int inherited = ::dup(open.get());  // without close-on-exec
    sigset_t blocked;
    sigset_t old;
    ::sigfillset(&blocked);
    ::pthread_sigmask(SIG_SETMASK, &blocked, &old);
    const RunResult result = run(shell("/bin/ls /proc/self/fd; /usr/bin/env; grep SigBlk /proc/self/status; cat"), 60s);
    ::pthread_sigmask(SIG_SETMASK, &old, nullptr);
    ::close(inherited);
    EXPECT_THAT(result.output, ::testing::StartsWith("0\n1\n2\n3\n"));  // 3: the folder that ls reads
    EXPECT_THAT(result.output, ::testing::Not(HasSubstr("\n4\n")));
    EXPECT_THAT(result.output, ::testing::Not(HasSubstr("HOME=")));
    EXPECT_THAT(result.output, HasSubstr("SigBlk:\t0000000000000000"));
}

TEST(ProcessIdentityOfThisProcess, IsFoundAndOpened) {
    const ProcessIdentity self = ProcessIdentity::self();
    EXPECT_EQ(self.pid, ::getpid());
    EXPECT_GT(self.startTime, 0U);
    EXPECT_EQ(self.bootId.size(), 36U);
    EXPECT_TRUE(openProcess(self));
}

TEST(ProcessIdentityOfThisProcess, ReadsBackFromItsText) {
    const ProcessIdentity self = ProcessIdentity::self();
    EXPECT_EQ(ProcessIdentity::parse(self.str()), self);
    EXPECT_EQ(ProcessIdentity::parse("new line\n" + self.str()), self);
}

TEST(AProcessIdentity, ThatIsMalformedIsNone) {
    for (const char* const text :
         {"", "pid 7\nstart 8\n", "pid 7\nboot x\n", "start 8\nboot x\n", "pid x\nstart 8\nboot x\n",
          "pid 7\nstart -8\nboot x\n", "pid -7\nstart 8\nboot x\n", "pid 0\nstart 8\nboot x\n",
          "pid 7 \nstart 8\nboot x\n", "pid 99999999999\nstart 8\nboot x\n", "pid 7\nstart 8\nboot \n"}) {
        EXPECT_FALSE(ProcessIdentity::parse(text)) << text;
    }
}

TEST(AProcessIdentity, OfAnotherStartOrBootIsNotOpened) {
    ProcessIdentity other = ProcessIdentity::self();
    other.startTime -= 1;
    EXPECT_FALSE(openProcess(other));
    other = ProcessIdentity::self();
    other.bootId.back() = other.bootId.back() == '0' ? '1' : '0';
    EXPECT_FALSE(openProcess(other));
    EXPECT_FALSE(openProcess({}));
}

TEST(AProcessIdentity, OfAZombieOrOfNobodyIsNone) {
    const pid_t child = spawn(shell("exit 0"));
    siginfo_t info{};
    ASSERT_EQ(::waitid(P_PID, static_cast<id_t>(child), &info, WEXITED | WNOWAIT), 0);
    EXPECT_FALSE(ProcessIdentity::of(child)) << "it has ended and is not reaped";
    ASSERT_EQ(::waitpid(child, nullptr, 0), child);
    EXPECT_FALSE(ProcessIdentity::of(child));
    EXPECT_FALSE(ProcessIdentity::of(0));
    EXPECT_FALSE(ProcessIdentity::of(-1));
}

TEST(AProcessIdentity, IsFoundBehindANameWithBlanksAndParentheses) {
    const pid_t child = ::fork();
    if (child == 0) {
        const UniqueFd name(::open("/proc/self/comm", O_WRONLY | O_CLOEXEC));
        static_cast<void>(!::write(name.get(), "a) R 1 (b", 9));
        ::raise(SIGSTOP);
        ::_exit(0);
    }
    ASSERT_EQ(::waitpid(child, nullptr, WUNTRACED), child);
    const auto identity = ProcessIdentity::of(child);
    EXPECT_TRUE(identity);
    EXPECT_TRUE(identity && identity->startTime >= ProcessIdentity::self().startTime);
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
}

}  // namespace
}  // namespace mergen
