#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <string>

#include <boost/dll/shared_library.hpp>

#include <mergen/pluginhost/plugin_host.hpp>

/// One plugin library by its path, loaded as a server loads it: what PluginHost is made of, and what a program needs
/// that looks at one library alone (mergen-plugin-check).
namespace mergen::pluginhost {

/// Whether owner and mode of the file and of the folders above it are looked at.
enum class Trust : std::uint8_t { Checked, Waived };

/// Looks at one file as PluginHost::scan() does at each of its folder: who can write it, unless that is waived, and
/// then in a child (`preflightProgram`, which gets `timeout`) that it loads, has a manifest that fits and makes an
/// object. Maps nothing into this process. Gives what is known of it, Available or Failed with `detail`. Throws Error
/// if the file is not to be trusted (PermissionDenied) or not there, or if the preflight cannot be run.
[[nodiscard]] PluginInfo examineLibrary(const std::filesystem::path& file,
                                        const std::filesystem::path& preflightProgram,
                                        std::chrono::milliseconds timeout, Trust trust);

/// A library in this process, from open to close. Every object of it must be gone before it. Threads: one; create() and
/// destroy() from any.
class PluginLibrary {
public:
    /// Maps the library, which passed examineLibrary(), and reads its manifest. `what` names it in every error. Throws
    /// Error.
    PluginLibrary(const std::filesystem::path& file, std::string what);

    [[nodiscard]] const std::string& kind() const noexcept { return kind_; }
    [[nodiscard]] const std::string& name() const noexcept { return name_; }
    [[nodiscard]] const mergen_key* keys() const noexcept { return manifest_->keys; }

    /// A new object: a pointer to the interface of kind(), to be ended by destroy(). Throws Error.
    [[nodiscard]] void* create() const;
    using Destroy = void (*)(void* object);
    [[nodiscard]] Destroy destroy() const noexcept { return manifest_->destroy; }

private:
    boost::dll::shared_library library_;
    std::string what_;
    const mergen_manifest* manifest_ = nullptr;
    std::string kind_, name_;
};

}  // namespace mergen::pluginhost
