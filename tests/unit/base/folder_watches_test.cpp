#include <algorithm>
#include <chrono>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include <mergen/base/file.hpp>
#include <mergen/base/folder_watches.hpp>

#include "test_host.hpp"

namespace mergen {
namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;

/// What a wait for something that has happened never takes.
constexpr std::chrono::milliseconds plenty = 60s;

/// Inotify instances that this process has open.
std::ptrdiff_t instances() {
    const std::vector<std::string> open = listDirectory("/proc/self/fd");
    return std::ranges::count_if(open, [](const std::string& number) {
        std::error_code gone;
        return fs::read_symlink("/proc/self/fd/" + number, gone) == "anon_inode:inotify";
    });
}

class FolderWatchesTest : public ::testing::Test {
protected:
    void appear(const std::string& name) { writeFileAtomically(folder_ / name, "x", 0600); }

    test::TestHost host_{nullptr};
    const fs::path folder_ = host_.paths().runRoot;
    const std::ptrdiff_t before_ = instances();
    FolderWatches watches_;
};

TEST_F(FolderWatchesTest, WaitEndsWithWhatAppearedSinceTheConstruction) {
    FolderWatches::Watch watch(watches_, folder_);
    appear("one");
    watch.wait(plenty);
    const std::jthread later([&] { appear("two"); });
    watch.wait(plenty);
}

TEST_F(FolderWatchesTest, OneInstanceServesOneWaitAfterTheOther) {
    for (int i = 0; i < 10; ++i) {
        FolderWatches::Watch watch(watches_, folder_);
        EXPECT_EQ(instances(), before_ + 1);
    }
    EXPECT_EQ(instances(), before_ + 1);
}

TEST_F(FolderWatchesTest, WaitsAtOnceHaveInstancesOfTheirOwnAndEndEach) {
    const fs::path other = folder_ / "other";
    makeDirectories(other, 0700);
    FolderWatches::Watch here(watches_, folder_);
    FolderWatches::Watch there(watches_, other);
    EXPECT_EQ(instances(), before_ + 2);
    writeFileAtomically(other / "one", "x", 0600);
    there.wait(plenty);
    appear("one");
    here.wait(plenty);
}

TEST_F(FolderWatchesTest, OnlySoManyAreKept) {
    std::vector<std::unique_ptr<FolderWatches::Watch>> all;
    for (int i = 0; i < 40; ++i) all.push_back(std::make_unique<FolderWatches::Watch>(watches_, folder_));
    EXPECT_EQ(instances(), before_ + 40);
    all.clear();
    EXPECT_EQ(instances(), before_ + 16);
}

TEST_F(FolderWatchesTest, AFolderThatIsNotThereOrGoesAwayKeepsNobodyForEver) {
    FolderWatches::Watch none(watches_, folder_ / "none");
    none.wait(1ms);
    const fs::path brief = folder_ / "brief";
    makeDirectories(brief, 0700);
    {
        FolderWatches::Watch watch(watches_, brief);
        removeTree(brief);
        watch.wait(1ms);
    }
    appear("one");  // the instance is as good as before
    FolderWatches::Watch watch(watches_, folder_);
    appear("two");
    watch.wait(plenty);
}

}  // namespace
}  // namespace mergen
