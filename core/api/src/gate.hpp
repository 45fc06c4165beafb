#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <variant>

#include <mergen/api/api_server.hpp>
#include <mergen/api/tokens.hpp>
#include <mergen/sdk/log.hpp>
#include <mergen/sdk/types.hpp>

#include "http/head.hpp"
#include "http/peer.hpp"

namespace mergen::api {

/// Decides by a request's head who sent it and whether it goes further:
///
///   over the unix socket       yes, in the name of the process's uid; the file's mode has let it in. Not the user of
///                              a VM, whatever groups its VMM is in: what has broken out of a VMM must not get the API
///   over TCP, with tokens      with one of them, in its name; `GET /healthz` without a body needs none
///   over TCP, without tokens   yes, if its Host is an address or localhost
///
/// A web page can make a browser send its requests here, even under a name that it controls (DNS rebinding), but not
/// with a token, not over the unix socket, and not under an address as Host. What a browser marks as a page's (Origin;
/// Sec-Fetch-Site, other than `none`: typed by hand) is refused everywhere.
class Gate {
public:
    /// `tokens`: none where TCP needs no token. `vmUsers`: uids that VMs have. `log` is borrowed.
    Gate(std::shared_ptr<const TokenFile> tokens, UidRange vmUsers, Log& log)
        : tokens_(std::move(tokens)), vmUsers_(vmUsers), log_(log) {}

    /// Threads: one. 401 is the same answer whatever is wrong with a token; 403 says what is.
    [[nodiscard]] std::variant<http::Caller, http::Refusal> admit(const http::Head& head, const http::Peer& peer);

    /// How many requests lacked a valid token so far. Threads: any.
    [[nodiscard]] std::uint64_t unauthorized() const noexcept { return unauthorized_.load(std::memory_order_relaxed); }
    [[nodiscard]] bool needsTokens() const noexcept { return tokens_ != nullptr; }

private:
    void noteUnauthorized(const http::Head& head, const http::Peer& peer);

    const std::shared_ptr<const TokenFile> tokens_;
    const UidRange vmUsers_;
    Log& log_;
    std::atomic<std::uint64_t> unauthorized_{0};

    // Of admit()'s thread: the log has at most a few of them in any ten seconds, however many come.
    SteadyTime windowBegin_{};
    unsigned logged_ = 0;         // in this window
    std::uint64_t unlogged_ = 0;  // since the last line
};

}  // namespace mergen::api
