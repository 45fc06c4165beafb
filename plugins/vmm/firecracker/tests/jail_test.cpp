#include "jail.hpp"

#include <filesystem>
#include <fstream>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <thread>
#include <unistd.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <mergen/base/file.hpp>
#include <mergen/sdk/error.hpp>

#include "test_host.hpp"

namespace mergen::vmm {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

namespace fs = std::filesystem;

TEST(AGuestSeenFromItsJail, HasNamesOfOursForItsFilesAndIsOtherwiseTheSame) {
    GuestSpec guest;
    guest.kernel = "/data/vm/kernel";
    guest.initrd = "/data/vm/initrd";
    guest.bootArguments = "console=ttyS0";
    guest.disks = {{.id = "rootfs", .file = "/data/vm/rootfs.ext4", .readOnly = false, .root = true},
                   {.id = "data", .file = "/images/../a b.img", .readOnly = true, .root = false}};
    const GuestSpec seen = seenFromJail(guest);
    EXPECT_EQ(seen.kernel, "/vm/kernel");
    EXPECT_EQ(seen.initrd, "/vm/initrd");
    EXPECT_EQ(seen.disks[0].file, "/vm/disk-rootfs");
    EXPECT_EQ(seen.disks[1].file, "/vm/disk-data");
    EXPECT_TRUE(seen.disks[1].readOnly);
    EXPECT_EQ(seen.bootArguments, guest.bootArguments);
}

/// Jails in a data root of their own, for a VM of another user.
class Jails : public ::testing::Test {
protected:
    void SetUp() override {
        if (::geteuid() != 0) GTEST_SKIP() << "needs root: files are given to another user";
        makeDirectories(folder_, 0750);
        guest_.kernel = file("kernel", 0);
        guest_.disks = {{.id = "rootfs", .file = file("rootfs.ext4", user.uid), .readOnly = false, .root = true}};
    }

    [[nodiscard]] fs::path file(const std::string& name, uid_t owner) const { return fileAt(folder_ / name, owner); }
    [[nodiscard]] static fs::path fileAt(const fs::path& path, uid_t owner) {
        std::ofstream(path) << "content of " << path.filename();
        if (::chown(path.c_str(), owner, owner) != 0 || ::chmod(path.c_str(), 0640) != 0) ADD_FAILURE() << path;
        return path;
    }
    void make() { yard_.make("firecracker", guest_, place_); }
    /// The Error of make(); a failure of the test if there is none.
    [[nodiscard]] Error refusal() {
        try {
            make();
        } catch (const Error& error) {
            return error;
        }
        ADD_FAILURE() << "it was made";
        return {ErrorKind::Internal, ""};
    }
    [[nodiscard]] static struct stat statusOf(const fs::path& path) {
        struct stat status {};
        if (::lstat(path.c_str(), &status) != 0) ADD_FAILURE() << "there is no " << path;
        return status;
    }

    static constexpr Credentials user{1900000321, 1900000322};
    test::TestHost host_{nullptr};
    const Uuid vm_ = Uuid::random();
    const fs::path data_ = host_.paths().dataRoot;
    const fs::path folder_ = data_ / "vm-1";
    const VmmPlace place_{OwnerTag{host_.instance(), vm_}, host_.paths().runRoot, host_.paths().runRoot / "s", user};
    GuestSpec guest_;
    const JailYard yard_{data_};
    const fs::path root_ = yard_.rootOf("firecracker", vm_);
};

TEST_F(Jails, HaveTheVmsOwnFilesInFoldersOfRoot) {
    make();
    EXPECT_EQ(statusOf(root_ / "vm/disk-rootfs").st_ino, statusOf(guest_.disks[0].file).st_ino);
    EXPECT_EQ(statusOf(root_ / "vm/kernel").st_ino, statusOf(guest_.kernel).st_ino);
    for (const fs::path& folder : {data_ / ".jail", data_ / ".jail/firecracker", root_.parent_path()}) {
        EXPECT_EQ(statusOf(folder).st_uid, 0U) << folder;
        EXPECT_EQ(statusOf(folder).st_mode & 07777U, 0700U) << folder;
    }
    EXPECT_EQ(statusOf(root_ / "vm").st_uid, 0U);
    EXPECT_EQ(statusOf(root_ / "vm").st_gid, user.gid);
    EXPECT_EQ(statusOf(root_ / "vm").st_mode & 07777U, 0710U);
    for (const fs::path& folder : {root_, root_ / "run"}) {
        EXPECT_EQ(statusOf(folder).st_uid, user.uid) << folder;
        EXPECT_EQ(statusOf(folder).st_mode & 07777U, 0700U) << folder;
    }
    EXPECT_EQ(yard_.find(vm_), root_);
    EXPECT_THAT(yard_.list(), ElementsAre(vm_));
    yard_.remove(vm_);
    EXPECT_THAT(listDirectory(data_), ElementsAre("vm-1"));
    EXPECT_EQ(readFile(guest_.disks[0].file, 100), "content of \"rootfs.ext4\"");
    EXPECT_NO_THROW(yard_.remove(vm_)) << "nothing is there";
    EXPECT_EQ(yard_.find(vm_), "");
}

TEST_F(Jails, AreMadeAnewOverWhatIsLeft) {
    make();
    std::ofstream(root_ / "left") << "over";
    make();
    EXPECT_THAT(listDirectory(root_), ElementsAre("run", "vm"));
    yard_.remove(vm_);
}

TEST_F(Jails, ALinkAtAnyLevelIsRefusedAndNotFollowed) {
    const fs::path victim = host_.root() / "victim";
    const fs::path inVictim = victim / "firecracker" / vm_.str();
    makeDirectories(inVictim, 0755);
    std::ofstream(inVictim / "precious") << "kept";

    fs::create_directory_symlink(victim, data_ / ".jail");
    EXPECT_EQ(refusal().kind(), ErrorKind::PermissionDenied);
    yard_.remove(vm_);
    EXPECT_THAT(yard_.list(), IsEmpty());
    fs::remove(data_ / ".jail");

    makeDirectories(data_ / ".jail", 0700);
    fs::create_directory_symlink(victim / "firecracker", data_ / ".jail/firecracker");
    EXPECT_EQ(refusal().kind(), ErrorKind::PermissionDenied);
    yard_.remove(vm_);
    EXPECT_THAT(yard_.list(), IsEmpty());
    fs::remove(data_ / ".jail/firecracker");

    // The VM's own place is cleared, whatever stands there.
    makeDirectories(data_ / ".jail/firecracker", 0700);
    fs::create_directory_symlink(inVictim, root_.parent_path());
    make();
    EXPECT_TRUE(fs::is_directory(fs::symlink_status(root_)));
    yard_.remove(vm_);
    EXPECT_THAT(listDirectory(inVictim), ElementsAre("precious"));
    EXPECT_THAT(listDirectory(victim), ElementsAre("firecracker"));
}

TEST_F(Jails, WhereSomethingIsMountedNoneIsMade) {
    makeDirectories(data_ / ".jail", 0700);
    bool possible = true;
    // On a thread of its own, which takes its mounts with it.
    std::jthread([&] {
        possible = ::unshare(CLONE_NEWNS) == 0;
        if (!possible) return;
        ASSERT_EQ(::mount("", "/", nullptr, MS_REC | MS_PRIVATE, nullptr), 0);
        ASSERT_EQ(::mount("none", (data_ / ".jail").c_str(), "tmpfs", 0, "mode=0700"), 0);
        const Error error = refusal();
        EXPECT_EQ(error.kind(), ErrorKind::PermissionDenied);
        EXPECT_THAT(error.what(), HasSubstr("something is mounted at"));
        EXPECT_THAT(listDirectory(data_ / ".jail"), IsEmpty());
    }).join();
    if (!possible) GTEST_SKIP() << "needs CAP_SYS_ADMIN: something is mounted";
}

TEST_F(Jails, AFolderThatSomebodyElseCanChangeIsRefused) {
    makeDirectories(data_ / ".jail", 0700);
    std::ofstream(data_ / ".jail/planted") << "an empty folder would be removed and made anew";
    ASSERT_EQ(::chmod((data_ / ".jail").c_str(), 0777), 0);
    EXPECT_THAT(refusal().what(), HasSubstr("writable by nobody else"));
    ASSERT_EQ(::chmod((data_ / ".jail").c_str(), 0700), 0);
    ASSERT_EQ(::chown((data_ / ".jail").c_str(), user.uid, user.gid), 0);
    EXPECT_EQ(refusal().kind(), ErrorKind::PermissionDenied);
}

TEST_F(Jails, AWritableDiskThatIsNotTheVmUsersIsRefused) {
    const fs::path secret = fileAt(host_.root() / "secret", 0);
    guest_.disks.push_back({.id = "data", .file = secret, .readOnly = false, .root = false});
    EXPECT_EQ(refusal().field(), "disks[1].file");
    EXPECT_EQ(statusOf(secret).st_uid, 0U);
    EXPECT_EQ(statusOf(secret).st_nlink, 1U);

    fs::remove(guest_.disks[0].file);
    fs::create_symlink(secret, guest_.disks[0].file);
    EXPECT_EQ(refusal().field(), "disks[0].file");
    fs::remove(guest_.disks[0].file);
    ASSERT_EQ(::mkfifo(guest_.disks[0].file.c_str(), 0600), 0);
    EXPECT_THAT(refusal().what(), HasSubstr("no regular file"));
    fs::remove(guest_.disks[0].file);
    EXPECT_EQ(refusal().kind(), ErrorKind::NotFound);
    yard_.remove(vm_);
    EXPECT_THAT(yard_.list(), IsEmpty());
}

TEST_F(Jails, AReadOnlyFileFromElsewhereIsCopied) {
    guest_.disks.push_back(
        {.id = "tools", .file = fileAt(host_.root() / "tools.img", user.uid), .readOnly = true, .root = false});
    make();
    const struct stat copy = statusOf(root_ / "vm/disk-tools");
    EXPECT_NE(copy.st_ino, statusOf(host_.root() / "tools.img").st_ino);
    EXPECT_EQ(copy.st_uid, 0U);
    EXPECT_EQ(copy.st_gid, user.gid);
    EXPECT_EQ(copy.st_mode & 07777U, 0440U);
    EXPECT_EQ(readFile(root_ / "vm/disk-tools", 100), "content of \"tools.img\"");
    yard_.remove(vm_);
}

TEST_F(Jails, AReadOnlyFileFromElsewhereThatIsNotTheVmUsersIsNotCopied) {
    const fs::path secret = fileAt(host_.root() / "secret", 0);
    const fs::path folder = host_.root() / "images";
    fs::create_directory_symlink(host_.root(), folder);  // led elsewhere since the disk was lent
    guest_.disks.push_back({.id = "tools", .file = folder / "secret", .readOnly = true, .root = false});
    EXPECT_EQ(refusal().field(), "disks[1].file");
    yard_.remove(vm_);
    EXPECT_THAT(yard_.list(), IsEmpty());
}

TEST_F(Jails, TheConfigurationIsTheVmUsersToReadAndGoesNowhereElse) {
    EXPECT_THROW(yard_.write(vm_, jailed::configuration, "{}", user), Error) << "there is no jail";
    make();
    for (const char* const text : {"{}", "{\"a\": 1}"}) {
        yard_.write(vm_, jailed::configuration, text, user);
        EXPECT_EQ(readFile(root_ / "vm/firecracker.json", 100), text);
    }
    EXPECT_EQ(statusOf(root_ / "vm/firecracker.json").st_uid, user.uid);
    EXPECT_EQ(statusOf(root_ / "vm/firecracker.json").st_mode & 07777U, 0400U);

    // The jail's root is that user's: he can move our folder away.
    fs::rename(root_ / "vm", root_ / "away");
    const fs::path victim = host_.root() / "victim";
    makeDirectories(victim, 0755);
    fs::create_directory_symlink(victim, root_ / "vm");
    EXPECT_THROW(yard_.write(vm_, jailed::configuration, "{}", user), Error);
    EXPECT_THAT(listDirectory(victim), IsEmpty());
    fs::remove(root_ / "vm");
    makeDirectories(root_ / "vm", 0755);
    ASSERT_EQ(::chown((root_ / "vm").c_str(), user.uid, user.gid), 0);
    EXPECT_THROW(yard_.write(vm_, jailed::configuration, "{}", user), Error);
    EXPECT_THAT(listDirectory(root_ / "vm"), IsEmpty());
    yard_.remove(vm_);
}

TEST_F(Jails, WhatTheVmPlantedIsRemovedAndNotFollowed) {
    make();
    const fs::path precious = fileAt(host_.root() / "precious", 0);
    fs::create_symlink(host_.root(), root_ / "dev");
    fs::create_symlink(precious, root_ / "firecracker");
    for (const fs::path& left : leftInJail(root_, "firecracker")) static_cast<void>(removeTree(left));
    EXPECT_THAT(listDirectory(root_), ElementsAre("vm"));
    fs::create_symlink(host_.root(), root_ / "again");
    yard_.remove(vm_);
    EXPECT_TRUE(fs::exists(precious));
    EXPECT_TRUE(fs::exists(guest_.disks[0].file));
}

}  // namespace
}  // namespace mergen::vmm
