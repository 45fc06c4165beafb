#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include <mergen/server/problem.hpp>

namespace mergen::server {

/// All that steers mergend beside the defaults, as it was given; from what is weakest to what wins.
struct ConfigInput {
    struct File {
        std::filesystem::path path;
        std::string text;
    };
    std::vector<File> files;                                      ///< the configuration file, then those of conf.d
    std::map<std::string, std::string, std::less<>> environment;  ///< whole; what is not ours is passed over
    std::vector<std::string> assignments;                         ///< of --set: "section.key=value"
};

/// What the command line says of where the configuration is.
struct ConfigPlaces {
    std::optional<std::filesystem::path> file;       ///< absolute; none: `defaultConfigFile`, if that is there
    std::optional<std::filesystem::path> directory;  ///< absolute; none: conf.d beside the file, if that is there
    std::vector<std::string> assignments;
};

inline constexpr const char* defaultConfigFile = "/etc/mergen/mergen.ini";

/// Reads files and environment: the file, then every *.ini of the folder in byte order of names (hidden ones, and other
/// names, are passed over). Whoever can write one of them steers the server, so each, and the folders above, must be
/// under the rule of mergen/base/trust.hpp. What cannot be read or trusted goes to `problems`.
[[nodiscard]] ConfigInput readConfigInput(const ConfigPlaces& places, Problems& problems);

/// What texts call the whole: the file's path, or "(defaults)".
[[nodiscard]] std::string nameOf(const ConfigInput& input);

}  // namespace mergen::server
