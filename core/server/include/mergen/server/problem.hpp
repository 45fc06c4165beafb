#pragma once

#include <string>
#include <string_view>
#include <vector>

#include <mergen/sdk/log.hpp>
#include <mergen/server/origin.hpp>

namespace mergen::server {

/// One thing that is wrong with the configuration. All are collected before anything is refused, so that an operator
/// mends it once.
struct Problem {
    Origin origin;           ///< of what is wrong; Default: of no single value
    std::string where;       ///< "server.listen", "[storage.fils]", or empty
    std::string reason;      ///< the rule that is broken, with the value
    std::string suggestion;  ///< what was probably meant; may be empty
};
using Problems = std::vector<Problem>;

/// "mergen.ini:12: server.listn: unknown key; did you mean 'listen'?", without a newline and without control
/// characters.
[[nodiscard]] std::string describe(const Problem& problem);

/// Puts them into the order of reading; those about no single value, or no single line of a file, come last.
void sortByOrigin(Problems& problems);

/// What an operator should know of a configuration that is in force all the same.
struct Note {
    LogLevel level = LogLevel::Warning;
    std::string_view event;  ///< of the log; a literal
    Origin origin;
    std::string text;  ///< what is so, and how we go on
};
using Notes = std::vector<Note>;

/// "environment variable MGR_PORT_END: 'x' is not a whole number; ignored", likewise one clean line.
[[nodiscard]] std::string describe(const Note& note);

/// One line each.
void writeNotes(const Notes& notes, Log& log);

}  // namespace mergen::server
