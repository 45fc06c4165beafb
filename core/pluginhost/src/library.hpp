#pragma once

#include <filesystem>

#include <boost/dll/shared_library.hpp>

#include <mergen/sdk/manifest.h>

namespace mergen::pluginhost {

/// Maps a library and binds all its symbols now, for itself only (RTLD_NOW, RTLD_LOCAL): bound lazily, a missing symbol
/// would end the process at the first call. Runs the library's initialisers. Throws Error(FailedPrecondition) with the
/// loader's words alone.
[[nodiscard]] boost::dll::shared_library openLibrary(const std::filesystem::path& file);

/// The manifest that `library` exports, null if it exports a null pointer. Throws Error(FailedPrecondition) if it
/// exports none.
[[nodiscard]] const mergen_manifest* findManifest(const boost::dll::shared_library& library);

}  // namespace mergen::pluginhost
