#include <sys/wait.h>
#include <unistd.h>

#include <gtest/gtest.h>

#include <mergen/sdk/error.hpp>
#include <mergen/sdk/failpoint.hpp>

namespace mergen::failpoint {
namespace {

struct Failpoint : testing::Test {
    ~Failpoint() override { arm(""); }
    static bool fires(std::string_view name) {
        try {
            hit(name);
            return false;
        } catch (const Error&) {
            return true;
        }
    }
};

TEST_F(Failpoint, FiresByNameAsOftenAsItIsTold) {
    arm("a.b=2*error(no);c=error(never ends)");
    EXPECT_TRUE(fires("a.b"));
    EXPECT_FALSE(fires("a"));
    EXPECT_FALSE(fires("a.b.c"));
    EXPECT_TRUE(fires("a.b"));
    EXPECT_FALSE(fires("a.b"));
    for (int i = 0; i < 5; ++i) EXPECT_TRUE(fires("c"));
}

TEST_F(Failpoint, StarMeansEveryNameThatBeginsSo) {
    arm("engine.start.*=error(x)");
    EXPECT_TRUE(fires("engine.start.network.after"));
    EXPECT_FALSE(fires("engine.stop.network.after"));
}

TEST_F(Failpoint, NospaceIsAFullDisk) {
    arm("x=nospace");
    try {
        hit("x");
        FAIL();
    } catch (const Error& error) {
        EXPECT_EQ(error.kind(), ErrorKind::ResourceExhausted);
    }
}

TEST_F(Failpoint, CrashKillsTheProcessAsKillNineWould) {
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
        arm("x=crash");
        hit("x");
        ::_exit(0);
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

TEST_F(Failpoint, TextThatCannotBeReadChangesNothing) {
    arm("x=error(kept)");
    for (const char* bad : {"x", "=crash", "x=", "x=boom", "x=delay(", "x=delay(a)", "x=a*crash", "x=error"}) {
        EXPECT_THROW(arm(bad), Error) << bad;
    }
    EXPECT_TRUE(fires("x"));
}

}  // namespace
}  // namespace mergen::failpoint
