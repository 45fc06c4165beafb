#include "kernel_cache.hpp"

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <fcntl.h>
#include <filesystem>
#include <functional>
#include <latch>
#include <optional>
#include <sched.h>
#include <signal.h>
#include <string>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <mergen/base/file.hpp>
#include <mergen/sdk/error.hpp>
#include <mergen/sdk/failpoint.hpp>

#include "cached_import.hpp"
#include "kernels.hpp"
#include "test_host.hpp"

namespace mergen::vmm {
namespace {

using test::gzip;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr std::uint64_t plenty = std::uint64_t{1} << 20U;
constexpr std::size_t readLimit = std::size_t{1} << 24U;

class KernelCacheTest : public ::testing::Test {
protected:
    [[nodiscard]] KernelCache cache(std::uint64_t bytes = plenty, std::size_t entries = 32) const {
        return KernelCache(dataRoot_, {bytes, entries});
    }
    static std::string digest(char digit) { return std::string(64, digit); }
    [[nodiscard]] std::filesystem::path entry(char digit, std::size_t size) const {
        return kernels_ / (digest(digit) + "-" + std::to_string(size));
    }
    void keep(const KernelCache& cache, char digit, const std::string& content) const {
        writeFileAtomically(dataRoot_ / "unpacked", content, 0440);
        cache.keep(digest(digit), openFile(dataRoot_ / "unpacked", O_RDONLY).get());
        std::filesystem::remove(dataRoot_ / "unpacked");
    }
    static std::optional<std::string> contentOf(const std::optional<UniqueFd>& file) {
        if (!file) return std::nullopt;
        return readOpenFile(file->get(), "the entry", readLimit);
    }
    /// Makes an entry look as if it was used so many hours ago.
    static void age(const std::filesystem::path& file, int hours) {
        std::filesystem::last_write_time(file,
                                         std::filesystem::file_time_type::clock::now() - std::chrono::hours(hours));
    }
    /// A VM's own copy of a kernel.
    std::filesystem::path given(const std::string& name, const std::string& content) const {
        writeFileAtomically(dataRoot_ / name, content, 0440);
        return dataRoot_ / name;
    }
    std::string import(const KernelCache& cache, const std::filesystem::path& kernel,
                       std::optional<FirecrackerVersion> version = {}) {
        importKernelThrough(cache, turns_, kernel, version, host_.log());
        return readFile(kernel, readLimit).value_or("no file");
    }

    test::TestHost host_{nullptr};
    UnpackTurns turns_;
    const std::filesystem::path dataRoot_ = host_.paths().dataRoot, kernels_ = dataRoot_ / ".cache" / "kernels";
};

/// Runs `story` in a process with mounts of its own; false where the host does not allow that.
bool inOwnMounts(const std::function<void()>& story) {
    const pid_t child = ::fork();
    if (child == 0) {
        if (::unshare(CLONE_NEWNS) != 0 || ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0)
            ::_exit(77);
        story();
        ::_exit(::testing::Test::HasFailure() ? 1 : 0);
    }
    int status = 0;
    EXPECT_EQ(::waitpid(child, &status, 0), child);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77) return false;
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << "status " << status;
    return true;
}

constexpr const char* needsMounts = "needs root: a file system of its own (unshare, mount)";

/// Fills the file system up to `left` bytes.
void fill(const std::filesystem::path& folder, std::uint64_t left) {
    std::filesystem::remove(folder / "filler");
    const std::uint64_t free = std::filesystem::space(folder).available;
    ASSERT_GE(free, left);
    const UniqueFd file = openFile(folder / "filler", O_WRONLY | O_CREAT | O_TRUNC, 0600);
    ASSERT_EQ(::posix_fallocate(file.get(), 0, static_cast<off_t>(free - left)), 0);
}

std::string elf() {
    return test::elfHead() + std::string(50'000, 'k');
}

// ---- what is kept

TEST_F(KernelCacheTest, GivesBackWhatItWasGivenAndNothingElse) {
    const KernelCache kept = cache();
    EXPECT_FALSE(kept.find(digest('a')));
    EXPECT_THAT(listDirectory(dataRoot_), IsEmpty()) << "nothing is made before there is something to keep";
    keep(kept, 'a', "kernel a");
    keep(kept, 'b', "b");
    EXPECT_EQ(contentOf(kept.find(digest('a'))), "kernel a");
    EXPECT_EQ(contentOf(cache().find(digest('b'))), "b") << "by the next server";
    EXPECT_FALSE(kept.find(digest('c')));
    EXPECT_THAT(listDirectory(kernels_), ElementsAre(digest('a') + "-8", digest('b') + "-1"));
    struct stat status {};
    ASSERT_EQ(::stat(kernels_.c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 07777U, 0700U);
    ASSERT_EQ(::stat(entry('a', 8).c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 07777U, 0400U);
    EXPECT_EQ(status.st_uid, ::geteuid());
}

TEST_F(KernelCacheTest, TheDigestIsTheSha256OfTheWholeFile) {
    // FIPS 180-2, appendix B.
    EXPECT_EQ(contentDigest(openFile(given("abc", "abc"), O_RDONLY).get()),
              "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    EXPECT_EQ(contentDigest(openFile(given("million", std::string(1'000'000, 'a')), O_RDONLY).get()),
              "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST_F(KernelCacheTest, AnEntryThatAnotherUserCouldHaveWrittenOrThatIsNotWholeIsNotUsed) {
    const KernelCache kept = cache();
    const std::filesystem::path file = entry('a', 8);
    const auto made = [&] {
        std::filesystem::remove(file);
        keep(kept, 'a', "kernel a");
        EXPECT_TRUE(kept.find(digest('a')));
    };
    for (const mode_t mode : {0600U, 0420U, 0402U, 0440U, 0404U, 04400U}) {
        made();
        ASSERT_EQ(::chmod(file.c_str(), mode), 0);
        EXPECT_FALSE(kept.find(digest('a'))) << std::oct << mode;
    }
    made();
    std::filesystem::create_hard_link(file, dataRoot_ / "link");
    EXPECT_FALSE(kept.find(digest('a'))) << "it has another name";
    std::filesystem::remove(dataRoot_ / "link");
    EXPECT_TRUE(kept.find(digest('a')));

    made();
    std::filesystem::resize_file(file, 7);
    EXPECT_FALSE(kept.find(digest('a'))) << "it is cut off";

    made();
    std::filesystem::rename(file, dataRoot_ / "elsewhere");
    std::filesystem::create_symlink(dataRoot_ / "elsewhere", file);
    EXPECT_FALSE(kept.find(digest('a'))) << "it is a link";
    std::filesystem::remove(file);
    ASSERT_EQ(::mkfifo(file.c_str(), 0400), 0);
    EXPECT_FALSE(kept.find(digest('a'))) << "it is a FIFO";
    std::filesystem::remove(file);

    if (::geteuid() != 0) return;
    made();
    ASSERT_EQ(::chown(file.c_str(), 4242, 0), 0);
    EXPECT_FALSE(kept.find(digest('a'))) << "it is somebody else's";
    keep(kept, 'a', "kernel a");
    EXPECT_EQ(contentOf(kept.find(digest('a'))), "kernel a") << "a good one took its place";
}

TEST_F(KernelCacheTest, AFolderThatAnotherUserCouldWriteToIsNotUsed) {
    const KernelCache kept = cache();
    keep(kept, 'a', "kernel a");
    const auto refusal = [&] {
        try {
            static_cast<void>(kept.find(digest('a')));
        } catch (const Error& error) {
            return std::string(error.what());
        }
        return std::string();
    };
    EXPECT_EQ(refusal(), "");
    for (const std::filesystem::path& folder : {kernels_, kernels_.parent_path()}) {
        ASSERT_EQ(::chmod(folder.c_str(), 0770), 0);
        EXPECT_THAT(refusal(), HasSubstr("writable by nobody else")) << folder;
        EXPECT_THROW(keep(kept, 'b', "b"), Error) << folder;
        ASSERT_EQ(::chmod(folder.c_str(), 0700), 0);
    }
    std::filesystem::rename(kernels_, dataRoot_ / "elsewhere");
    std::filesystem::create_directory_symlink(dataRoot_ / "elsewhere", kernels_);
    EXPECT_THAT(refusal(), HasSubstr("kernels"));
}

// ---- bounds

TEST_F(KernelCacheTest, WhatWasUsedLeastRecentlyGoesFirstWhenThereAreTooMany) {
    const KernelCache kept = cache(plenty, 2);
    keep(kept, 'a', "a");
    keep(kept, 'b', "b");
    age(entry('a', 1), 3);
    age(entry('b', 1), 2);
    EXPECT_TRUE(kept.find(digest('a'))) << "which counts as a use";
    keep(kept, 'c', "c");
    EXPECT_THAT(listDirectory(kernels_), ElementsAre(digest('a') + "-1", digest('c') + "-1"));
}

TEST_F(KernelCacheTest, AllTogetherHaveNoMoreThanTheBytes) {
    const KernelCache kept = cache(10);
    keep(kept, 'a', "four");
    keep(kept, 'b', "four");
    age(entry('a', 4), 2);
    age(entry('b', 4), 1);
    keep(kept, 'c', "2b");
    EXPECT_THAT(listDirectory(kernels_), SizeIs(3)) << "ten are allowed";
    keep(kept, 'd', "sixsix");
    EXPECT_THAT(listDirectory(kernels_), ElementsAre(digest('c') + "-2", digest('d') + "-6"));
    keep(kept, 'e', "eleven byte");
    EXPECT_THAT(listDirectory(kernels_), SizeIs(2)) << "what is larger than all takes nobody's place";
    EXPECT_FALSE(kept.find(digest('e')));
}

TEST_F(KernelCacheTest, WithoutRoomNothingIsKeptOrUsedAndTheStartOfAServerClearsIt) {
    keep(cache(), 'a', "a");
    const KernelCache none = cache(0);
    EXPECT_FALSE(none.find(digest('a')));
    const auto kernel = given("kernel", gzip(elf()));
    EXPECT_EQ(import(none, kernel), elf());
    EXPECT_THAT(listDirectory(kernels_), ElementsAre(digest('a') + "-1"));
    none.sweep();
    EXPECT_THAT(listDirectory(kernels_), IsEmpty());
}

TEST_F(KernelCacheTest, AStartClearsWhatACrashLeftAndWhatIsBeyondNewLimitsAndNothingElse) {
    cache().sweep();
    EXPECT_THAT(listDirectory(dataRoot_), IsEmpty()) << "without a cache there is nothing to do";
    keep(cache(), 'a', "a");
    keep(cache(), 'b', "b");
    age(entry('a', 1), 1);
    writeFileAtomically(kernels_ / ".aside-12-0", "half", 0400);
    writeFileAtomically(kernels_ / "somebody's", "own", 0400);
    cache(plenty, 1).sweep();
    EXPECT_THAT(listDirectory(kernels_), ElementsAre(digest('b') + "-1", "somebody's"));
}

TEST_F(KernelCacheTest, OneThatIsEvictedIsReadToItsEndByWhoHasItOpen) {
    const KernelCache kept = cache(plenty, 1);
    keep(kept, 'a', "kernel a");
    const std::optional<UniqueFd> open = kept.find(digest('a'));
    keep(kept, 'b', "b");
    EXPECT_FALSE(kept.find(digest('a')));
    EXPECT_EQ(contentOf(open), "kernel a");
}

#ifdef MERGEN_WITH_FAILPOINTS
TEST_F(KernelCacheTest, RoomIsMadeBeforeAnEntryIsWritten) {
    const KernelCache kept = cache(10);
    keep(kept, 'a', "sixsix");
    failpoint::arm("vmm.firecracker.kernel_cache.aside=error(it is written)");
    EXPECT_THROW(keep(kept, 'b', "sevenB!"), Error);
    failpoint::arm("");
    EXPECT_THAT(listDirectory(kernels_), IsEmpty());
    for (int round = 0; round < 3; ++round) keep(kept, 'c', "ten bytes!");
    EXPECT_THAT(listDirectory(kernels_), SizeIs(1)) << "the room of what failed was given back";
}
#endif

TEST_F(KernelCacheTest, NothingGoesForWhatFindsNoRoomEvenSo) {
    const bool done = inOwnMounts([&] {
        ASSERT_EQ(::mount("tmpfs", dataRoot_.c_str(), "tmpfs", 0, "size=16m,mode=0711"), 0);
        const KernelCache kept = cache();
        keep(kept, 'a', std::string(100'000, 'a'));
        keep(kept, 'b', std::string(100'000, 'b'));
        fill(dataRoot_, plenty - 50'000);
        keep(kept, 'c', std::string(160'000, 'c'));
        EXPECT_THAT(listDirectory(kernels_), ElementsAre(digest('a') + "-100000", digest('b') + "-100000"));
    });
    if (!done) GTEST_SKIP() << needsMounts;
}

TEST_F(KernelCacheTest, WhatWasUsedLeastRecentlyGoesFirstWhereTooLittleWouldBeFree) {
    const bool done = inOwnMounts([&] {
        ASSERT_EQ(::mount("tmpfs", dataRoot_.c_str(), "tmpfs", 0, "size=16m,mode=0711"), 0);
        const KernelCache kept = cache();
        keep(kept, 'a', std::string(100'000, 'a'));
        keep(kept, 'b', std::string(100'000, 'b'));
        keep(kept, 'c', std::string(100'000, 'c'));
        age(entry('a', 100'000), 1);
        age(entry('b', 100'000), 3);
        age(entry('c', 100'000), 2);
        writeFileAtomically(dataRoot_ / "unpacked", std::string(150'000, 'd'), 0440);
        fill(dataRoot_, plenty + 10'000);
        kept.keep(digest('d'), openFile(dataRoot_ / "unpacked", O_RDONLY).get());
        EXPECT_THAT(listDirectory(kernels_), ElementsAre(digest('a') + "-100000", digest('d') + "-150000"));
        EXPECT_GE(std::filesystem::space(dataRoot_).available, plenty);
    });
    if (!done) GTEST_SKIP() << needsMounts;
}

#ifdef MERGEN_WITH_FAILPOINTS
TEST_F(KernelCacheTest, WhatIsWrittenOfAnEntryThatIsComingIsNotCountedTwice) {
    const bool done = inOwnMounts([&] {
        ASSERT_EQ(::mount("tmpfs", dataRoot_.c_str(), "tmpfs", 0, "size=16m,mode=0711"), 0);
        const KernelCache kept = cache();
        writeFileAtomically(dataRoot_ / "large", std::string(400'000, 'a'), 0440);
        writeFileAtomically(dataRoot_ / "small", "b", 0440);
        fill(dataRoot_, plenty + 450'000);
        failpoint::arm("vmm.firecracker.kernel_cache.aside=1*delay(500)");
        std::jthread large([&] { kept.keep(digest('a'), openFile(dataRoot_ / "large", O_RDONLY).get()); });
        // It is whole once it has its mode; then it waits to be renamed.
        const std::filesystem::path aside = kernels_ / (".aside-" + std::to_string(::getpid()) + "-0");
        struct stat status {};
        while (::stat(aside.c_str(), &status) != 0 || (status.st_mode & 07777U) != 0400U) std::this_thread::yield();
        kept.keep(digest('b'), openFile(dataRoot_ / "small", O_RDONLY).get());
        large.join();
        failpoint::arm("");
        EXPECT_THAT(listDirectory(kernels_), ElementsAre(digest('a') + "-400000", digest('b') + "-1"));
    });
    if (!done) GTEST_SKIP() << needsMounts;
}
#endif

TEST_F(KernelCacheTest, AVmForWhichThereIsNoRoomIsToldSoAndGetsThatOfTheCacheOnceItIsDropped) {
    const bool done = inOwnMounts([&] {
        ASSERT_EQ(::mount("tmpfs", dataRoot_.c_str(), "tmpfs", 0, "size=16m,mode=0711"), 0);
        const KernelCache kept = cache();
        for (const std::string& packed : {gzip(elf()), test::lz4(elf())}) {
            keep(kept, 'a', std::string(200'000, 'a'));
            const auto kernel = given("kernel", packed);
            fill(dataRoot_, 0);
            try {
                import(kept, kernel);
                ADD_FAILURE() << "there is no room";
            } catch (const Error& error) {
                EXPECT_EQ(error.kind(), ErrorKind::ResourceExhausted);
                EXPECT_EQ(error.errnum(), ENOSPC);
                EXPECT_THAT(error.what(), HasSubstr("cannot write the unpacked kernel: No space left"));
            }
            EXPECT_EQ(readFile(kernel, readLimit), packed);
            EXPECT_TRUE(kept.drop());
            EXPECT_FALSE(kept.drop());
            EXPECT_EQ(import(kept, kernel), elf());
            EXPECT_THAT(listDirectory(kernels_), IsEmpty());
            EXPECT_THAT(host_.log().lines(), IsEmpty());
            std::filesystem::remove(dataRoot_ / "filler");
        }
    });
    if (!done) GTEST_SKIP() << needsMounts;
}

TEST_F(KernelCacheTest, AHitThatCannotBeMarkedIsAHit) {
    const KernelCache kept = cache();
    keep(kept, 'a', "kernel a");
    age(entry('a', 8), 2);
    const bool done = inOwnMounts([&] {
        ASSERT_EQ(::mount(dataRoot_.c_str(), dataRoot_.c_str(), nullptr, MS_BIND, nullptr), 0);
        ASSERT_EQ(::mount(nullptr, dataRoot_.c_str(), nullptr, MS_REMOUNT | MS_BIND | MS_RDONLY, nullptr), 0);
        EXPECT_EQ(contentOf(kept.find(digest('a'))), "kernel a");
    });
    if (!done) GTEST_SKIP() << needsMounts;
}

TEST_F(KernelCacheTest, AnEntryThatCannotBeOpenedIsAFaultAndNotAbsent) {
    const KernelCache kept = cache();
    keep(kept, 'a', "kernel a");
    // A lease makes an open that does not wait fail; what stands behind most such failures cannot be made: EIO, EMFILE.
    const UniqueFd holder(::open(entry('a', 8).c_str(), O_RDONLY | O_CLOEXEC));
    ASSERT_EQ(::fcntl(holder.get(), F_SETSIG, SIGURG), 0);
    if (::fcntl(holder.get(), F_SETLEASE, F_WRLCK) != 0) GTEST_SKIP() << "this file system has no leases";
    EXPECT_THROW(static_cast<void>(kept.find(digest('a'))), Error);
    ASSERT_EQ(::fcntl(holder.get(), F_SETLEASE, F_UNLCK), 0);
    EXPECT_TRUE(kept.find(digest('a')));
}

TEST_F(KernelCacheTest, AStartDoesAllThatItCanBeforeItSaysWhatItCannot) {
    keep(cache(), 'a', "a");
    keep(cache(), 'b', "b");
    age(entry('a', 1), 1);
    std::filesystem::create_directories(kernels_ / ".aside-0-0" / "in the way");
    std::filesystem::create_directory(entry('0', 7));
    writeFileAtomically(kernels_ / ".aside-9-9", "half", 0400);
    try {
        cache(plenty, 1).sweep();
        ADD_FAILURE() << "a folder was removed";
    } catch (const Error& error) {
        EXPECT_THAT(error.what(), HasSubstr("cannot remove .aside-0-0"));
    }
    EXPECT_THAT(listDirectory(kernels_), ElementsAre(".aside-0-0", digest('0') + "-7", digest('b') + "-1"));
}

// ---- imports

TEST_F(KernelCacheTest, TheSecondVmOfAKernelGetsACopyOfWhatTheFirstOneWasUnpackedTo) {
    const KernelCache kept = cache();
    const auto first = given("first", gzip(elf())), second = given("second", gzip(elf()));
    EXPECT_EQ(import(kept, first), elf());
    ASSERT_THAT(listDirectory(kernels_), SizeIs(1));
    // As nobody else than us could: to see where the second one comes from.
    const std::filesystem::path only = kernels_ / listDirectory(kernels_)[0];
    const std::string marked = test::elfHead() + std::string(50'000, 'm');
    writeFileAtomically(only, marked, 0400);
    EXPECT_EQ(import(kept, second), marked);
    struct stat own {
    }, cached{};
    ASSERT_EQ(::stat(second.c_str(), &own), 0);
    ASSERT_EQ(::stat(only.c_str(), &cached), 0);
    EXPECT_EQ(own.st_mode & 07777U, 0440U) << "the owner and mode of the VM's file";
    EXPECT_NE(own.st_ino, cached.st_ino);
    std::filesystem::remove_all(kernels_);
    EXPECT_EQ(readFile(second, readLimit), marked) << "the cache may go at any time";
    EXPECT_THAT(listDirectory(dataRoot_), ElementsAre(".cache", "first", "second"));
    EXPECT_THAT(host_.log().lines(), IsEmpty());
}

TEST_F(KernelCacheTest, AnotherContentIsAnotherKernel) {
    const KernelCache kept = cache();
    import(kept, given("first", gzip(elf())));
    EXPECT_EQ(import(kept, given("second", gzip(elf() + "x"))), elf() + "x");
    EXPECT_THAT(listDirectory(kernels_), SizeIs(2));
}

TEST_F(KernelCacheTest, WhatNeedsNoOrLittleUnpackingOrCannotBeUnpackedIsNotKept) {
    const KernelCache kept = cache();
    EXPECT_EQ(import(kept, given("elf", elf())), elf());
    std::string image(1024, '\0');  // for Firecracker to load: no payload that we unpack
    image.replace(0x202, 4, "HdrS");
    EXPECT_EQ(import(kept, given("bzImage", image)), image);
    EXPECT_EQ(import(kept, given("lz4", test::lz4(elf()))), elf()) << "unpacked before it is looked for";
    EXPECT_THROW(import(kept, given("cut", gzip(elf()).substr(0, 40))), Error);
    EXPECT_THROW(import(kept, given("text", gzip("#!/bin/sh\n"))), Error);
    EXPECT_FALSE(std::filesystem::exists(kernels_.parent_path()));
}

TEST_F(KernelCacheTest, ACacheThatMustNotBeUsedOrCannotBeWrittenKeepsNoKernelFromBeingImported) {
    const KernelCache kept = cache();
    import(kept, given("first", gzip(elf())));
    ASSERT_EQ(::chmod(kernels_.c_str(), 0777), 0);
    EXPECT_EQ(import(kept, given("second", gzip(elf()))), elf());
    const auto lines = host_.log().lines("vmm.firecracker.kernel_cache.unused");
    ASSERT_FALSE(lines.empty());
    EXPECT_EQ(lines[0].level, LogLevel::Warning);
    EXPECT_THAT(lines[0].fields.at("error"), HasSubstr("writable by nobody else"));

    std::filesystem::remove_all(kernels_.parent_path());
    writeFileAtomically(kernels_.parent_path(), "in the way", 0600);
    EXPECT_EQ(import(kept, given("third", gzip(elf()))), elf());
    EXPECT_THAT(listDirectory(dataRoot_), ElementsAre(".cache", "first", "second", "third"));
}

TEST_F(KernelCacheTest, AVmsOwnKernelThatCannotBeReadIsNoFaultOfTheCache) {
    const std::filesystem::path unreadable = dataRoot_ / "folder";
    std::filesystem::create_directory(unreadable);
    try {
        import(cache(), unreadable);
        ADD_FAILURE() << "it was read";
    } catch (const Error& error) {
        EXPECT_THAT(error.what(), HasSubstr("cannot read the kernel"));
    }
    EXPECT_THAT(host_.log().lines(), IsEmpty()) << "it is thrown, and not logged as well";
}

#ifdef MERGEN_WITH_FAILPOINTS
TEST_F(KernelCacheTest, OneThatCannotBeKeptForWantOfRoomLeavesNothingAndTheVmHasItsKernel) {
    failpoint::arm("vmm.firecracker.kernel_cache.aside=nospace");
    EXPECT_EQ(import(cache(), given("kernel", gzip(elf()))), elf());
    failpoint::arm("");
    EXPECT_THAT(listDirectory(kernels_), IsEmpty());
    EXPECT_THAT(host_.log().lines("vmm.firecracker.kernel_cache.unused"), SizeIs(1));
}
#endif

TEST_F(KernelCacheTest, ManyAtOnceOfOneKernelAllGetItWhileTheCacheForgetsIt) {
    const KernelCache kept = cache(plenty, 1);
    constexpr int vms = 8, rounds = 10;
    std::latch ready(vms + 1);
    std::atomic<int> wrong{0};
    {
        std::vector<std::jthread> threads;
        for (int vm = 0; vm < vms; ++vm) {
            threads.emplace_back([&, vm] {
                ready.arrive_and_wait();
                for (int round = 0; round < rounds; ++round) {
                    const auto kernel = given("vm-" + std::to_string(vm), gzip(elf()));
                    importKernelThrough(kept, turns_, kernel, {}, host_.log());
                    if (readFile(kernel, readLimit) != elf()) ++wrong;
                }
            });
        }
        threads.emplace_back([&] {
            ready.arrive_and_wait();
            for (int round = 0; round < rounds; ++round) import(kept, given("other", gzip(elf() + "other")));
        });
    }
    EXPECT_EQ(wrong, 0);
    for (const std::string& name : listDirectory(kernels_)) EXPECT_FALSE(name.starts_with(".aside-")) << name;
    EXPECT_THAT(listDirectory(kernels_), SizeIs(::testing::Le(1)));
    EXPECT_THAT(host_.log().lines(), IsEmpty()) << "no copy is void because others use, make or evict the entry";
}

TEST_F(KernelCacheTest, OfManyAtOnceOfOneKernelOneIsUnpackedAndTheOthersGetACopy) {
    const KernelCache kept = cache();
    constexpr std::size_t vms = 8;
    const std::string marked = test::elfHead() + std::string(50'000, 'm');
    const std::string digest = contentDigest(openFile(given("packed", gzip(elf())), O_RDONLY).get());
    std::vector<std::filesystem::path> own;
    for (std::size_t vm = 0; vm < vms; ++vm) own.push_back(given("vm-" + std::to_string(vm), gzip(elf())));
    {
        std::vector<std::jthread> threads;
        const UnpackTurns::OfKernel turn(turns_, digest);
        for (const auto& kernel : own)
            threads.emplace_back([&] { importKernelThrough(kept, turns_, kernel, {}, host_.log()); });
        while (turns_.waitingForKernel() != vms) std::this_thread::yield();
        // What nobody who unpacks it himself would have.
        writeFileAtomically(dataRoot_ / "marked", marked, 0440);
        kept.keep(digest, openFile(dataRoot_ / "marked", O_RDONLY).get());
    }
    for (const auto& kernel : own) EXPECT_EQ(readFile(kernel, readLimit), marked) << kernel;
    EXPECT_THAT(host_.log().lines(), IsEmpty());
}

TEST_F(KernelCacheTest, OfManyAtOnceOfOneKernelThatCannotBeKeptNobodyAwaitsMoreThanTheFirstOne) {
    const KernelCache kept = cache(1);
    constexpr std::size_t vms = UnpackTurns::usuallyAtOnce + 3;
    const std::string digest = contentDigest(openFile(given("packed", gzip(elf())), O_RDONLY).get());
    std::vector<std::filesystem::path> own;
    for (std::size_t vm = 0; vm < vms; ++vm) own.push_back(given("vm-" + std::to_string(vm), gzip(elf())));
    std::vector<std::optional<UnpackTurns::Place>> places(UnpackTurns::usuallyAtOnce);
    for (auto& place : places) place.emplace(turns_);
    {
        std::vector<std::jthread> threads;
        std::optional<UnpackTurns::OfKernel> first(std::in_place, turns_, digest);
        for (const auto& kernel : own)
            threads.emplace_back([&] { importKernelThrough(kept, turns_, kernel, {}, host_.log()); });
        while (turns_.waitingForKernel() != vms) std::this_thread::yield();
        first.reset();
        while (turns_.waitingForPlace() != vms) std::this_thread::yield();
        EXPECT_EQ(turns_.waitingForKernel(), 0U);
        places.clear();
    }
    for (const auto& kernel : own) EXPECT_EQ(readFile(kernel, readLimit), elf()) << kernel;
    EXPECT_FALSE(kept.find(digest));
}

TEST_F(KernelCacheTest, AnEntryThatIsSoundIsNotMadeAnew) {
    const KernelCache kept = cache();
    keep(kept, 'a', "kernel a");
    struct stat before {
    }, after{};
    ASSERT_EQ(::stat(entry('a', 8).c_str(), &before), 0);
    keep(kept, 'a', "kernel a");
    ASSERT_EQ(::stat(entry('a', 8).c_str(), &after), 0);
    EXPECT_EQ(before.st_ino, after.st_ino);
    EXPECT_THAT(listDirectory(kernels_), SizeIs(1));
}

TEST_F(KernelCacheTest, UnpackingsAtOnceAreBoundedWhateverTheKernel) {
    const UnpackTurns::Place first(turns_), second(turns_), third(turns_);
    auto last = std::make_optional<UnpackTurns::Place>(turns_);
    const auto kernel = given("gzip", gzip(elf())), other = given("lz4", test::lz4(elf()));
    EXPECT_EQ(import(cache(), given("elf", elf())), elf()) << "what is not unpacked awaits nobody";
    {
        const std::jthread one([&] { importKernelThrough(cache(), turns_, kernel, {}, host_.log()); });
        const std::jthread two([&] { importKernelThrough(cache(), turns_, other, {}, host_.log()); });
        while (turns_.waitingForPlace() != 2) std::this_thread::yield();
        EXPECT_EQ(readFile(kernel, readLimit), gzip(elf()));
        EXPECT_EQ(readFile(other, readLimit), test::lz4(elf()));
        last.reset();
    }
    EXPECT_EQ(readFile(kernel, readLimit), elf());
    EXPECT_EQ(readFile(other, readLimit), elf());
}

}  // namespace
}  // namespace mergen::vmm
