#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include <mergen/pluginhost/plugin_host.hpp>
#include <mergen/pluginhost/plugin_library.hpp>

namespace mergen::pluginhost {

/// Ends an object by its manifest's destroy(); an exception out of that, which the contract forbids, is logged.
struct ObjectEnd {
    void (*destroy)(void*) = nullptr;
    const std::string* what = nullptr;  ///< names the plugin; borrowed
    Log* log = nullptr;                 ///< borrowed
    void operator()(void* object) const noexcept;
};

/// A library in this process with the one object that was made of it, from open to close. Threads: one.
class LoadedPlugin {
public:
    /// Opens the library, which passed the preflight, and makes its object. `what` names it in every error: "plugin
    /// storage/files of /usr/lib/...". `config` and `log` are borrowed for the object's life. Throws Error.
    LoadedPlugin(const std::filesystem::path& file, std::string what, const PluginHostConfig& config, Log& log);
    LoadedPlugin(const LoadedPlugin&) = delete;
    LoadedPlugin& operator=(const LoadedPlugin&) = delete;
    ~LoadedPlugin();  ///< stops if it is started, ends the object, closes the library

    [[nodiscard]] const std::string& kind() const noexcept { return library_.kind(); }
    [[nodiscard]] const std::string& name() const noexcept { return library_.name(); }
    [[nodiscard]] bool started() const noexcept { return started_; }
    /// Null until configure().
    [[nodiscard]] const Settings* settings() const noexcept;

    /// What create() gave: a pointer to the interface of kind().
    [[nodiscard]] void* object() const noexcept { return object_.get(); }

    /// Once. Throws Error that names plugin, file and step.
    void configure(std::map<std::string, std::string, std::less<>> given);
    void start();
    /// Does nothing unless it is started.
    void stop() noexcept;

private:
    class Face;

    // The order is the order of dying, backwards: object, what it was given, and at last the code of it all.
    PluginLibrary library_;
    std::string what_;
    const PluginHostConfig& config_;
    Log& log_;
    std::unique_ptr<Face> face_;
    std::unique_ptr<void, ObjectEnd> object_;
    Plugin* plugin_ = nullptr;  // the same object
    bool started_ = false;
};

}  // namespace mergen::pluginhost
