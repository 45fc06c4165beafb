#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace mergen::server {

/// Where the API listens. Loopback only: there is no authentication yet.
struct ListenAddress {
    std::string host;        ///< "127.0.0.1" or "::1"
    std::uint16_t port = 0;  ///< 0: the kernel chooses
    auto operator<=>(const ListenAddress&) const = default;
};

/// Reads "127.0.0.1:PORT", "[::1]:PORT", "localhost:PORT" or ":PORT"; the last two mean 127.0.0.1. Throws
/// Error(InvalidArgument) with the reason for anything else, all other addresses among it.
[[nodiscard]] ListenAddress parseListen(std::string_view text);

/// As parseListen() reads it.
[[nodiscard]] std::string toString(const ListenAddress& address);

}  // namespace mergen::server
