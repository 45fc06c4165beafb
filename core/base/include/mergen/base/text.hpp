#pragma once

#include <chrono>
#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace mergen {

/// The candidate that a mistyped `word` most likely means: at most a third of its letters (at least one) apart by
/// Levenshtein distance; empty if none is near.
[[nodiscard]] std::string nearestWord(std::string_view word, std::span<const std::string> candidates);

/// Pieces between `separator`, empty ones included.
[[nodiscard]] std::vector<std::string> split(std::string_view text, char separator);

/// Without blanks, tabs and carriage returns at both ends.
[[nodiscard]] std::string_view trim(std::string_view text) noexcept;

/// Whether `text` is well-formed UTF-8 (RFC 3629) without NUL.
[[nodiscard]] bool isCleanUtf8(std::string_view text) noexcept;

/// `text` for a log line or an error text: control characters as \xNN, at most `limit` bytes.
[[nodiscard]] std::string printable(std::string_view text, std::size_t limit = 200);

/// RFC 3339 in UTC with milliseconds: "2026-11-22T04:52:00.123Z".
[[nodiscard]] std::string rfc3339(std::chrono::system_clock::time_point time);
/// Reads what rfc3339() writes (fraction optional). Throws Error(InvalidArgument).
[[nodiscard]] std::chrono::system_clock::time_point parseRfc3339(std::string_view text);

}  // namespace mergen
