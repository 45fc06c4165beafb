#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include <mergen/server/origin.hpp>
#include <mergen/server/problem.hpp>

namespace mergen::server {

/// `key = value` as it stands in the file.
struct IniEntry {
    std::string key, value;
    Origin origin;
};

struct IniSection {
    std::string name;
    Origin origin;
    std::vector<IniEntry> entries;
};

/// Reads an INI text and keeps the line numbers, which Poco's IniFileConfiguration does not; that one also takes `#
/// note` for a key, lets the second of two equal keys win, ignores case and expands ${...}.
///
/// Grammar, line by line: blank; a comment, whose first character that is no blank is '#' or ';'; `[section]`; or
/// `key = value`. Blanks around names and values are dropped, nothing else: no quotes, no escapes, no continuation, no
/// comment behind a value. Names are lower case, digits, '-', '_' and, in sections, '.'.
///
/// Appends to `problems`: text that is not UTF-8 or holds control characters, a line that is none of the above, a key
/// outside any section, a section or key given twice, more than 256 KiB. What is in order is returned all the same.
/// `file` is the origin of the whole text; sections and entries get it with their line.
[[nodiscard]] std::vector<IniSection> parseIni(std::string_view text, const Origin& file, Problems& problems);

/// Why a value from elsewhere could not stand in such a file, or empty if it could: what is in force can be printed.
[[nodiscard]] std::string whyNoIniValue(std::string_view value);

/// The most that a configuration file may have, in bytes.
inline constexpr std::size_t maxIniBytes = 256U << 10U;

}  // namespace mergen::server
