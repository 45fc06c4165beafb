/// The fake jailer refuses what a real one refuses, in its words.
#include <algorithm>
#include <chrono>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <mergen/base/process.hpp>

#include "comparison.hpp"
#include "jailer.hpp"
#include "test_host.hpp"

namespace mergen::vmm {
namespace {

using ::testing::HasSubstr;

namespace fs = std::filesystem;
using namespace std::chrono_literals;

struct Refused {
    std::vector<std::string> words;
    std::string why;
    bool onlyFake = false;  ///< what Mergen must not say, though the jailer takes it
};

/// Command lines that a jailer refuses before it makes anything.
std::vector<Refused> refusedCommandLines(const std::string& folder) {
    const auto with = [&](const std::vector<std::string>& change) {
        std::vector<std::string> words{"--id", "vm-1",  "--exec-file", MERGEN_FAKE_FIRECRACKER, "--uid",
                                       "7",    "--gid", "8",           "--chroot-base-dir",     folder};
        for (std::size_t i = 0; i + 1 < change.size(); i += 2) {
            const auto at = std::ranges::find(words, change[i]);
            if (at != words.end()) {
                at[1] = change[i + 1];
            } else {
                words.insert(words.end(), {change[i], change[i + 1]});
            }
        }
        return words;
    };
    return {
        {{"--id", "vm-1"}, "required, but not found."},
        {{"--exec-file", MERGEN_FAKE_FIRECRACKER}, "required, but not found."},
        {{"--bogus"}, "Found argument 'bogus' which wasn't expected"},
        {{"word"}, "Found argument 'word' which wasn't expected"},
        {{"--id"}, "The argument 'id' requires a value, but none was supplied."},
        {{"--id", "a", "--id", "b"}, "The argument 'id' was provided more than once."},
        {with({"--id", "vm_1"}), "Invalid instance ID"},
        {with({"--id", std::string(65, 'a')}), "Invalid instance ID"},
        {with({"--uid", "root"}), "Invalid uid"},
        {with({"--gid", "4294967296"}), "Invalid gid"},
        {with({"--exec-file", "/nonexistent"}), "Failed to canonicalize path /nonexistent"},
        {with({"--exec-file", folder}), "is not a file"},
        {with({"--chroot-base-dir", "/nonexistent"}), "Failed to canonicalize path /nonexistent"},
        {with({"--chroot-base-dir", MERGEN_FAKE_FIRECRACKER}), "is not a directory"},
        {with({"--parent-cgroup", "/a"}), "Parent cgroup path is invalid"},
        {with({"--parent-cgroup", "a/../b"}), "Parent cgroup path is invalid"},
        {with({"--cgroup-version", "x"}), "cgroup version"},
        {with({"--cgroup", "memory.max"}), "Invalid format for cgroups"},
        {with({"--cgroup", "memory.max="}), "Invalid format for cgroups"},
        {with({"--cgroup", "memory.max=1=2"}), "Invalid format for cgroups"},
        {with({"--cgroup", "../pids.max=1"}), "Cgroup invalid file"},
        {with({"--resource-limit", "no-file"}), "Invalid format for resources limits"},
        {with({"--resource-limit", "no-file=many"}), "Invalid limit value for resource"},
        {with({"--resource-limit", "cpu=1"}), "Invalid resource argument: cpu"},
        {with({"--netns", "/run/netns/x"}), "must not say --netns", true},
        {{"--daemonize"}, "must not say --daemonize", true},
        {{"--new-pid-ns"}, "must not say --new-pid-ns", true},
    };
}

RunResult runJailer(const fs::path& program, std::vector<std::string> words) {
    words.insert(words.begin(), program.string());
    return run(SpawnOptions{.arguments = std::move(words), .environment = {}}, 10s);
}

TEST(TheFakeJailer, RefusesWhatTheRealOneRefusesInTheSameWords) {
    const auto real = realPrograms().jailer;
    test::TestHost host(nullptr);
    for (const Refused& each : refusedCommandLines(host.root().string())) {
        SCOPED_TRACE(::testing::PrintToString(each.words));
        std::vector<fs::path> jailers{MERGEN_FAKE_JAILER};
        if (real && !each.onlyFake) jailers.push_back(*real);
        for (const fs::path& jailer : jailers) {
            const RunResult result = runJailer(jailer, each.words);
            EXPECT_EQ(describeStatus(result.status), "exit status 1") << jailer;
            EXPECT_THAT(result.errors, HasSubstr(each.why)) << jailer;
        }
        EXPECT_FALSE(fs::exists(host.root() / "firecracker")) << "it made something";
    }
}

TEST(TheFakeJailer, IsOfTheReleaseOfTheFakeFirecracker) {
    EXPECT_EQ(askVersion(MERGEN_FAKE_JAILER, "Jailer"), askVersion(MERGEN_FAKE_FIRECRACKER, "Firecracker"));
}

}  // namespace
}  // namespace mergen::vmm
