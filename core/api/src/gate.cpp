#include "gate.hpp"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include <Poco/String.h>

#include <mergen/base/text.hpp>

namespace mergen::api {

namespace {

using http::Caller;
using http::Head;
using http::Peer;
using http::Refusal;

constexpr std::chrono::seconds logWindow{10};
constexpr unsigned linesPerWindow = 10;

/// The value of the field, if the head has it exactly once; `count` is how often it has.
std::string_view field(const Head& head, const char* name, unsigned& count) {
    std::string_view value;
    count = 0;
    for (const auto& [each, text] : head.fields) {
        if (Poco::icompare(each, name) != 0) continue;
        ++count;
        value = text;
    }
    return count == 1 ? value : std::string_view{};
}

/// The credentials of `Authorization: Bearer CREDENTIALS`; empty for everything else.
std::string_view bearerOf(const Head& head) {
    unsigned count = 0;
    const std::string_view value = field(head, "Authorization", count);
    const std::size_t blank = value.find(' ');
    if (blank == std::string_view::npos) return {};
    if (Poco::icompare(std::string(value.substr(0, blank)), "Bearer") != 0) return {};
    const std::size_t begin = value.find_first_not_of(' ', blank);
    return begin == std::string_view::npos ? std::string_view{} : value.substr(begin);
}

/// Programs send neither field; a browser sends Origin with what may change something, and Sec-Fetch-Site with all.
bool isOfWebPage(const Head& head) {
    unsigned origins = 0;
    unsigned sites = 0;
    static_cast<void>(field(head, "Origin", origins));
    const std::string_view site = field(head, "Sec-Fetch-Site", sites);
    return origins != 0 || (sites != 0 && site != "none");
}

/// Whether a Host names this machine without asking DNS: an address, or localhost.
bool isLiteralHost(const std::string& host) {
    std::string name = host;
    std::string port;
    const std::size_t bracket = host.rfind(']');
    const std::size_t colon = host.rfind(':');
    if (colon != std::string::npos && (bracket == std::string::npos || colon > bracket)) {
        name = host.substr(0, colon);
        port = host.substr(colon + 1);
    }
    if (port.size() > 5 || port.find_first_not_of("0123456789") != std::string::npos) return false;
    if (Poco::icompare(name, "localhost") == 0) return true;
    in_addr v4{};
    if (::inet_pton(AF_INET, name.c_str(), &v4) == 1) return true;
    in6_addr v6{};
    return name.size() > 2 && name.front() == '[' && name.back() == ']' &&
           ::inet_pton(AF_INET6, name.substr(1, name.size() - 2).c_str(), &v6) == 1;
}

std::optional<Refusal> refuseForeignName(const Head& head) {
    unsigned count = 0;
    const std::string host(field(head, "Host", count));
    if (count == 0 || isLiteralHost(host)) return std::nullopt;  // HTTP/1.0 may lack it, which no browser speaks
    return Refusal{403, "Host '" + printable(host, 80) +
                            "' is neither an address nor localhost; names are refused, as a foreign web page could "
                            "have chosen them"};
}

/// What says no more than that the server is there. Compared before anything is decoded: another spelling needs a
/// token.
bool isOpen(const Head& head) {
    return (head.method == "GET" || head.method == "HEAD") && head.target == "/healthz" && head.contentLength == 0;
}

}  // namespace

std::variant<Caller, Refusal> Gate::admit(const Head& head, const Peer& peer) {
    if (isOfWebPage(head)) return Refusal{403, "requests of web pages (with an Origin or Sec-Fetch-Site) are refused"};
    if (peer.local) {
        if (vmUsers_.contains(peer.uid)) return Refusal{403, "the user of a VM may not use the API"};
        return Caller{"uid:" + std::to_string(peer.uid)};
    }
    if (tokens_ == nullptr) {
        if (auto refused = refuseForeignName(head)) return *std::move(refused);
        return Caller{"tcp:" + peer.host};
    }
    if (isOpen(head)) return Caller{"tcp:" + peer.host};
    if (const auto name = tokens_->current()->find(bearerOf(head))) return Caller{"token:" + *name};
    noteUnauthorized(head, peer);
    return Refusal{401, "this request needs a valid token: 'Authorization: Bearer TOKEN'"};
}

void Gate::noteUnauthorized(const Head& head, const Peer& peer) {
    const std::uint64_t total = unauthorized_.fetch_add(1, std::memory_order_relaxed) + 1;
    const SteadyTime now = std::chrono::steady_clock::now();
    if (now - windowBegin_ >= logWindow) {
        windowBegin_ = now;
        logged_ = 0;
    }
    if (logged_ == linesPerWindow) {
        ++unlogged_;
        return;
    }
    ++logged_;
    // Without the query: some clients put their token there.
    const std::string_view path = std::string_view(head.target).substr(0, head.target.find('?'));
    log_.warning("api.unauthorized", {{"peer", peer.text},
                                      {"method", head.method},
                                      {"path", withoutTokens(printable(path, 200))},
                                      {"total", total},
                                      {"unlogged", std::exchange(unlogged_, 0)}});
}

}  // namespace mergen::api
