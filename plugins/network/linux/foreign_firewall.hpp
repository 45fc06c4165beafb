#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace mergen::network {

/// Reads what `nft list table` prints of somebody else's table and gives its chains that would end the packets of
/// guests whatever our table accepts, each as "CHAIN (policy drop)" or "CHAIN (ends in reject)": chains at the forward
/// hook whose policy, or last rule, drops or rejects what no earlier rule knows. None if the table accepts our links in
/// both directions, or hands them to a chain of its own: then its operator knows of them.
/// `links`: how nft writes our links, "mg-*".
///
/// A judgement by the shapes that are in use (Docker's and ufw's policy drop, firewalld's last reject), not a proof.
[[nodiscard]] std::vector<std::string> chainsThatDrop(std::string_view listing, std::string_view links);

/// Whether legacy iptables has a filter table, whose FORWARD chain nftables cannot show. `names`: the content of
/// /proc/net/ip_tables_names, the tables of the kernel's old packet filter.
[[nodiscard]] bool hasLegacyFilter(std::string_view names);

}  // namespace mergen::network
