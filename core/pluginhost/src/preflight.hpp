#pragma once

#include <chrono>
#include <filesystem>
#include <optional>
#include <string>

#include "manifest.hpp"

namespace mergen::pluginhost {

/// What came of trying a library out.
struct Verdict {
    std::optional<ManifestCopy> manifest;  ///< if it got as far as that, also with a refusal
    std::string refusal;  ///< step and cause, "create(): it gives no object (NULL)"; empty: it may be loaded
};

/// Tries `file` out in a child of its own (`program`, mergen-preflight): opens it, reads its manifest, makes an object
/// and ends it again, closes it. Whatever the library does to that process, by signal, exit() or never returning, is a
/// refusal here. Throws Error if `program` cannot be run.
[[nodiscard]] Verdict preflight(const std::filesystem::path& program, const std::filesystem::path& file,
                                std::chrono::milliseconds timeout);

}  // namespace mergen::pluginhost
