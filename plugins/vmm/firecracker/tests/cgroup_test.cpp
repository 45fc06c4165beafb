#include "cgroup.hpp"

#include <filesystem>
#include <string>

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
using ::testing::UnorderedElementsAre;

namespace fs = std::filesystem;
using namespace std::chrono_literals;

constexpr CgroupLimits limits{.memory = Bytes{320U << 20U}, .tasks = 34};
const Uuid vm = Uuid::parse("0a1b2c3d-4e5f-4a6b-8c7d-9e0f1a2b3c4d");

/// A host's file tree that is made up: ordinary folders stand for control groups.
class Cgroups : public ::testing::Test {
protected:
    void mount(const std::string& point, const std::string& type, const std::string& superOptions,
               const std::string& options = "rw,nosuid") {
        makeDirectories(root() / fs::path(point).relative_path(), 0755);
        mountInfo_ += std::to_string(++last_) + " 23 0:30 / " + point + " " + options + " shared:7 - " + type + " " +
                      type + " " + superOptions + "\n";
    }
    void controllers(const std::string& point, const std::string& names) {
        writeFileAtomically(root() / fs::path(point).relative_path() / "cgroup.controllers", names + "\n", 0644);
    }
    [[nodiscard]] CgroupLayout layout() const { return readCgroupLayout(mountInfo_, root()); }
    [[nodiscard]] fs::path root() const { return host_.root(); }

    std::string mountInfo_ = "22 1 8:1 / / rw - ext4 /dev/vda rw\n";

private:
    test::TestHost host_{nullptr};
    int last_ = 30;
};

TEST_F(Cgroups, PureVersion2GetsMemoryWithoutSwapAndProcesses) {
    mount("/sys/fs/cgroup", "cgroup2", "rw,nsdelegate");
    controllers("/sys/fs/cgroup", "cpuset cpu io memory hugetlb pids");
    makeDirectories(root() / "proc", 0755);
    writeFileAtomically(root() / "proc/swaps", "", 0444);
    EXPECT_EQ(layout().version, 2U);
    EXPECT_EQ(layout().reason, "cgroup v2 with memory, pids");
    EXPECT_THAT(cgroupWords(layout(), limits), ElementsAre("memory.max=335544320", "memory.swap.max=0", "pids.max=34"));
}

TEST_F(Cgroups, AKernelWithoutSwapHasNoLimitForIt) {
    mount("/sys/fs/cgroup", "cgroup2", "rw");
    controllers("/sys/fs/cgroup", "memory");
    EXPECT_THAT(cgroupWords(layout(), limits), ElementsAre("memory.max=335544320"));
}

TEST_F(Cgroups, PureVersion1HasAHierarchyForEach) {
    mount("/sys/fs/cgroup", "tmpfs", "rw");
    mount("/sys/fs/cgroup/cpu,cpuacct", "cgroup", "rw,cpu,cpuacct");
    mount("/sys/fs/cgroup/memory", "cgroup", "rw,memory");
    mount("/sys/fs/cgroup/pids", "cgroup", "rw,pids");
    EXPECT_EQ(layout().version, 1U);
    EXPECT_EQ(layout().controllers.at("pids"), root() / "sys/fs/cgroup/pids");
    EXPECT_THAT(cgroupWords(layout(), limits), ElementsAre("memory.limit_in_bytes=335544320", "pids.max=34"));
}

TEST_F(Cgroups, AHybridHostIsOfTheVersionThatHasTheControllers) {
    mount("/sys/fs/cgroup/memory", "cgroup", "rw,memory");
    mount("/sys/fs/cgroup/unified", "cgroup2", "rw");
    controllers("/sys/fs/cgroup/unified", "hugetlb");
    EXPECT_EQ(layout().version, 1U);
    EXPECT_THAT(cgroupWords(layout(), limits), ElementsAre("memory.limit_in_bytes=335544320"));

    mountInfo_.clear();
    mount("/sys/fs/cgroup/systemd", "cgroup", "rw,xattr,name=systemd");
    mount("/sys/fs/cgroup/unified", "cgroup2", "rw");
    controllers("/sys/fs/cgroup/unified", "memory pids");
    EXPECT_EQ(layout().version, 2U);
    EXPECT_EQ(layout().controllers.at("memory"), root() / "sys/fs/cgroup/unified");
}

TEST_F(Cgroups, WhatCannotBeWrittenOrSeenIsLeftOut) {
    mount("/sys/fs/cgroup/memory", "cgroup", "rw,memory", "ro,nosuid");
    mount("/sys/fs/cgroup/pids", "cgroup", "rw,pids");
    fs::remove(root() / "sys/fs/cgroup/pids");  // another mount hides it
    EXPECT_EQ(layout().version, 0U);
    EXPECT_THAT(layout().reason, HasSubstr("no control group that can be written"));
    EXPECT_THAT(cgroupWords(layout(), limits), IsEmpty());
}

TEST_F(Cgroups, AHostWithoutAnySaysSo) {
    EXPECT_EQ(layout().version, 0U);
    EXPECT_EQ(layout().reason, "no control groups are mounted");
    EXPECT_EQ(readCgroupLayout("nonsense\n36 35 - \n\n", root()).reason, "no control groups are mounted");
}

class CgroupsOfVms : public Cgroups {
protected:
    CgroupsOfVms() {
        mount("/memory", "cgroup", "rw,memory");
        mount("/pids", "cgroup", "rw,pids");
        tree_ = std::make_unique<CgroupTree>(layout(), "0a1b2c3d", 20ms);
    }
    [[nodiscard]] fs::path parent(const std::string& hierarchy) const { return root() / hierarchy / "mergen-0a1b2c3d"; }
    std::unique_ptr<CgroupTree> tree_;
};

TEST_F(Cgroups, OfVmsAreMadeListedAndRemovedInTheOneTreeOfVersionTwo) {
    mount("/sys/fs/cgroup", "cgroup2", "rw");
    controllers("/sys/fs/cgroup", "memory pids");
    CgroupTree tree(layout(), "0a1b2c3d", 20ms);
    const fs::path parent = root() / "sys/fs/cgroup/mergen-0a1b2c3d";
    const Uuid other = Uuid::random();
    for (const Uuid& each : {vm, vm, other}) tree.make(each);
    EXPECT_TRUE(fs::is_directory(parent / vm.str()));
    EXPECT_THAT(tree.list(), UnorderedElementsAre(vm, other));
    tree.remove(vm);
    EXPECT_THAT(tree.list(), ElementsAre(other));
    tree.remove(other);
    EXPECT_FALSE(fs::exists(parent));
}

TEST_F(CgroupsOfVms, AreMadeInEachHierarchyListedAndRemovedWithTheParent) {
    const Uuid other = Uuid::random();
    for (const Uuid& each : {vm, vm, other}) tree_->make(each);
    EXPECT_TRUE(fs::is_directory(parent("memory") / vm.str()));
    EXPECT_TRUE(fs::is_directory(parent("pids") / vm.str()));
    EXPECT_EQ(tree_->list().size(), 2U);
    tree_->remove(vm);
    EXPECT_THAT(tree_->list(), ElementsAre(other));
    tree_->remove(other);
    EXPECT_FALSE(fs::exists(parent("memory")));
    EXPECT_FALSE(fs::exists(parent("pids")));
    EXPECT_NO_THROW(tree_->remove(other)) << "nothing is there";
}

TEST_F(CgroupsOfVms, OneThatIsInUseIsSaidWhenTheOthersAreGone) {
    tree_->make(vm);
    makeDirectories(parent("memory") / vm.str() / "somebody", 0755);
    try {
        tree_->remove(vm);
        ADD_FAILURE() << "it was not said";
    } catch (const Error& error) {
        EXPECT_EQ(error.kind(), ErrorKind::FailedPrecondition);
        EXPECT_THAT(error.what(), HasSubstr((parent("memory") / vm.str()).string()));
    }
    EXPECT_FALSE(fs::exists(parent("pids")));
    fs::remove(parent("memory") / vm.str() / "somebody");
    tree_->remove(vm);
    EXPECT_FALSE(fs::exists(parent("memory")));
}

}  // namespace
}  // namespace mergen::vmm
