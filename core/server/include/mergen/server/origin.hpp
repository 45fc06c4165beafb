#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace mergen::server {

/// Where a value of the configuration comes from.
struct Origin {
    /// In the order in which one replaces another.
    enum class Kind : std::uint8_t { Default, Profile, File, Environment, CommandLine };

    Kind kind = Kind::Default;
    std::string name{};      ///< of the profile, the path of the file, or the variable's name
    std::size_t line = 0;    ///< of the file, from 1; 0: about no single line
    std::size_t source = 0;  ///< its place in the order of reading: the value from the greater one holds

    /// Whether a bad value is refused. The variables of the older programs (all but MERGEN_…) only bring a warning.
    [[nodiscard]] bool strict() const noexcept { return kind != Kind::Environment || name.starts_with("MERGEN_"); }
};

/// "default", "profile mergen", "/etc/mergen/mergen.ini:12", "environment variable MGR_HTTP_ADDR" or "--set".
[[nodiscard]] std::string describe(const Origin& origin);

}  // namespace mergen::server
