#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <sys/types.h>
#include <utility>
#include <vector>

#include <mergen/api/tokens.hpp>
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

/// Uids from `first` on.
struct UidRange {
    std::uint32_t first = 0, count = 0;
    [[nodiscard]] bool contains(std::uint32_t uid) const noexcept { return uid >= first && uid - first < count; }
};

struct ApiConfig {
    std::string host = "127.0.0.1";           ///< address without brackets; empty: no TCP
    std::uint16_t port = 8080;                ///< 0: the kernel chooses; see port()
    std::filesystem::path socket;             ///< unix socket; empty: none
    std::optional<gid_t> socketGroup;         ///< who may connect to it beside its owner; none: the process's group
    std::shared_ptr<const TokenFile> tokens;  ///< one of them is needed over TCP; null: none is
    UidRange vmUsers;                         ///< of VMMs, which may not use the unix socket
    bool insecure = false;                    ///< serves other hosts without tokens
    unsigned threads = 16;
    std::size_t maxQueued = 128;
    std::chrono::milliseconds readTimeout{10000};
    std::size_t maxBody = 1U << 20U;  ///< bytes
    std::string version;
};

/// Serves the API from construction to stop(). Threads: its own; the engine is called from them.
class ApiServer {
public:
    /// Binds and begins to serve. Throws Error(AlreadyExists) if port or socket are taken, InvalidArgument if `config`
    /// would let in whom requireAccessControl() keeps out, FailedPrecondition or PermissionDenied if the socket cannot
    /// stand where it should.
    ApiServer(ApiConfig config, engine::Engine& engine, std::function<std::vector<PluginRow>()> plugins, Log& log);
    /// The same over anything that plays the engine.
    ApiServer(ApiConfig config, std::unique_ptr<VmService> service, std::function<std::vector<PluginRow>()> plugins,
              Log& log);
    /// Stops at once if stop() was not called, and waits for requests that the engine still works on.
    ~ApiServer();
    ApiServer(const ApiServer&) = delete;
    ApiServer& operator=(const ApiServer&) = delete;

    /// 0 without TCP.
    [[nodiscard]] std::uint16_t port() const noexcept;

    /// Takes no more connections, removes the unix socket, lets requests in progress end, at most `limit`. May be
    /// called twice.
    void stop(std::chrono::milliseconds limit);

private:
    class Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace mergen::api
