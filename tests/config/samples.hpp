#pragma once

#include <map>
#include <string>
#include <vector>

#include <mergen/server/config.hpp>
#include <mergen/server/exit_code.hpp>

#include "mergend_process.hpp"

namespace mergen::server {

/// A value of `key` that is neither its default nor that under the profile mergen: the first or the second of two. The
/// first ones of all keys fit together, and so do the second ones.
[[nodiscard]] std::string sample(const ConfigKey& key, bool second);

/// A value that `key` refuses.
[[nodiscard]] std::string badSample(const ConfigKey& key);

/// The same of a plugin's key, by its type; empty if it takes any text.
[[nodiscard]] std::string sample(mergen_key_type type, bool second);
[[nodiscard]] std::string badSample(mergen_key_type type);

/// One value of `--print-config` with the comment before it.
struct Printed {
    std::string value, origin;
};
/// What `text` says, by "section.key".
[[nodiscard]] std::map<std::string, Printed> readPrinted(const std::string& text);

/// Runs `mergend --print-config`, which must succeed.
[[nodiscard]] std::map<std::string, Printed> printed(std::vector<std::string> arguments,
                                                     const std::vector<std::string>& variables = {});

/// The plugins of this build, as mergend finds them.
[[nodiscard]] const std::vector<pluginhost::PluginInfo>& foundPlugins();

/// A folder with a configuration file and its conf.d.
class Configuration {
public:
    explicit Configuration(const std::string& text = {});
    /// Adds conf.d/`name`.
    fs::path add(const std::string& name, const std::string& text) const;
    [[nodiscard]] const fs::path& file() const noexcept { return file_; }
    [[nodiscard]] const fs::path& folder() const noexcept { return dir_.path(); }
    [[nodiscard]] std::vector<std::string> arguments(std::vector<std::string> more = {}) const;

private:
    TempDir dir_;
    fs::path file_;
};

}  // namespace mergen::server
