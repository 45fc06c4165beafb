#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace mergen::server {

/// Where the API listens for TCP.
struct ListenAddress {
    std::string host;        ///< an IPv4 or IPv6 address without brackets; empty: no TCP
    std::uint16_t port = 0;  ///< 0: the kernel chooses
    auto operator<=>(const ListenAddress&) const = default;
};

/// Reads "ADDRESS:PORT" with an IPv4 address, an IPv6 address in brackets, or one of three words: nothing and
/// "localhost" mean 127.0.0.1, so that ":8080" is reached from this host only, and "*" means 0.0.0.0. An empty text is
/// an empty address. Names are not looked up. Throws Error(InvalidArgument) with the reason for anything else.
/// Who may listen where is decided elsewhere: api::requireAccessControl().
[[nodiscard]] ListenAddress parseListen(std::string_view text);

/// As parseListen() reads it.
[[nodiscard]] std::string toString(const ListenAddress& address);

}  // namespace mergen::server
