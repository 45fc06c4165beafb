#include "egress.hpp"

#include <algorithm>
#include <charconv>

#include <mergen/base/text.hpp>
#include <mergen/sdk/error.hpp>

namespace mergen::network {

namespace {

std::uint32_t maskOf(unsigned length) noexcept {
    return length == 0 ? 0 : ~std::uint32_t{0} << (32U - length);
}

}  // namespace

Prefix Prefix::parse(std::string_view text) {
    const std::size_t slash = text.find('/');
    Prefix prefix{Ipv4Address::parse(text.substr(0, slash)), 32};
    if (slash == std::string_view::npos) return prefix;
    const std::string_view digits = text.substr(slash + 1);
    const char* const end = digits.data() + digits.size();
    const auto read = std::from_chars(digits.data(), end, prefix.length);
    if (digits.empty() || read.ec != std::errc() || read.ptr != end || prefix.length > 32 ||
        (prefix.base.value() & ~maskOf(prefix.length)) != 0) {
        throw Error(ErrorKind::InvalidArgument,
                    "'" + printable(text) +
                        "' is no network: ADDRESS/LENGTH with a length of 0 to 32 and no bit set "
                        "behind it, or an address");
    }
    return prefix;
}

std::string Prefix::str() const {
    return base.str() + "/" + std::to_string(length);
}

bool Prefix::contains(Ipv4Address address) const noexcept {
    return (address.value() & maskOf(length)) == base.value();
}

std::vector<Prefix> parsePrefixes(std::string_view text) {
    std::vector<Prefix> prefixes;
    if (trim(text).empty()) return prefixes;
    for (const std::string& each : split(text, ',')) prefixes.push_back(Prefix::parse(trim(each)));
    return prefixes;
}

EgressPolicy::Mode parseEgressMode(std::string_view text) {
    if (text == "open") return EgressPolicy::Mode::Open;
    if (text == "listed") return EgressPolicy::Mode::Listed;
    if (text == "none") return EgressPolicy::Mode::None;
    throw Error(ErrorKind::InvalidArgument, "'" + printable(text) + "' is none of open, listed and none");
}

void checkEgress(const EgressPolicy& policy) {
    const bool listed = policy.mode == EgressPolicy::Mode::Listed;
    if (listed && policy.allowed.empty()) {
        throw Error(ErrorKind::InvalidArgument,
                    "egress = listed needs allowed_networks; egress = none lets nothing out");
    }
    if (!listed && !policy.allowed.empty()) {
        throw Error(ErrorKind::InvalidArgument, "allowed_networks is for egress = listed and has no effect without it");
    }
    for (const Ipv4Address server : policy.dns) {
        const auto denies = std::ranges::find_if(policy.denied, [&](const Prefix& p) { return p.contains(server); });
        if (denies != policy.denied.end()) {
            throw Error(ErrorKind::InvalidArgument, "dns: " + server.str() + " lies in " + denies->str() +
                                                        " of denied_networks, which no guest may reach");
        }
    }
}

std::vector<std::string> egressRules(const EgressPolicy& policy, std::string_view guests) {
    std::vector<std::string> rules;
    const std::string from(guests);
    // One rule each, not a set: networks in a set must not overlap.
    for (const Prefix& network : policy.denied) {
        rules.push_back(from + " ip daddr " + network.str() + R"( counter drop comment "denied network")");
    }
    if (policy.mode == EgressPolicy::Mode::Open) return rules;
    for (const Ipv4Address server : policy.dns) {
        rules.push_back(from + " ip daddr " + server.str() + " meta l4proto { tcp, udp } th dport 53 accept");
    }
    for (const Prefix& network : policy.allowed) rules.push_back(from + " ip daddr " + network.str() + " accept");
    rules.push_back(from + R"( counter drop comment "egress policy")");
    return rules;
}

}  // namespace mergen::network
