#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <mergen/sdk/network.hpp>
#include <mergen/sdk/plugin.hpp>
#include <mergen/sdk/storage.hpp>
#include <mergen/sdk/supervisor.hpp>
#include <mergen/sdk/vmm.hpp>

/// Finds, checks and loads plugin libraries: the one room that knows that a backend is a file.
namespace mergen::pluginhost {

enum class PluginState : std::uint8_t {
    Available,      ///< checked in a child; not selected, or not started (yet, or any more)
    Ready,          ///< loaded, configured and started
    NotApplicable,  ///< this host cannot run it (start() said NotSupported)
    Failed,         ///< refused; `detail` names the step and the cause
};
[[nodiscard]] std::string_view toString(PluginState state) noexcept;

/// A setting as the manifest declares it, copied out of the library.
struct PluginKey {
    std::string key;
    mergen_key_type type = MERGEN_KEY_STRING;
    bool required = false;  ///< there is no default
    std::string defaultValue;
    std::string sentence;
};

struct PluginInfo {
    std::filesystem::path file;
    std::string kind, name, version;  ///< empty if the manifest could not be read
    PluginState state = PluginState::Available;
    std::string detail;  ///< one sentence that names file, step and cause; empty when all is well
    std::vector<PluginKey> keys;
    std::map<std::string, std::string, std::less<>> settings;  ///< in force; empty unless configured
};

struct PluginHostConfig {
    std::filesystem::path directory;                    ///< absolute; every *.so in it is a plugin
    std::filesystem::path preflightProgram;             ///< mergen-preflight; absolute
    std::chrono::milliseconds preflightTimeout{10000};  ///< for one library
    HostPaths paths;                                    ///< what plugins see as Host::paths()
    std::string instance;                               ///< as Host::instance()
    NetworkPlan network{};                              ///< and as Host::networkPlan()
};

/// Every call to a plugin's lifecycle goes through here: an exception of any type becomes an Error that names plugin,
/// file and step, and has nothing of the library in it. What stays out of reach: a throw out of stop(), which is
/// noexcept, or on a thread of the plugin's own, ends the process, as C++ has it. Threads: one; plugins() and the
/// objects handed out may be used from any while no other method runs.
class PluginHost {
public:
    /// `log` is what plugins log to, with a field `plugin` ("storage/files") added; borrowed. Does nothing yet.
    PluginHost(PluginHostConfig config, Log& log);
    ~PluginHost();  ///< stops and unloads all, newest first
    PluginHost(const PluginHost&) = delete;
    PluginHost& operator=(const PluginHost&) = delete;

    /// Looks at every *.so of the folder: owner and mode (only root and our own user may be able to change it), then in
    /// a child of its own (mergen-preflight) that it loads, has a manifest that fits, and makes and ends an object.
    /// Maps nothing into this process, so that a broken library is a refusal and never a dead server. Two libraries of
    /// one kind and name: the second, by file name, is refused. Gives one entry per file, sorted by file name,
    /// Available or Failed. Cheap to call again: files that have not changed are not tried out twice. Throws Error if
    /// the folder itself cannot be used (missing, relative, or others could write it or a folder above it), or if
    /// mergen-preflight cannot be run.
    const std::vector<PluginInfo>& scan();

    /// Scans again, loads kind/name, creates its object and calls configure() with these settings, which are checked
    /// against its keys first. What is loaded is what was tried out: a file that changes in between is refused.
    /// Throws Error: NotFound (no such plugin; the text names those there are), AlreadyExists (called before),
    /// InvalidArgument (a setting), or why the library was refused.
    void configure(const std::string& kind, const std::string& name,
                   std::map<std::string, std::string, std::less<>> settings);

    /// Calls start() of every configured plugin that is not started, in order of configuration. Throws the first
    /// failure, which makes that plugin NotApplicable (NotSupported) or Failed; those started before stay so until
    /// stop().
    void start();

    /// Stops all, newest first. May be called twice.
    void stop() noexcept;

    /// The object of a configured plugin; gone with this host. Throws Error(NotFound).
    [[nodiscard]] StorageBackend& storage(const std::string& name);
    [[nodiscard]] SupervisorBackend& supervisor(const std::string& name);
    [[nodiscard]] NetworkBackend& network(const std::string& name);
    [[nodiscard]] VmmBackend& vmm(const std::string& name);

    /// scan()'s entries with the state and settings of those that were configured.
    [[nodiscard]] std::vector<PluginInfo> plugins() const;

private:
    class Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace mergen::pluginhost
