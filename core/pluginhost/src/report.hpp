#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "manifest.hpp"

/// What mergen-preflight tells its parent: lines of fields that are separated by tabs,
///
///     step  STEP                                     before each step, so that a death has a place
///     plugin  KIND  NAME  VERSION                    once, when the manifest fits
///     key  NAME  TYPE  default|required  VALUE  SENTENCE   for each setting
///     refused  CAUSE                                 and no line after it
///     done                                           all went well; no line after it
///
/// Each line is one write(2), so that what was said before a crash arrives. Texts have no control characters: that is a
/// rule of the manifest (checkWords), and causes are made printable.
namespace mergen::pluginhost::report {

inline constexpr std::string_view checking = "checking the file";  // in the server, before there is a child
inline constexpr std::string_view opening = "opening the library";
inline constexpr std::string_view reading = "reading its manifest";
inline constexpr std::string_view creating = "create()";
inline constexpr std::string_view destroying = "destroy()";
inline constexpr std::string_view closing = "closing the library";

[[nodiscard]] std::string stepLine(std::string_view step);
[[nodiscard]] std::string refusedLine(std::string_view cause);
[[nodiscard]] std::string doneLine();
/// The lines of a manifest that passed checkWords().
[[nodiscard]] std::string manifestLines(const ManifestCopy& manifest);

/// A report as read; whatever of it arrived.
struct Report {
    std::string step;  ///< the last that was begun
    std::optional<ManifestCopy> manifest;
    std::optional<std::string> refusal;
    bool done = false;
};

/// Reads a report defensively: it comes from a process in which foreign code ran. A last line without its end is
/// dropped. Throws Error(FailedPrecondition) for anything that mergen-preflight would not write.
[[nodiscard]] Report parse(std::string_view text);

}  // namespace mergen::pluginhost::report
