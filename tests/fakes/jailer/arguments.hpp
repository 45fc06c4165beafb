#pragma once

#include <cstdint>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace mergen::fake {

/// What the real jailer refuses, with words like its own.
class Refusal : public std::runtime_error {
public:
    using std::runtime_error::runtime_error;
};

/// The jailer's command line, checked as the real one checks it, and more strictly where that would let pass what
/// Mergen must not say.
struct JailerArguments {
    bool version = false;
    std::string id;
    std::filesystem::path execFile;  ///< canonical, a regular file
    std::filesystem::path base;      ///< canonical, a folder
    std::uint32_t uid = 0, gid = 0;
    unsigned cgroupVersion = 1;
    std::string parentCgroup;
    std::vector<std::pair<std::string, std::string>> cgroups;  ///< file, value
    std::uint64_t openFiles = 2048, fileSize = 0;              ///< 0: no limit
    std::vector<std::string> extra;                            ///< what follows "--"
};

/// Throws Refusal.
[[nodiscard]] JailerArguments parseJailerArguments(const std::vector<std::string>& words);

}  // namespace mergen::fake
