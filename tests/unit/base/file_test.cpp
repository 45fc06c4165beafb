#include <fcntl.h>
#include <fstream>
#include <stop_token>
#include <sys/stat.h>
#include <thread>

#include <gtest/gtest.h>

#include <mergen/base/file.hpp>
#include <mergen/sdk/error.hpp>

#include "temp_dir.hpp"

namespace mergen {
namespace {

namespace fs = std::filesystem;

class File : public testing::Test {
protected:
    static mode_t modeOf(const fs::path& path) {
        struct stat status {};
        EXPECT_EQ(::lstat(path.c_str(), &status), 0) << path;
        return status.st_mode & 07777U;
    }
    template <typename Call>
    static ErrorKind kindOf(Call call) {
        try {
            call();
        } catch (const Error& error) {
            return error.kind();
        }
        ADD_FAILURE() << "nothing was thrown";
        return ErrorKind::Internal;
    }

    const test::TempDir temporary_;
    const fs::path root_ = temporary_.path();
};

TEST_F(File, IsReplacedWholeWithTheModeThatWasAskedFor) {
    const fs::path path = root_ / "a";
    const mode_t before = ::umask(0077);
    writeFileDurably(path, "one", 0640);
    ::umask(before);
    EXPECT_EQ(modeOf(path), 0640U);
    writeFileAtomically(path, "two", 0600);
    EXPECT_EQ(readFile(path, 100), "two");
    EXPECT_EQ(modeOf(path), 0600U);
    EXPECT_EQ(listDirectory(root_), std::vector<std::string>{"a"}) << "a temporary stayed";
}

TEST_F(File, FailedReplacementKeepsTheOldAndLeavesNoTemporary) {
    fs::create_directory(root_ / "folder");
    std::ofstream(root_ / "folder" / "inside") << "x";
    EXPECT_THROW(writeFileDurably(root_ / "folder", "data", 0640), Error);
    EXPECT_EQ(listDirectory(root_), std::vector<std::string>{"folder"});
}

TEST_F(File, ReadingTellsAbsenceFromTroubleAndKeepsToItsLimit) {
    EXPECT_EQ(readFile(root_ / "none", 10), std::nullopt);
    std::ofstream(root_ / "ten") << "0123456789";
    EXPECT_EQ(readFile(root_ / "ten", 10), "0123456789");
    EXPECT_EQ(kindOf([&] { static_cast<void>(readFile(root_ / "ten", 9)); }), ErrorKind::ResourceExhausted);
}

TEST_F(File, ReadingRefusesLinksFoldersDevicesAndFifos) {
    std::ofstream(root_ / "plain") << "x";
    fs::create_symlink(root_ / "plain", root_ / "link");
    ASSERT_EQ(::mkfifo((root_ / "fifo").c_str(), 0600), 0);
    for (const fs::path& bad : {root_ / "link", root_ / "fifo", root_, fs::path("/dev/null")}) {
        EXPECT_THROW(static_cast<void>(readFile(bad, 100)), Error) << bad;
    }
}

TEST_F(File, DirectoriesAreMadeWithTheirParentsAndKeptIfTheyAreThere) {
    makeDirectories(root_ / "a" / "b", 0711);
    EXPECT_EQ(modeOf(root_ / "a" / "b"), 0711U);
    makeDirectories(root_ / "a" / "b", 0700);
    EXPECT_EQ(modeOf(root_ / "a" / "b"), 0711U);
    std::ofstream(root_ / "file") << "x";
    EXPECT_THROW(makeDirectories(root_ / "file", 0700), Error);
    EXPECT_THROW(makeDirectories(root_ / "file" / "below", 0700), Error);
}

TEST_F(File, TreeIsRemovedWithoutFollowingLinks) {
    fs::create_directories(root_ / "tree" / "deep" / "deeper");
    fs::create_directory(root_ / "precious");
    std::ofstream(root_ / "precious" / "file") << "x";
    fs::create_directory_symlink(root_ / "precious", root_ / "tree" / "deep" / "link");
    EXPECT_TRUE(removeTree(root_ / "tree"));
    EXPECT_TRUE(fs::exists(root_ / "precious" / "file"));
    EXPECT_FALSE(fs::exists(root_ / "tree"));
    EXPECT_FALSE(removeTree(root_ / "tree"));
    EXPECT_FALSE(removeTree(root_ / "no" / "parent"));
}

TEST_F(File, TreeIsRemovedHoweverDeepItIs) {
    // More levels than the process may have descriptors or a path may have bytes.
    constexpr int levels = 3000;
    fs::create_directory(root_ / "tree");
    UniqueFd at(::open((root_ / "tree").c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    for (int level = 0; level < levels; ++level) {
        ASSERT_EQ(::mkdirat(at.get(), "a", 0700), 0) << level;
        ASSERT_EQ(::mkdirat(at.get(), "b", 0700), 0) << level;
        const UniqueFd file(::openat(at.get(), "file", O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
        ASSERT_TRUE(file);
        at.reset(::openat(at.get(), "a", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
        ASSERT_TRUE(at) << level;
    }
    at.reset();
    EXPECT_TRUE(removeTree(root_ / "tree"));
    EXPECT_TRUE(listDirectory(root_).empty());
}

TEST_F(File, OpenBeneathKeepsInsideTheRoots) {
    fs::create_directories(root_ / "images" / "sub");
    std::ofstream(root_ / "images" / "sub" / "disk") << "disk";
    std::ofstream(root_ / "secret") << "secret";
    fs::create_symlink(root_ / "secret", root_ / "images" / "link");
    fs::create_directory_symlink(root_, root_ / "images" / "up");
    ASSERT_EQ(::mkfifo((root_ / "images" / "fifo").c_str(), 0600), 0);
    const std::vector<fs::path> roots{root_ / "other", root_ / "images"};
    fs::create_directory(root_ / "other");
    EXPECT_TRUE(openBeneath(roots, root_ / "images" / "sub" / "disk", O_RDONLY));
    const auto kind = [&](const fs::path& path) {
        return kindOf([&] { static_cast<void>(openBeneath(roots, path, O_RDONLY)); });
    };
    EXPECT_EQ(kind(root_ / "secret"), ErrorKind::PermissionDenied);
    EXPECT_EQ(kind(root_ / "images" / ".." / "secret"), ErrorKind::PermissionDenied);
    EXPECT_EQ(kind(root_ / "images" / "link"), ErrorKind::PermissionDenied);
    EXPECT_EQ(kind(root_ / "images" / "up" / "secret"), ErrorKind::PermissionDenied);
    EXPECT_EQ(kind("images/sub/disk"), ErrorKind::PermissionDenied);
    EXPECT_EQ(kind(root_ / "imagesX" / "disk"), ErrorKind::PermissionDenied);
    EXPECT_EQ(kind(root_ / "images" / "none"), ErrorKind::NotFound);
    EXPECT_EQ(kind(root_ / "images" / "sub"), ErrorKind::InvalidArgument);
    EXPECT_EQ(kind(root_ / "images" / "fifo"), ErrorKind::InvalidArgument);
}

TEST_F(File, CopyKeepsHolesAndContent) {
    const fs::path source = root_ / "source";
    {
        const UniqueFd fd = openFile(source, O_RDWR | O_CREAT, 0600);
        ASSERT_EQ(::ftruncate(fd.get(), 64 << 20), 0);
        ASSERT_EQ(::pwrite(fd.get(), "begin", 5, 0), 5);
        ASSERT_EQ(::pwrite(fd.get(), "end", 3, (64 << 20) - 3), 3);
    }
    const UniqueFd fd = openFile(source, O_RDONLY);
    copySparse(fd.get(), root_ / "copy", 0640, ::geteuid(), ::getegid());
    struct stat status {};
    ASSERT_EQ(::stat((root_ / "copy").c_str(), &status), 0);
    EXPECT_EQ(status.st_size, 64 << 20);
    EXPECT_LT(status.st_blocks * 512, 1 << 20) << "the holes were filled";
    EXPECT_EQ(status.st_mode & 0777U, 0640U);
    const auto content = readFile(root_ / "copy", 65U << 20U);
    ASSERT_TRUE(content.has_value());
    EXPECT_EQ(content->substr(0, 5), "begin");
    EXPECT_EQ(content->substr(content->size() - 3), "end");
    EXPECT_EQ(content->find_first_not_of('\0', 5), content->size() - 3);
}

TEST_F(File, CopyRefusesAnExistingTargetAndLeavesItAlone) {
    std::ofstream(root_ / "source") << "new";
    std::ofstream(root_ / "target") << "old";
    const UniqueFd fd = openFile(root_ / "source", O_RDONLY);
    EXPECT_EQ(kindOf([&] { copySparse(fd.get(), root_ / "target", 0600, ::geteuid(), ::getegid()); }),
              ErrorKind::AlreadyExists);
    EXPECT_EQ(readFile(root_ / "target", 10), "old");
}

TEST_F(File, CopyOfContentTakesNoNoteOfOtherNamesTimesAndModes) {
    const std::string content(1U << 20U, 'x');
    std::ofstream(root_ / "source") << content;
    const UniqueFd source = openFile(root_ / "source", O_RDONLY);
    const std::jthread others([&](const std::stop_token& stop) {
        while (!stop.stop_requested()) {
            fs::create_hard_link(root_ / "source", root_ / "other");
            EXPECT_EQ(::futimens(source.get(), nullptr), 0);
            EXPECT_EQ(::fchmod(source.get(), 0640), 0);
            EXPECT_EQ(::fchmod(source.get(), 0600), 0);
            fs::remove(root_ / "other");
        }
    });
    for (int copy = 0; copy < 10; ++copy) {
        const UniqueFd target = openFile(root_ / "target", O_WRONLY | O_CREAT | O_TRUNC, 0600);
        ASSERT_NO_THROW(copyContent(source.get(), target.get(), "the target"));
        ASSERT_TRUE(readFile(root_ / "target", 2U << 20U) == content);
    }
}

TEST_F(File, DescriptorsAreNotInherited) {
    const UniqueFd fd = openFile(root_ / "a", O_RDWR | O_CREAT, 0600);
    EXPECT_EQ(::fcntl(fd.get(), F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
    const UniqueFd beneath = openBeneath({root_}, root_ / "a", O_RDONLY);
    EXPECT_EQ(::fcntl(beneath.get(), F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
}

}  // namespace
}  // namespace mergen
