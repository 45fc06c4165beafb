#include "set_elements.hpp"

#include <arpa/inet.h>
#include <cstring>
#include <net/if.h>

#include <mergen/base/text.hpp>

namespace mergen::network {

namespace {

std::string bytesOfLink(const std::string& link) {
    std::string bytes = link.substr(0, IFNAMSIZ - 1);
    bytes.resize(IFNAMSIZ);
    return bytes;
}

std::string bytesOfAddress(Ipv4Address address) {
    const std::uint32_t value = htonl(address.value());
    return {reinterpret_cast<const char*>(&value), sizeof value};
}

std::string bytesOfPort(std::uint16_t port) {
    const std::uint16_t value = htons(port);
    return {reinterpret_cast<const char*>(&value), sizeof value};
}

/// The number at `at`; 0 beyond the end, as bytes that somebody else wrote may be too few.
template <typename Number>
Number numberAt(const std::string& bytes, std::size_t at) {
    Number value = 0;
    if (bytes.size() >= at + sizeof value) std::memcpy(&value, bytes.data() + at, sizeof value);
    return value;
}

}  // namespace

std::string_view nameOf(TableSet set) noexcept {
    switch (set) {
        case TableSet::GuestLinks:
            return "guest_links";
        case TableSet::GuestSources:
            return "guest_sources";
        case TableSet::PastSources:
            return "past_sources";
        case TableSet::PublishedTcp:
            return "published_tcp";
        case TableSet::PublishedUdp:
            return "published_udp";
    }
    return "";
}

std::string_view typeOf(TableSet set) noexcept {
    switch (set) {
        case TableSet::GuestLinks:
            return "ifname";
        case TableSet::GuestSources:
        case TableSet::PastSources:
            return "ifname . ipv4_addr";
        case TableSet::PublishedTcp:
        case TableSet::PublishedUdp:
            return "inet_service : ipv4_addr . inet_service";
    }
    return "";
}

ElementKey guestLink(const std::string& link) {
    return {TableSet::GuestLinks, bytesOfLink(link)};
}

ElementKey guestSource(const std::string& link, Ipv4Address guest) {
    return {TableSet::GuestSources, bytesOfLink(link) + bytesOfAddress(guest)};
}

ElementKey publishedPort(Protocol protocol, std::uint16_t port) {
    return {protocol == Protocol::Tcp ? TableSet::PublishedTcp : TableSet::PublishedUdp, bytesOfPort(port)};
}

std::string publishedTarget(Ipv4Address guest, std::uint16_t port) {
    constexpr std::size_t fill = 2;
    return bytesOfAddress(guest) + bytesOfPort(port) + std::string(fill, '\0');
}

ElementKey pastSource(const ElementKey& source) {
    return {TableSet::PastSources, source.bytes};
}

Ipv4Address guestOf(const ElementKey& source) {
    return Ipv4Address(ntohl(numberAt<std::uint32_t>(source.bytes, IFNAMSIZ)));
}

std::string toText(const ElementKey& key) {
    if (isMap(key.set)) return std::to_string(ntohs(numberAt<std::uint16_t>(key.bytes, 0)));
    const std::string link = printable(key.bytes.substr(0, ::strnlen(key.bytes.data(), key.bytes.size())));
    return key.set == TableSet::GuestLinks ? link : link + " . " + guestOf(key).str();
}

}  // namespace mergen::network
