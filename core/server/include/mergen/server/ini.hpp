#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include <mergen/server/problem.hpp>

namespace mergen::server {

/// `key = value` as it stands in the file.
struct IniEntry {
    std::string key, value;
    std::size_t line = 0;
};

struct IniSection {
    std::string name;
    std::size_t line = 0;
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
[[nodiscard]] std::vector<IniSection> parseIni(std::string_view text, Problems& problems);

/// The most that a configuration file may have, in bytes.
inline constexpr std::size_t maxIniBytes = 256U << 10U;

}  // namespace mergen::server
