#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include <mergen/pluginhost/plugin_host.hpp>

namespace mergen::check {

enum class Outcome : std::uint8_t { Kept, Broken, Skipped };

struct Finding {
    std::string promise;
    Outcome outcome = Outcome::Kept;
    std::string text;  ///< what was expected and seen, or why it was skipped
};

/// The findings, printed to standard output as they come.
class Report {
public:
    void add(Finding finding);

    [[nodiscard]] bool allKept() const noexcept { return broken_ == 0; }
    /// "38 kept, 1 broken, 2 skipped"
    [[nodiscard]] std::string summary() const;
    /// Everything as one JSON object, durably to `file`. Throws Error.
    void writeJson(const std::filesystem::path& file, const pluginhost::PluginInfo& plugin) const;

private:
    std::vector<Finding> findings_;
    std::size_t kept_ = 0, broken_ = 0, skipped_ = 0;
};

}  // namespace mergen::check
