// copySparse(): a source that others change, and a target without room.
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <gtest/gtest.h>

#include "scene.hpp"

namespace mergen::test {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t large = 8U << 20U;

void copyOf(const fs::path& source, const fs::path& target) {
    const UniqueFd fd = openFile(source, O_RDONLY);
    copySparse(fd.get(), target, 0600, ::geteuid(), ::getegid());
}

/// Copies while `change` is done to the source again and again, until a copy is refused, which one must be. Not each is:
/// the clock of files ticks every few milliseconds, and the copy of a small file is done within one.
void expectNoticed(const std::function<void(int fd)>& change) {
    const Scene scene;
    const fs::path source = scene.root / "source";
    const fs::path target = scene.root / "target";
    write(source, std::string(large, 'x'));
    const UniqueFd writer = openFile(source, O_RDWR);
    const Meanwhile changing([&] { change(writer.get()); });
    for (int attempt = 0; attempt < 100'000; ++attempt) {
        try {
            copyOf(source, target);
            fs::remove(target);
        } catch (const Error& error) {
            EXPECT_EQ(error.kind(), ErrorKind::Conflict) << error.what();
            EXPECT_NE(std::string(error.what()).find("changed meanwhile"), std::string::npos) << error.what();
            EXPECT_FALSE(fs::exists(target)) << "nothing is left of the refused copy";
            return;
        }
    }
    ADD_FAILURE() << "every copy was taken for whole";
}

TEST(Copy, NoticesThatTheSourceIsWritten) {
    expectNoticed([](int fd) { EXPECT_EQ(::pwrite(fd, "y", 1, large / 2), 1); });
}

TEST(Copy, NoticesThatTheSourceGrows) {
    expectNoticed([](int fd) {
        static off_t size = large;
        EXPECT_EQ(::ftruncate(fd, ++size), 0);
    });
}

TEST(Copy, NoticesThatTheSourceShrinks) {
    expectNoticed([](int fd) {
        EXPECT_EQ(::ftruncate(fd, 4096), 0);
        EXPECT_EQ(::ftruncate(fd, large), 0);
    });
}

TEST(Copy, IsItsOwnFileWhateverHappensToTheSourceAfterwards) {
    const Scene scene;
    write(scene.root / "source", "before");
    fs::permissions(scene.root / "source", fs::perms::all);  // anybody's to write
    copyOf(scene.root / "source", scene.root / "target");
    write(scene.root / "source", "after");
    EXPECT_EQ(contentOf(scene.root / "target"), "before");
}

TEST(Copy, AHugeSparseFileStaysSparse) {
    const Scene scene;
    constexpr off_t tebibyte = off_t{1} << 40;
    {
        const UniqueFd fd = openFile(scene.root / "source", O_RDWR | O_CREAT, 0600);
        if (::ftruncate(fd.get(), tebibyte) != 0) GTEST_SKIP() << "this file system has no files of 1 TiB";
        ASSERT_EQ(::pwrite(fd.get(), "end", 3, tebibyte - 3), 3);
    }
    copyOf(scene.root / "source", scene.root / "target");
    struct stat status {};
    ASSERT_EQ(::stat((scene.root / "target").c_str(), &status), 0);
    EXPECT_EQ(status.st_size, tebibyte);
    EXPECT_LT(status.st_blocks * 512, 1 << 20);
}

TEST(Copy, WhatDoesNotFitLeavesNothing) {
    const Scene scene;
    write(scene.root / "source", std::string(large, 'x'));
    // The limit of this process stands for a full disk, which an ordinary user cannot make.
    rlimit before{};
    ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
    ::signal(SIGXFSZ, SIG_IGN);
    const rlimit small{large / 2, before.rlim_max};
    ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
    try {
        copyOf(scene.root / "source", scene.root / "target");
        ADD_FAILURE() << "it fits";
    } catch (const Error& error) {
        EXPECT_EQ(error.kind(), ErrorKind::ResourceExhausted) << error.what();
    }
    ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
    EXPECT_FALSE(fs::exists(scene.root / "target"));
}

}  // namespace
}  // namespace mergen::test
