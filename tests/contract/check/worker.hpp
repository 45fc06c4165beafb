#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "options.hpp"

/// The child in which the library is mapped, and what it tells its parent.
namespace mergen::check {

/// One line of a worker's report: a word, a tab, and a text in which line breaks have become `lineBreak`.
///
///     promise NAME    there is this promise (if the task names none)
///     begin NAME      this one is now looked at
///     ok | failed TEXT | skipped TEXT    what came of it
///     unfit TEXT      this host cannot run the plugin: nothing can be checked
///
/// Each line is one write(2), so that what was said before a crash arrives.
struct Message {
    std::string word, text;

    static constexpr char lineBreak = '\x1e';
    [[nodiscard]] std::string line() const;
    /// Of a line without its end.
    [[nodiscard]] static Message parse(std::string_view line);
};

/// Names under which the steps around the suite stand in the report.
inline constexpr std::string_view loading = "Loads";
inline constexpr std::string_view starting = "StartsAndStops";
inline constexpr std::string_view unloading = "UnloadsAfterUse";

/// What one worker is to do: name all promises (`promises` empty), or look at these.
struct Task {
    std::vector<std::string> promises;
    int report = -1;  ///< open for writing
    int output = -1;  ///< becomes standard output and error; emptied before each promise unless it is -1
};

/// Does the task in this process, which must be a fresh child, and ends it: with status 0, or however the library does.
[[noreturn]] void work(const Options& options, const Task& task);

}  // namespace mergen::check
