#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <mergen/api/api_server.hpp>
#include <mergen/engine/engine.hpp>
#include <mergen/pluginhost/plugin_host.hpp>
#include <mergen/sdk/log.hpp>
#include <mergen/server/access.hpp>
#include <mergen/server/config.hpp>
#include <mergen/server/instance.hpp>

namespace mergen::server {

/// "0.1.0"
[[nodiscard]] std::string version();

/// What the plugin host is told; the same for serving and for --check-config.
[[nodiscard]] pluginhost::PluginHostConfig pluginHostConfig(const ServerConfig& config, std::string instance);
/// What the engine is told.
[[nodiscard]] engine::EngineConfig engineConfig(const ServerConfig& config, std::string instance);

/// The house, put together: base folders, the lock on the data root, plugins, engine, API; taken apart in reverse. VMs
/// outlive it in every case. Threads: one.
///
/// Story: prepare() → start() → (serves, reload()s) → drain(). The destructor undoes as much of that as was done, so
/// that a failed start leaves nothing but folders and the instance mark.
class Server {
public:
    /// `log` is borrowed.
    Server(ServerConfig config, Log& log);
    ~Server();
    Server(const Server&) = delete;
    Server& operator=(const Server&) = delete;

    /// Makes the base folders, takes the data root and looks at the plugins, the token file and the socket's group.
    /// Gives what is wrong with the plugins' settings and with those two; throws Error for all else.
    [[nodiscard]] Problems prepare();

    /// Loads and starts the selected plugins, recovers, and serves. Between these steps it asks `stopRequested` and
    /// gives false if that is so. Throws Error if a plugin that is wanted, the recovery or the listening socket fails.
    [[nodiscard]] bool start(const std::function<bool()>& stopRequested);

    /// Reads the token file again, if there is one. If it cannot be used, says why in the log and keeps the old tokens.
    void reloadTokens();

    /// Reads a whole new configuration (as parseConfig() gives it).
    using Reading = std::function<ServerConfig(Problems&, Notes&)>;
    /// Puts in force what can change while the server runs (KeyTraits::reloadable), calls what onReload() was given,
    /// and logs a line for each key that changed: taken over, or waiting for the next start. If anything is wrong with
    /// the new configuration, that is logged whole and nothing changes. After start() only.
    void reload(const Reading& read);

    /// `action` is called with the configuration in force by every reload() whose configuration is in order: for what
    /// keeps a part of it, or a file of its own that is read again. It must not throw.
    void onReload(std::function<void(const ServerConfig&)> action);

    /// In force.
    [[nodiscard]] const ServerConfig& config() const noexcept { return config_; }

    /// Takes no more requests, waits for what is in progress, at most drain_timeout, and takes the house apart. False
    /// if something did not end in time: it still uses this object, so the caller may only end the process.
    [[nodiscard]] bool drain();

private:
    void loadPlugins();
    void makeEngine();
    void serve();
    void logAccess() const;
    void removePortFile() noexcept;
    void takeOver(const ServerConfig& next);
    void sayWaiting(const ServerConfig& next, std::span<const pluginhost::PluginInfo> plugins);

    ServerConfig config_;
    Log& log_;
    std::vector<std::function<void(const ServerConfig&)>> onReload_;
    std::string instance_;
    Access access_;
    bool portFileWritten_ = false;
    std::vector<std::pair<std::string, std::string>> loaded_;  ///< kind and name of the plugins in use
    // In the order in which they are made: each uses those above it.
    std::unique_ptr<RootLock> dataLock_, runLock_;
    std::unique_ptr<pluginhost::PluginHost> plugins_;
    std::unique_ptr<engine::Engine> engine_;
    std::unique_ptr<api::ApiServer> api_;
};

}  // namespace mergen::server
