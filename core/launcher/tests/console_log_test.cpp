#include <fcntl.h>
#include <filesystem>
#include <signal.h>
#include <string>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <mergen/base/file.hpp>
#include <mergen/launcher/console_log.hpp>
#include <mergen/sdk/error.hpp>

#include "temp_dir.hpp"

namespace mergen::launcher {
namespace {

namespace fs = std::filesystem;

class MergenVmConsole : public ::testing::Test {
protected:
    [[nodiscard]] fs::path file() const { return folder_ / "console.log"; }
    [[nodiscard]] fs::path previous() const { return folder_ / "console.log.1"; }
    [[nodiscard]] static std::string text(const fs::path& path) { return readFile(path, 1U << 20U).value_or("(none)"); }

    test::TempDir temporary_;
    const fs::path folder_ = temporary_.path();
};

TEST_F(MergenVmConsole, KeepsTheNewestBytesInTwoFilesOfAtMostTheLimitEach) {
    ConsoleLog log(file(), 10);
    for (char c = 'a'; c <= 'z'; ++c) {
        log.write(std::string(3, c));
        const std::string kept = (fs::exists(previous()) ? text(previous()) : "") + text(file());
        EXPECT_LE(kept.size(), 20U);
        std::string all;
        for (char d = 'a'; d <= c; ++d) all += std::string(3, d);
        EXPECT_GE(kept.size(), std::min<std::size_t>(all.size(), 10));
        EXPECT_TRUE(all.ends_with(kept)) << kept;
    }
    EXPECT_EQ(log.dropped(), 0U);
}

TEST_F(MergenVmConsole, OneWriteOfManyTimesTheLimitLeavesItsEnd) {
    ConsoleLog log(file(), 10);
    log.write("0123456789abcdefghijklmnopqrstuvwxyz");
    EXPECT_EQ(text(previous()) + text(file()), "klmnopqrstuvwxyz" + std::string());
    EXPECT_LE(text(previous()).size(), 10U);
}

TEST_F(MergenVmConsole, ContinuesWhatAnEarlierRunLeft) {
    ConsoleLog(file(), 100).write("first boot\n");
    ConsoleLog(file(), 100).write("second boot\n");
    EXPECT_EQ(text(file()), "first boot\nsecond boot\n");
}

TEST_F(MergenVmConsole, AnEarlierFileBeyondASmallerLimitIsTurnedAtOnce) {
    ConsoleLog(file(), 100).write("a longer text than the limit");
    ConsoleLog(file(), 5).write("x");
    EXPECT_EQ(text(file()), "x");
}

TEST_F(MergenVmConsole, IsForItsOwnerOnly) {
    ConsoleLog log(file(), 10);
    struct stat status {};
    ASSERT_EQ(::stat(file().c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 07077, 0U);
}

TEST_F(MergenVmConsole, ALinkInItsPlaceIsNotFollowed) {
    const fs::path target = folder_ / "precious";
    writeFileAtomically(target, "precious", 0600);
    fs::create_symlink(target, file());
    EXPECT_THROW(ConsoleLog(file(), 10), Error);
    fs::remove(file());
    fs::create_hard_link(target, file());
    EXPECT_THROW(ConsoleLog(file(), 10), Error);
    EXPECT_EQ(text(target), "precious");
}

TEST_F(MergenVmConsole, AFifoInItsPlaceIsRefusedWithoutWaiting) {
    ASSERT_EQ(::mkfifo(file().c_str(), 0600), 0);
    EXPECT_THROW(ConsoleLog(file(), 10), Error);
}

TEST_F(MergenVmConsole, AMissingFolderIsNotFound) {
    try {
        const ConsoleLog log(folder_ / "none" / "log", 10);
        FAIL() << "opened";
    } catch (const Error& error) {
        EXPECT_EQ(error.kind(), ErrorKind::NotFound);
        EXPECT_THAT(error.what(), ::testing::HasSubstr("none"));
    }
}

TEST_F(MergenVmConsole, StaysBoundedWhenTheOldFileCannotBeReplaced) {
    fs::create_directory(previous());  // rename(2) of a file onto a folder fails
    ConsoleLog log(file(), 10);
    log.write("0123456789abcdefghijklmnop");
    EXPECT_EQ(text(file()), "klmnop");
    EXPECT_EQ(log.dropped(), 0U);
}

TEST_F(MergenVmConsole, GoesOnWhenItsFileIsRemoved) {
    ConsoleLog log(file(), 4);
    log.write("abcd");
    fs::remove(file());
    log.write("ef");
    EXPECT_EQ(text(file()), "ef");
}

TEST_F(MergenVmConsole, AFullDiskDropsAndCountsAndTheGuestGoesOn) {
    // A limit on the size of files is a full disk to whoever writes: write(2) fails, here with EFBIG.
    rlimit before{};
    ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
    const auto oldHandler = ::signal(SIGXFSZ, SIG_IGN);
    ConsoleLog log(file(), 1000);
    log.write("abcd");
    const rlimit full{6, before.rlim_max};
    ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &full), 0);
    log.write("0123456789");
    log.write("lost");
    ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
    log.write("!");
    ::signal(SIGXFSZ, oldHandler);
    EXPECT_EQ(text(file()), "abcd01!");
    EXPECT_EQ(log.dropped(), 12U);
}

}  // namespace
}  // namespace mergen::launcher
