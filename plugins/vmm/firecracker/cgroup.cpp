#include "cgroup.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <set>
#include <sys/stat.h>
#include <thread>
#include <unistd.h>

#include <mergen/base/file.hpp>
#include <mergen/base/text.hpp>
#include <mergen/sdk/error.hpp>

namespace mergen::vmm {
namespace {

namespace fs = std::filesystem;

constexpr std::array<std::string_view, 2> wanted{"memory", "pids"};
constexpr std::size_t controllersLimit = 4096;

/// One line of mountinfo: "36 35 98:0 /root /point options [optional...] - type source super-options".
struct MountLine {
    fs::path point;
    std::string type;
    std::vector<std::string> superOptions;
    bool readOnly = false;
};

std::optional<MountLine> readMountLine(std::string_view text) {
    const std::vector<std::string> words = split(text, ' ');
    const auto dash = std::ranges::find(words, "-");
    if (words.size() < 6 || words.end() - dash < 4) return std::nullopt;
    MountLine line{words[4], dash[1], split(dash[3], ','), false};
    const std::vector<std::string> options = split(words[5], ',');
    line.readOnly = std::ranges::find(options, "ro") != options.end();
    return line;
}

bool contains(const std::vector<std::string>& words, std::string_view word) {
    return std::ranges::find(words, word) != words.end();
}

std::string describe(const CgroupLayout& layout) {
    std::string names;
    for (const auto& [name, folder] : layout.controllers) names += (names.empty() ? "" : ", ") + name;
    return "cgroup v" + std::to_string(layout.version) + " with " + names;
}

/// True when it is gone; false if somebody is in it.
bool removeGroup(const fs::path& group) {
    if (::rmdir(group.c_str()) == 0 || errno == ENOENT) return true;
    if (errno == EBUSY || errno == ENOTEMPTY) return false;
    throw Error::fromErrno(errno, "cannot remove the control group " + group.string());
}

}  // namespace

CgroupLayout readCgroupLayout(std::string_view mountInfo, const fs::path& root) {
    CgroupLayout first, second;
    bool any = false;
    const auto onHost = [&](const fs::path& path) { return root / path.relative_path(); };
    for (const std::string& text : split(mountInfo, '\n')) {
        const auto line = readMountLine(text);
        if (!line || (line->type != "cgroup" && line->type != "cgroup2")) continue;
        any = true;
        if (line->readOnly) continue;
        const fs::path folder = onHost(line->point);
        std::error_code ignored;
        if (!fs::is_directory(folder, ignored)) continue;  // something else is mounted over it
        if (line->type == "cgroup") {
            for (const std::string_view name : wanted) {
                if (contains(line->superOptions, name)) first.controllers.try_emplace(std::string(name), folder);
            }
        } else {
            const std::string text2 = readFile(folder / "cgroup.controllers", controllersLimit).value_or("");
            const std::vector<std::string> names = split(std::string_view(text2).substr(0, text2.find('\n')), ' ');
            for (const std::string_view name : wanted) {
                if (contains(names, name)) second.controllers.try_emplace(std::string(name), folder);
            }
        }
    }
    if (!first.controllers.empty()) {
        first.version = 1;
        first.reason = describe(first);
        return first;
    }
    if (!second.controllers.empty()) {
        second.version = 2;
        second.swap = fs::exists(onHost("/proc/swaps"));
        second.reason = describe(second);
        return second;
    }
    CgroupLayout none;
    none.reason = any ? "no control group that can be written has a controller for memory or processes"
                      : "no control groups are mounted";
    return none;
}

std::vector<std::string> cgroupWords(const CgroupLayout& layout, const CgroupLimits& limits) {
    std::vector<std::string> words;
    if (layout.controllers.contains("memory")) {
        const std::string bytes = std::to_string(limits.memory.count);
        words.push_back((layout.version == 2 ? "memory.max=" : "memory.limit_in_bytes=") + bytes);
        // Or a guest that is over its limit pushes the host's own memory out. Version 1 knows only both together.
        if (layout.swap) words.emplace_back("memory.swap.max=0");
    }
    if (layout.controllers.contains("pids")) words.push_back("pids.max=" + std::to_string(limits.tasks));
    return words;
}

CgroupTree::CgroupTree(CgroupLayout layout, const std::string& instance, std::chrono::milliseconds patience)
    : layout_(std::move(layout)), parent_("mergen-" + instance), patience_(patience) {}

std::vector<fs::path> CgroupTree::parents() const {
    std::set<fs::path> parents;
    for (const auto& [name, hierarchy] : layout_.controllers) parents.insert(hierarchy / parent_);
    return {parents.begin(), parents.end()};
}

void CgroupTree::make(const Uuid& vm) {
    const std::lock_guard lock(mutex_);
    for (const fs::path& parent : parents()) {
        for (const fs::path& group : {parent, parent / vm.str()}) {
            if (::mkdir(group.c_str(), 0755) != 0 && errno != EEXIST)
                throw Error::fromErrno(errno, "cannot make the control group " + group.string());
        }
    }
}

void CgroupTree::remove(const Uuid& vm) {
    // A process that has been reaped may be in its group for an instant more.
    constexpr std::chrono::milliseconds pause{5};
    const auto deadline = std::chrono::steady_clock::now() + patience_;
    std::string busy;
    for (const fs::path& parent : parents()) {
        const fs::path group = parent / vm.str();
        bool gone = removeGroup(group);
        while (!gone && std::chrono::steady_clock::now() < deadline) {
            std::this_thread::sleep_for(pause);
            gone = removeGroup(group);
        }
        if (!gone) busy += (busy.empty() ? "" : ", ") + group.string();
        const std::lock_guard lock(mutex_);
        static_cast<void>(removeGroup(parent));
    }
    if (!busy.empty())
        throw Error(ErrorKind::FailedPrecondition, "cannot remove the control group " + busy + ": it is in use");
}

std::vector<Uuid> CgroupTree::list() const {
    std::set<Uuid> vms;
    for (const fs::path& parent : parents()) {
        for (const std::string& name : listDirectory(parent)) {
            try {
                vms.insert(Uuid::parse(name));
            } catch (const Error&) {
                continue;  // the kernel's own files
            }
        }
    }
    return {vms.begin(), vms.end()};
}

}  // namespace mergen::vmm
