#pragma once

#include <functional>
#include <memory>
#include <string>
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
/// Story: prepare() → start() → (serves) → drain(). The destructor undoes as much of that as was done, so that a failed
/// start leaves nothing but folders and the instance mark.
class Server {
public:
    /// `log` is borrowed.
    Server(ServerConfig config, Log& log);
    ~Server();
    Server(const Server&) = delete;
    Server& operator=(const Server&) = delete;

    /// Makes the base folders, takes the data root and looks at the plugins, the token file and the socket's group.
    /// Gives what is wrong with the plugins' sections of the configuration file and with those two; throws Error for
    /// all else.
    [[nodiscard]] Problems prepare();

    /// Loads and starts the selected plugins, recovers, and serves. Between these steps it asks `stopRequested` and
    /// gives false if that is so. Throws Error if a plugin that is wanted, the recovery or the listening socket fails.
    [[nodiscard]] bool start(const std::function<bool()>& stopRequested);

    /// Reads the token file again, if there is one. If it cannot be used, says why in the log and keeps the old tokens.
    void reloadTokens();

    /// Takes no more requests, waits for what is in progress, at most drain_timeout, and takes the house apart. False
    /// if something did not end in time: it still uses this object, so the caller may only end the process.
    [[nodiscard]] bool drain();

private:
    void loadPlugins();
    void makeEngine();
    void serve();
    void logAccess() const;
    void removePortFile() noexcept;

    const ServerConfig config_;
    Log& log_;
    std::string instance_;
    Access access_;
    bool portFileWritten_ = false;
    // In the order in which they are made: each uses those above it.
    std::unique_ptr<DataRootLock> lock_;
    std::unique_ptr<pluginhost::PluginHost> plugins_;
    std::unique_ptr<engine::Engine> engine_;
    std::unique_ptr<api::ApiServer> api_;
};

}  // namespace mergen::server
