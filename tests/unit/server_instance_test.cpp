#include <sys/wait.h>
#include <unistd.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <mergen/base/fd.hpp>
#include <mergen/sdk/error.hpp>
#include <mergen/server/instance.hpp>

#include "server_test_support.hpp"

namespace mergen::server {
namespace {

/// Another process that holds the lock until it is ended.
class Holder {
public:
    explicit Holder(const std::filesystem::path& root) {
        int ready[2];
        int end[2];
        if (::pipe(ready) != 0 || ::pipe(end) != 0) std::abort();
        pid_ = ::fork();
        if (pid_ == 0) {
            ::close(end[1]);
            const RootLock lock(root, "data root");
            char byte = 'x';
            if (::write(ready[1], &byte, 1) != 1) ::_exit(1);
            while (::read(end[0], &byte, 1) > 0) {
            }  // until the other end is closed
            ::_exit(0);
        }
        ::close(ready[1]);
        ::close(end[0]);
        end_ = UniqueFd(end[1]);
        char byte = 0;
        EXPECT_EQ(::read(ready[0], &byte, 1), 1) << "the holder did not get the lock";
        ::close(ready[0]);
    }
    ~Holder() { finish(); }

    void finish() {
        if (pid_ == 0) return;
        end_.reset();
        ::waitpid(pid_, nullptr, 0);
        pid_ = 0;
    }
    [[nodiscard]] pid_t pid() const noexcept { return pid_; }

private:
    pid_t pid_ = 0;
    UniqueFd end_;
};

std::string refusalOf(const std::filesystem::path& root) {
    try {
        const RootLock lock(root, "data root");
    } catch (const Error& error) {
        EXPECT_EQ(error.kind(), ErrorKind::Conflict);
        return error.what();
    }
    return "taken";
}

TEST(RootLock, ASecondProcessIsRefusedAndToldThePidOfTheFirst) {
    const TempDir dir;
    const Holder holder(dir.path());
    EXPECT_EQ(refusalOf(dir.path()), "the data root " + dir.path().string() + " is in use by the process with pid " +
                                         std::to_string(holder.pid()) + ": one mergend per data root");
}

TEST(RootLock, IsTheSameThroughALinkToTheFolder) {
    const TempDir dir;
    std::filesystem::create_directory(dir.path() / "data");
    std::filesystem::create_symlink("data", dir.path() / "link");
    const Holder holder(dir.path() / "data");
    EXPECT_NE(refusalOf(dir.path() / "link"), "taken");
}

TEST(RootLock, IsFreeAgainWhenItsHolderHasEnded) {
    const TempDir dir;
    Holder holder(dir.path());
    holder.finish();
    EXPECT_EQ(refusalOf(dir.path()), "taken");
    EXPECT_EQ(refusalOf(dir.path()), "taken");
}

TEST(RootLock, IsHeldWithinOneProcessToo) {
    const TempDir dir;
    const RootLock lock(dir.path(), "data root");
    EXPECT_NE(refusalOf(dir.path()).find(std::to_string(::getpid())), std::string::npos);
}

TEST(RootLock, ALockFileWithoutAPidStillRefuses) {
    const TempDir dir;
    const Holder holder(dir.path());
    dir.write(".lock", "no pid\n");
    EXPECT_THAT(refusalOf(dir.path()), testing::HasSubstr("in use by another process"));
}

TEST(RootLock, TwoDataRootsAreIndependent) {
    const TempDir first;
    const TempDir second;
    const Holder holder(first.path());
    EXPECT_EQ(refusalOf(second.path()), "taken");
}

TEST(Instance, IsDrawnOnceAndKept) {
    const TempDir dir;
    EXPECT_EQ(peekInstance(dir.path()), "00000000");
    EXPECT_TRUE(std::filesystem::is_empty(dir.path()));
    const std::string mark = loadInstance(dir.path());
    EXPECT_THAT(mark, testing::MatchesRegex("[0-9a-f]{8}"));
    EXPECT_EQ(loadInstance(dir.path()), mark);
    EXPECT_EQ(peekInstance(dir.path()), mark);
    EXPECT_EQ(contentOf(dir.path() / "instance"), mark + "\n");
}

TEST(Instance, TwoDataRootsHaveTwo) {
    const TempDir first;
    const TempDir second;
    EXPECT_NE(loadInstance(first.path()), loadInstance(second.path()));
}

TEST(Instance, AFileThatHoldsSomethingElseIsRefusedAndKept) {
    for (const char* const content :
         {"", "\n", "0a1b2c3", "0a1b2c3d4", "0A1B2C3D\n", "0a1b2c3d\n\n", "../../..", "0a1b2c3g"}) {
        const TempDir dir;
        dir.write("instance", content);
        EXPECT_THROW(static_cast<void>(loadInstance(dir.path())), Error) << content;
        EXPECT_EQ(contentOf(dir.path() / "instance"), content);
    }
}

}  // namespace
}  // namespace mergen::server
