#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <mergen/pluginhost/plugin_host.hpp>
#include <mergen/sdk/manifest.h>

namespace mergen::pluginhost {

/// The kinds that this server has an interface for.
[[nodiscard]] std::span<const std::string_view> knownKinds() noexcept;

/// What create() of a library of `kind` handed out, as the base that all kinds share; null for an unknown kind. The
/// library promises that `object` is a pointer to exactly the kind's interface: nothing can check that through a void*.
[[nodiscard]] Plugin* asPlugin(std::string_view kind, void* object) noexcept;

/// Whether `plugin` really is of the kind's interface, by its dynamic type, and the same object.
[[nodiscard]] bool isOfKind(std::string_view kind, Plugin& plugin, const void* object) noexcept;

/// What a manifest says, copied out of the library.
struct ManifestCopy {
    std::string kind, name, version;
    std::vector<PluginKey> keys;
};

/// Bounds of a manifest: far above what is sensible, low enough that a report of it stays small.
inline constexpr std::size_t maxKeys = 256;
inline constexpr std::size_t maxTextBytes = 1024;

/// Reads a manifest in the order in which it may be trusted: version and size first, fingerprint next, the rest last.
/// Throws Error(FailedPrecondition) with the cause alone, both values in its text where two differ. A manifest whose
/// pointers lead nowhere kills the reader: only call it in the preflight's process, or on a file that passed there.
[[nodiscard]] ManifestCopy readManifest(const mergen_manifest* manifest);

/// The rules for the words of a manifest. Throws Error(FailedPrecondition) with the cause.
void checkWords(const ManifestCopy& manifest);

}  // namespace mergen::pluginhost
