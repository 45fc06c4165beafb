#pragma once

#include <string>
#include <string_view>

#include <mergen/server/problem.hpp>

/// What more than one reader of the configuration has to say of a value or a variable.
namespace mergen::server {

/// What a value that cannot be read may owe to habits from other formats: " (values are written without quotes)".
[[nodiscard]] std::string hintFor(std::string_view value);

/// Whether a value from the environment or the command line could stand in a file; else a problem, or a note if the
/// origin is not strict, has been added.
[[nodiscard]] bool checkOutsideValue(std::string_view value, const Origin& origin, const std::string& where,
                                     Problems& problems, Notes& notes);

/// A value that is passed over.
[[nodiscard]] Note ignoredValue(const Origin& origin, const std::string& where, const std::string& reason);
/// A variable that is known and does nothing.
[[nodiscard]] Note inertVariable(LogLevel level, const Origin& origin, std::string_view why);
/// A variable that looks like one of ours; `near` is what was probably meant, or empty.
[[nodiscard]] Note unknownVariable(const Origin& origin, const std::string& near);

}  // namespace mergen::server
