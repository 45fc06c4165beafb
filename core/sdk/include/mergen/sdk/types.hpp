#pragma once

#include <array>
#include <chrono>
#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include <mergen/sdk/export.hpp>

/// Words from outside become one of these types by one parsing function each, before they meet a path, a rule or an
/// argument list. Every `parse` throws Error(InvalidArgument) that quotes the text and states the rule.
namespace mergen {

using SystemTime = std::chrono::system_clock::time_point;
using SteadyTime = std::chrono::steady_clock::time_point;

/// A version 4 UUID (RFC 4122), written in lower case. The internal identity of a VM: never chosen by a caller.
class MERGEN_SDK_API Uuid {
public:
    /// From the kernel's random source (getrandom).
    [[nodiscard]] static Uuid random();
    [[nodiscard]] static Uuid parse(std::string_view text);

    [[nodiscard]] std::string str() const;
    /// The first eight hexadecimal digits: what the names of host objects are made of.
    [[nodiscard]] std::string short8() const;
    [[nodiscard]] const std::array<std::uint8_t, 16>& bytes() const noexcept { return bytes_; }
    auto operator<=>(const Uuid&) const = default;

private:
    std::array<std::uint8_t, 16> bytes_{};
};

/// The id by which the API knows a VM and storage a record: 1 to 63 of a-z, 0-9 and '-', not beginning with '-'. A UUID
/// is one. Safe in a path, a unit name and a log line.
class MERGEN_SDK_API RecordId {
public:
    [[nodiscard]] static RecordId parse(std::string_view text);
    [[nodiscard]] const std::string& str() const noexcept { return text_; }
    auto operator<=>(const RecordId&) const = default;

private:
    explicit RecordId(std::string text) : text_(std::move(text)) {}
    std::string text_;
};

/// Whose an object on the host is: this text stands on everything that Mergen makes (link alias, rule comment, argument
/// of the VM's parent), so that recovery can tell its own from what is foreign.
struct MERGEN_SDK_API OwnerTag {
    std::string instance;  ///< eight hexadecimal digits, Host::instance()
    Uuid vm;

    /// "mergen:<instance>:<uuid>"
    [[nodiscard]] std::string str() const;
    /// Nothing if `text` is not such a tag.
    [[nodiscard]] static std::optional<OwnerTag> parse(std::string_view text);
    auto operator<=>(const OwnerTag&) const = default;
};

/// A network interface name: 1 to 15 of a-z, A-Z, 0-9, '-', '_', '.', not "." or ".." (IFNAMSIZ of if.h is 16).
class MERGEN_SDK_API IfName {
public:
    [[nodiscard]] static IfName parse(std::string_view text);
    [[nodiscard]] const std::string& str() const noexcept { return text_; }
    auto operator<=>(const IfName&) const = default;

private:
    explicit IfName(std::string text) : text_(std::move(text)) {}
    std::string text_;
};

/// A 48-bit Ethernet address, written "02:fc:0a:1b:2c:01".
class MERGEN_SDK_API MacAddress {
public:
    [[nodiscard]] static MacAddress parse(std::string_view text);
    /// "02:FC:xx:xx:xx:01" from the first three bytes of `vm`; locally administered, unicast. The last byte counts the
    /// VM's network cards: 01 is that of card 0, 02 that of card 1, up to card 254.
    [[nodiscard]] static MacAddress of(const Uuid& vm, std::uint8_t card = 0);
    [[nodiscard]] std::string str() const;
    [[nodiscard]] const std::array<std::uint8_t, 6>& bytes() const noexcept { return bytes_; }
    auto operator<=>(const MacAddress&) const = default;

private:
    std::array<std::uint8_t, 6> bytes_{};
};

/// An IPv4 address in host byte order.
class MERGEN_SDK_API Ipv4Address {
public:
    constexpr Ipv4Address() = default;
    constexpr explicit Ipv4Address(std::uint32_t value) : value_(value) {}
    /// Dotted quad, four decimal parts without leading zeros.
    [[nodiscard]] static Ipv4Address parse(std::string_view text);
    [[nodiscard]] std::string str() const;
    [[nodiscard]] constexpr std::uint32_t value() const noexcept { return value_; }
    auto operator<=>(const Ipv4Address&) const = default;

private:
    std::uint32_t value_ = 0;
};

/// A network in CIDR notation whose host bits are zero, /8 to /30.
class MERGEN_SDK_API Ipv4Network {
public:
    [[nodiscard]] static Ipv4Network parse(std::string_view text);
    [[nodiscard]] std::string str() const;
    [[nodiscard]] Ipv4Address base() const noexcept { return base_; }
    [[nodiscard]] Ipv4Address broadcast() const noexcept;
    [[nodiscard]] Ipv4Address netmask() const noexcept;
    /// The address with this host number; the caller keeps it below size().
    [[nodiscard]] Ipv4Address host(std::uint32_t number) const noexcept { return Ipv4Address(base_.value() + number); }
    [[nodiscard]] bool contains(Ipv4Address address) const noexcept;
    [[nodiscard]] unsigned prefix() const noexcept { return prefix_; }
    /// How many addresses, network and broadcast address included.
    [[nodiscard]] std::uint32_t size() const noexcept { return 1U << (32U - prefix_); }
    auto operator<=>(const Ipv4Network&) const = default;

private:
    Ipv4Address base_;
    unsigned prefix_ = 24;
};

enum class Protocol : std::uint8_t { Tcp, Udp };
[[nodiscard]] MERGEN_SDK_API std::string_view toString(Protocol protocol) noexcept;

/// A host port that leads to a guest port. Ordered by host port, then protocol.
struct PortBinding {
    std::uint16_t host = 0;
    Protocol protocol = Protocol::Tcp;
    std::uint16_t guest = 0;
    auto operator<=>(const PortBinding&) const = default;
};

/// An amount of memory in mebibytes (2^20 bytes).
struct MiB {
    std::uint64_t count = 0;
    auto operator<=>(const MiB&) const = default;
};

/// An amount in bytes.
struct Bytes {
    std::uint64_t count = 0;
    auto operator<=>(const Bytes&) const = default;
};

/// The user that a VMM runs as.
struct Credentials {
    std::uint32_t uid = 0;
    std::uint32_t gid = 0;
    auto operator<=>(const Credentials&) const = default;
};

}  // namespace mergen
