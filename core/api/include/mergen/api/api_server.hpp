#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <mergen/engine/engine.hpp>
#include <mergen/sdk/log.hpp>

/// REST over the engine: routes, request and reply shapes, errors.
namespace mergen::api {

/// One row of `GET /v1/plugins`; the server fills it, so that this room need not know what a plugin is.
struct PluginRow {
    std::string kind, name, version, file, state, detail;
    std::vector<std::pair<std::string, std::string>> settings;
};

class VmService;

struct ApiConfig {
    std::string host = "127.0.0.1";  ///< loopback only
    std::uint16_t port = 8080;       ///< 0: the kernel chooses; see port()
    unsigned threads = 16;
    std::size_t maxQueued = 128;
    std::chrono::milliseconds readTimeout{10000};
    std::size_t maxBody = 1U << 20U;  ///< bytes
    std::string version;
};

/// Serves the API from construction to stop(). Threads: its own; the engine is called from them.
class ApiServer {
public:
    /// Binds and begins to serve. Throws Error(AlreadyExists) if the port is taken.
    ApiServer(ApiConfig config, engine::Engine& engine, std::function<std::vector<PluginRow>()> plugins, Log& log);
    /// The same over anything that plays the engine.
    ApiServer(ApiConfig config, std::unique_ptr<VmService> service, std::function<std::vector<PluginRow>()> plugins,
              Log& log);
    /// Stops at once if stop() was not called, and waits for requests that the engine still works on.
    ~ApiServer();
    ApiServer(const ApiServer&) = delete;
    ApiServer& operator=(const ApiServer&) = delete;

    [[nodiscard]] std::uint16_t port() const noexcept;

    /// Takes no more connections, lets requests in progress end, at most `limit`. May be called twice.
    void stop(std::chrono::milliseconds limit);

private:
    class Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace mergen::api
