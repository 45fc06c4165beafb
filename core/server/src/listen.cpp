#include <charconv>
#include <optional>

#include <mergen/base/text.hpp>
#include <mergen/sdk/error.hpp>
#include <mergen/server/listen.hpp>

namespace mergen::server {

namespace {

constexpr std::string_view forms = "127.0.0.1:PORT, [::1]:PORT, localhost:PORT or :PORT";

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

}  // namespace

ListenAddress parseListen(std::string_view text) {
    const std::size_t colon = text.rfind(':');
    if (colon == std::string_view::npos) throw refusal(text, "the port is missing");
    const std::string_view host = text.substr(0, colon);
    if (host.find(':') != std::string_view::npos && !(host.starts_with('[') && host.ends_with(']'))) {
        throw refusal(text, "an IPv6 address stands in brackets");
    }
    const auto port = parsePort(text.substr(colon + 1));
    if (!port) throw refusal(text, "the port is not a number from 0 to 65535");
    if (host.empty() || host == "localhost" || host == "127.0.0.1") return {"127.0.0.1", *port};
    if (host == "[::1]") return {"::1", *port};
    throw refusal(text, "only loopback is served, as the API has no authentication yet");
}

std::string toString(const ListenAddress& address) {
    const bool ipv6 = address.host.find(':') != std::string::npos;
    return (ipv6 ? "[" + address.host + "]" : address.host) + ":" + std::to_string(address.port);
}

}  // namespace mergen::server
