#include <csignal>
#include <functional>
#include <sys/wait.h>
#include <unistd.h>

#include <gtest/gtest.h>

#include <mergen/base/fd.hpp>
#include <mergen/server/exit_code.hpp>
#include <mergen/server/signals.hpp>

namespace mergen::server {
namespace {

/// Runs `body` in a process of its own, as signals are the whole process's; gives its wait status.
int inChild(const std::function<int()>& body) {
    const pid_t pid = ::fork();
    if (pid == 0) ::_exit(body());
    int status = 0;
    EXPECT_EQ(::waitpid(pid, &status, 0), pid);
    return status;
}

TEST(Signals, TermAndIntAskForAnEnd) {
    for (const int number : {SIGTERM, SIGINT}) {
        const int status = inChild([number] {
            Signals::block();
            Signals signals;
            if (signals.stopRequested()) return 1;
            ::kill(::getpid(), number);
            if (signals.wait() != Signals::Event::Stop) return 2;
            if (!signals.stopRequested()) return 3;
            return signals.wait() == Signals::Event::Stop ? 0 : 4;
        });
        EXPECT_EQ(status, 0) << number;
    }
}

TEST(Signals, HangupEndsNothing) {
    EXPECT_EQ(inChild([] {
                  Signals::block();
                  Signals signals;
                  ::kill(::getpid(), SIGHUP);
                  if (signals.wait() != Signals::Event::Hangup) return 1;
                  return signals.stopRequested() ? 2 : 0;
              }),
              0);
}

TEST(Signals, ASecondOneEndsTheProcessAtOnce) {
    const int status = inChild([] {
        Signals::block();
        Signals signals;
        ::kill(::getpid(), SIGTERM);
        static_cast<void>(signals.wait());
        ::kill(::getpid(), SIGTERM);
        for (;;) ::pause();  // stands for a drain that does not end
        return 0;
    });
    ASSERT_TRUE(WIFEXITED(status));
    EXPECT_EQ(WEXITSTATUS(status), exitCode::interrupted);
}

TEST(Signals, ThatCameBeforeItWasMadeAreNotLost) {
    EXPECT_EQ(inChild([] {
                  Signals::block();
                  ::kill(::getpid(), SIGTERM);
                  Signals signals;
                  return signals.wait() == Signals::Event::Stop ? 0 : 1;
              }),
              0);
}

TEST(Signals, AWriteToAClosedPipeIsAnErrorAndNoEnd) {
    EXPECT_EQ(inChild([] {
                  Signals::block();
                  int ends[2];
                  if (::pipe(ends) != 0) return 1;
                  ::close(ends[0]);
                  return ::write(ends[1], "x", 1) == -1 ? 0 : 2;
              }),
              0);
}

TEST(Signals, UnblockedTheyEndTheProcessAsUsual) {
    const int status = inChild([] {
        Signals::block();
        Signals::unblock();
        ::kill(::getpid(), SIGTERM);
        return 0;
    });
    ASSERT_TRUE(WIFSIGNALED(status));
    EXPECT_EQ(WTERMSIG(status), SIGTERM);
}

TEST(Signals, ItsThreadEndsWithIt) {
    EXPECT_EQ(inChild([] {
                  Signals::block();
                  for (int i = 0; i < 100; ++i) Signals signals;
                  return 0;
              }),
              0);
}

}  // namespace
}  // namespace mergen::server
