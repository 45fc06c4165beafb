#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include <mergen/sdk/types.hpp>

namespace mergen::network {

/// The sets and maps of an instance's table. PastSources: what was in GuestSources of those who are detached, and whose
/// flows are still to be forgotten; no rule looks at it.
enum class TableSet : std::uint8_t { GuestLinks, GuestSources, PastSources, PublishedTcp, PublishedUdp };

inline constexpr std::array allTableSets{TableSet::GuestLinks, TableSet::GuestSources, TableSet::PastSources,
                                         TableSet::PublishedTcp, TableSet::PublishedUdp};

[[nodiscard]] constexpr bool isMap(TableSet set) noexcept {
    return set == TableSet::PublishedTcp || set == TableSet::PublishedUdp;
}
[[nodiscard]] std::string_view nameOf(TableSet set) noexcept;
/// The type of its elements, as nft writes it.
[[nodiscard]] std::string_view typeOf(TableSet set) noexcept;

/// What an element is found by, in the kernel's own bytes: the name of a link is IFNAMSIZ bytes with zeros at the end,
/// addresses and ports are in network byte order, and each part of a concatenation is filled up with zeros to a
/// multiple of 4 bytes.
struct ElementKey {
    TableSet set{};
    std::string bytes;
    auto operator<=>(const ElementKey&) const = default;
};

struct ElementEntry {
    std::string value;    ///< of a map, in the same bytes; empty in a set
    std::string comment;  ///< the tag of the VM that it belongs to
    bool operator==(const ElementEntry&) const = default;
};

using Elements = std::map<ElementKey, ElementEntry>;

[[nodiscard]] ElementKey guestLink(const std::string& link);
[[nodiscard]] ElementKey guestSource(const std::string& link, Ipv4Address guest);
[[nodiscard]] ElementKey publishedPort(Protocol protocol, std::uint16_t port);
/// The value of a published port: where it leads.
[[nodiscard]] std::string publishedTarget(Ipv4Address guest, std::uint16_t port);

/// The same source, of one who is detached.
[[nodiscard]] ElementKey pastSource(const ElementKey& source);

/// Whose source it is, or was.
[[nodiscard]] Ipv4Address guestOf(const ElementKey& source);
/// The key as nft writes it, but for the quotation marks about the name of a link.
[[nodiscard]] std::string toText(const ElementKey& key);

}  // namespace mergen::network
