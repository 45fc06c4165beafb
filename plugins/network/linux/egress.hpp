#pragma once

#include <string>
#include <string_view>
#include <vector>

#include <mergen/sdk/types.hpp>

namespace mergen::network {

/// A network in CIDR notation of any size, or a single address.
struct Prefix {
    Ipv4Address base;
    unsigned length = 32;

    /// "10.0.0.0/8" with host bits zero, or "10.0.0.1". Throws Error(InvalidArgument) that quotes the text.
    [[nodiscard]] static Prefix parse(std::string_view text);
    [[nodiscard]] std::string str() const;
    [[nodiscard]] bool contains(Ipv4Address address) const noexcept;
};

/// What guests may reach of what lies behind the host, by packets that begin a connection or a flow. Answers to those
/// who reached a guest by a published port are no matter of this.
struct EgressPolicy {
    enum class Mode : std::uint8_t {
        Open,    ///< everything but `denied`
        Listed,  ///< `allowed`, without `denied`
        None,    ///< nothing
    };
    Mode mode = Mode::Open;
    std::vector<Prefix> denied;    ///< wins over everything below
    std::vector<Ipv4Address> dns;  ///< may be asked on port 53 in every mode
    std::vector<Prefix> allowed;   ///< of Listed
};

/// Reads networks with ',' between them; empty: none. Throws Error(InvalidArgument).
[[nodiscard]] std::vector<Prefix> parsePrefixes(std::string_view text);
/// "open", "listed", "none". Throws Error(InvalidArgument).
[[nodiscard]] EgressPolicy::Mode parseEgressMode(std::string_view text);
/// Throws Error(InvalidArgument) for a policy that cannot mean what it says.
void checkEgress(const EgressPolicy& policy);

/// The policy as rules of nftables, in order, for packets that match `guests`. What drops has a counter and a comment.
[[nodiscard]] std::vector<std::string> egressRules(const EgressPolicy& policy, std::string_view guests);

}  // namespace mergen::network
