#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include <mergen/pluginhost/plugin_host.hpp>

namespace mergen::test {

/// A folder of plugins of a test's own, removed at the end, and hosts that look into it.
class PluginFolder {
public:
    PluginFolder();
    PluginFolder(const PluginFolder&) = delete;
    PluginFolder& operator=(const PluginFolder&) = delete;
    ~PluginFolder();

    /// Above path(), for what is to stand outside it.
    [[nodiscard]] const std::filesystem::path& root() const noexcept { return root_; }
    [[nodiscard]] const std::filesystem::path& path() const noexcept { return folder_; }

    /// Copies the trial library `name` into the folder, as `as` or its own name, mode 0644.
    std::filesystem::path add(const std::string& name, const std::string& as = {}) const;
    /// A file of this content in the folder.
    std::filesystem::path write(const std::string& name, std::string_view content) const;

    [[nodiscard]] pluginhost::PluginHostConfig config() const;

private:
    std::filesystem::path root_;
    std::filesystem::path folder_;
};

/// The content of the trial library `name`.
[[nodiscard]] std::string trialLibrary(const std::string& name);

/// The entry of `file`; a test failure and an empty one if there is none.
[[nodiscard]] pluginhost::PluginInfo entryOf(const std::vector<pluginhost::PluginInfo>& entries,
                                             const std::filesystem::path& file);

/// Whether `file` is mapped into this process (/proc/self/maps, proc(5)).
[[nodiscard]] bool isMapped(const std::filesystem::path& file);

}  // namespace mergen::test
