#include <arpa/inet.h>
#include <array>
#include <charconv>
#include <netinet/in.h>
#include <optional>
#include <string>

#include <mergen/base/text.hpp>
#include <mergen/sdk/error.hpp>
#include <mergen/server/listen.hpp>

namespace mergen::server {

namespace {

constexpr std::string_view forms = "ADDRESS:PORT, [IPV6]:PORT, localhost:PORT, :PORT or *:PORT";

Error refusal(std::string_view text, std::string_view why) {
    return {ErrorKind::InvalidArgument,
            "'" + printable(text) + "' cannot be listened on: " + std::string(why) + "; write " + std::string(forms)};
}

std::optional<std::uint16_t> parsePort(std::string_view text) noexcept {
    std::uint16_t port = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), port);
    if (text.empty() || error != std::errc() || end != text.data() + text.size()) return std::nullopt;
    return port;
}

/// The address as the kernel prints it, so that one has one spelling; nothing if it is none of that family.
std::optional<std::string> canonical(int family, std::string_view text) {
    std::array<unsigned char, sizeof(in6_addr)> bytes{};
    std::array<char, INET6_ADDRSTRLEN> printed{};
    if (::inet_pton(family, std::string(text).c_str(), bytes.data()) != 1) return std::nullopt;
    return ::inet_ntop(family, bytes.data(), printed.data(), printed.size());
}

}  // namespace

ListenAddress parseListen(std::string_view text) {
    if (text.empty()) return {};
    const std::size_t colon = text.rfind(':');
    if (colon == std::string_view::npos) throw refusal(text, "the port is missing");
    const std::string_view host = text.substr(0, colon);
    const bool bracketed = host.starts_with('[') && host.ends_with(']');
    if (host.find(':') != std::string_view::npos && !bracketed) {
        throw refusal(text, "an IPv6 address stands in brackets");
    }
    const auto port = parsePort(text.substr(colon + 1));
    if (!port) throw refusal(text, "the port is not a number from 0 to 65535");
    if (host.empty() || host == "localhost") return {"127.0.0.1", *port};
    if (host == "*") return {"0.0.0.0", *port};
    const auto address = bracketed ? canonical(AF_INET6, host.substr(1, host.size() - 2)) : canonical(AF_INET, host);
    if (!address) throw refusal(text, "'" + printable(host) + "' is no address, and names are not looked up");
    if (bracketed && address->starts_with("fe80:")) {
        throw refusal(text, "a link-local address needs an interface, which cannot be said here");
    }
    return {*address, *port};
}

std::string toString(const ListenAddress& address) {
    if (address.host.empty()) return {};
    const bool ipv6 = address.host.find(':') != std::string::npos;
    return (ipv6 ? "[" + address.host + "]" : address.host) + ":" + std::to_string(address.port);
}

}  // namespace mergen::server
