#pragma once

#include <chrono>
#include <filesystem>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <mergen/sdk/types.hpp>

/// Where the host keeps control groups, and what a VM's are told.
namespace mergen::vmm {

/// The hierarchies that have a controller for a VM's limits.
struct CgroupLayout {
    unsigned version = 0;  ///< 1 or 2, as the jailer's --cgroup-version takes it; 0: none that can be used
    /// "memory", "pids" → folder of the hierarchy as this process sees it. With version 2 both are the same folder.
    std::map<std::string, std::filesystem::path, std::less<>> controllers;
    bool swap = false;   ///< version 2 only: memory.swap.max is there
    std::string reason;  ///< one clause: what was found, or why there is none
};

/// Reads a layout. `mountInfo`: text of /proc/self/mountinfo (proc(5)); `root`: where the host's "/" is, another folder
/// only in tests. A hybrid host has version 1 controllers beside a version 2 hierarchy: the one that has a controller
/// for memory or processes is taken, version 1 first, as a controller is in one hierarchy only. What is mounted
/// read-only cannot be used.
[[nodiscard]] CgroupLayout readCgroupLayout(std::string_view mountInfo, const std::filesystem::path& root);

/// At most so much for one VMM.
struct CgroupLimits {
    Bytes memory{};
    unsigned tasks = 0;  ///< processes and threads
};

/// The words for the jailer's --cgroup, "file=value"; only for controllers that the layout has.
[[nodiscard]] std::vector<std::string> cgroupWords(const CgroupLayout& layout, const CgroupLimits& limits);

/// The control groups of the VMs of one server: `<hierarchy>/mergen-<instance>/<uuid>`. Threads: any.
class CgroupTree {
public:
    /// `patience`: how long remove() waits for processes that are just ending.
    CgroupTree(CgroupLayout layout, const std::string& instance,
               std::chrono::milliseconds patience = std::chrono::seconds(2));

    [[nodiscard]] const CgroupLayout& layout() const noexcept { return layout_; }
    /// As the jailer's --parent-cgroup takes it.
    [[nodiscard]] const std::string& parent() const noexcept { return parent_; }

    /// Makes the VM's group in each hierarchy. The jailer would, too; but not safely beside remove(), which takes the
    /// parent away with its last child.
    void make(const Uuid& vm);
    /// Removes the VM's groups, and the parent if it is empty then. Throws FailedPrecondition if there are others in
    /// it, when all else is done. Does nothing if there are none.
    void remove(const Uuid& vm);
    /// VMs that have a group.
    [[nodiscard]] std::vector<Uuid> list() const;

private:
    [[nodiscard]] std::vector<std::filesystem::path> parents() const;

    const CgroupLayout layout_;
    const std::string parent_;
    const std::chrono::milliseconds patience_;
    std::mutex mutex_;  ///< held over the making and the removing of a parent's child
};

}  // namespace mergen::vmm
