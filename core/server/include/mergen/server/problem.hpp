#pragma once

#include <cstddef>
#include <filesystem>
#include <string>
#include <vector>

namespace mergen::server {

/// One thing that is wrong with a configuration file. All are collected before anything is refused, so that an operator
/// mends the file once.
struct Problem {
    std::size_t line = 0;    ///< from 1; 0: about no single line
    std::string where;       ///< "server.listen", "[storage.fils]", or empty
    std::string reason;      ///< the rule that is broken, with the value
    std::string suggestion;  ///< what was probably meant; may be empty
};
using Problems = std::vector<Problem>;

/// "mergen.ini:12: server.listn: unknown key; did you mean 'listen'?", without a newline and without control
/// characters.
[[nodiscard]] std::string describe(const Problem& problem, const std::filesystem::path& file);

/// Puts them into the order of lines; those about no line come last.
void sortByLine(Problems& problems);

}  // namespace mergen::server
