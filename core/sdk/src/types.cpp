#include <algorithm>
#include <cerrno>
#include <charconv>
#include <sys/random.h>

#include <mergen/sdk/error.hpp>
#include <mergen/sdk/types.hpp>

namespace mergen {

namespace {

constexpr bool isDigit(char c) noexcept {
    return c >= '0' && c <= '9';
}
constexpr bool isLower(char c) noexcept {
    return c >= 'a' && c <= 'z';
}
constexpr bool isUpper(char c) noexcept {
    return c >= 'A' && c <= 'Z';
}

constexpr int hexValue(char c) noexcept {
    if (isDigit(c)) return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

void appendHex(std::string& to, std::uint8_t byte) {
    constexpr char digits[] = "0123456789abcdef";
    to += digits[byte >> 4U];
    to += digits[byte & 0xfU];
}

[[noreturn]] void refuse(std::string_view what, std::string_view text, std::string_view rule) {
    constexpr std::size_t shown = 80;
    std::string quoted;
    for (char c : text.substr(0, shown)) quoted += (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) ? '?' : c;
    if (text.size() > shown) quoted += "...";
    throw Error(ErrorKind::InvalidArgument,
                "'" + quoted + "' is not a " + std::string(what) + ": " + std::string(rule));
}

/// A decimal number up to `max` without sign, blanks or leading zeros; nothing if `text` is anything else.
std::optional<unsigned> decimal(std::string_view text, unsigned max) noexcept {
    if (text.empty() || text.size() > 10 || (text.size() > 1 && text.front() == '0')) return std::nullopt;
    unsigned value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size() || value > max) return std::nullopt;
    return value;
}

}  // namespace

Uuid Uuid::random() {
    Uuid uuid;
    std::size_t have = 0;
    while (have < uuid.bytes_.size()) {
        const ssize_t got = ::getrandom(uuid.bytes_.data() + have, uuid.bytes_.size() - have, 0);
        if (got < 0) {
            if (errno == EINTR) continue;
            throw Error::fromErrno(errno, "cannot read random bytes");
        }
        have += static_cast<std::size_t>(got);
    }
    uuid.bytes_[6] = static_cast<std::uint8_t>((uuid.bytes_[6] & 0x0fU) | 0x40U);  // version 4
    uuid.bytes_[8] = static_cast<std::uint8_t>((uuid.bytes_[8] & 0x3fU) | 0x80U);  // variant of RFC 4122
    return uuid;
}

Uuid Uuid::parse(std::string_view text) {
    constexpr std::string_view rule = "32 hexadecimal digits in groups of 8-4-4-4-12, in lower case, version 4";
    Uuid uuid;
    std::size_t at = 0;
    if (text.size() != 36) refuse("UUID", text, rule);
    for (std::size_t i = 0; i < 16; ++i) {
        if (i == 4 || i == 6 || i == 8 || i == 10) {
            if (text[at] != '-') refuse("UUID", text, rule);
            ++at;
        }
        const int high = hexValue(text[at]);
        const int low = hexValue(text[at + 1]);
        if (high < 0 || low < 0 || isUpper(text[at]) || isUpper(text[at + 1])) refuse("UUID", text, rule);
        uuid.bytes_[i] = static_cast<std::uint8_t>(high * 16 + low);
        at += 2;
    }
    if ((uuid.bytes_[6] >> 4U) != 4 || (uuid.bytes_[8] >> 6U) != 2) refuse("UUID", text, rule);
    return uuid;
}

std::string Uuid::str() const {
    std::string text;
    text.reserve(36);
    for (std::size_t i = 0; i < bytes_.size(); ++i) {
        if (i == 4 || i == 6 || i == 8 || i == 10) text += '-';
        appendHex(text, bytes_[i]);
    }
    return text;
}

std::string Uuid::short8() const {
    return str().substr(0, 8);
}

RecordId RecordId::parse(std::string_view text) {
    const bool good = !text.empty() && text.size() <= 63 && text.front() != '-' &&
                      std::ranges::all_of(text, [](char c) { return isLower(c) || isDigit(c) || c == '-'; });
    if (!good) refuse("VM id", text, "1 to 63 of a-z, 0-9 and '-', not beginning with '-'");
    return RecordId(std::string(text));
}

namespace {
constexpr std::string_view tagPrefix = "mergen:";
constexpr std::size_t instanceLength = 8;
}  // namespace

std::string OwnerTag::str() const {
    return std::string(tagPrefix) + instance + ":" + vm.str();
}

std::optional<OwnerTag> OwnerTag::parse(std::string_view text) {
    if (!text.starts_with(tagPrefix)) return std::nullopt;
    text.remove_prefix(tagPrefix.size());
    if (text.size() != instanceLength + 1 + 36 || text[instanceLength] != ':') return std::nullopt;
    const std::string_view instance = text.substr(0, instanceLength);
    if (!std::ranges::all_of(instance, [](char c) { return hexValue(c) >= 0 && !isUpper(c); })) return std::nullopt;
    try {
        return OwnerTag{std::string(instance), Uuid::parse(text.substr(instanceLength + 1))};
    } catch (const Error&) {
        return std::nullopt;
    }
}

IfName IfName::parse(std::string_view text) {
    const bool good =
        !text.empty() && text.size() <= 15 && text != "." && text != ".." && std::ranges::all_of(text, [](char c) {
            return isLower(c) || isUpper(c) || isDigit(c) || c == '-' || c == '_' || c == '.';
        });
    if (!good) refuse("interface name", text, "1 to 15 of a-z, A-Z, 0-9, '-', '_' and '.'");
    return IfName(std::string(text));
}

MacAddress MacAddress::parse(std::string_view text) {
    constexpr std::string_view rule = "six pairs of hexadecimal digits with ':' between them";
    MacAddress mac;
    if (text.size() != 17) refuse("MAC address", text, rule);
    for (std::size_t i = 0; i < 6; ++i) {
        const int high = hexValue(text[3 * i]);
        const int low = hexValue(text[3 * i + 1]);
        if (high < 0 || low < 0 || (i < 5 && text[3 * i + 2] != ':')) refuse("MAC address", text, rule);
        mac.bytes_[i] = static_cast<std::uint8_t>(high * 16 + low);
    }
    return mac;
}

MacAddress MacAddress::of(const Uuid& vm, std::uint8_t card) {
    MacAddress mac;
    mac.bytes_ = {0x02, 0xfc, vm.bytes()[0], vm.bytes()[1], vm.bytes()[2], static_cast<std::uint8_t>(card + 1)};
    return mac;
}

std::string MacAddress::str() const {
    std::string text;
    for (std::size_t i = 0; i < bytes_.size(); ++i) {
        if (i != 0) text += ':';
        appendHex(text, bytes_[i]);
    }
    return text;
}

Ipv4Address Ipv4Address::parse(std::string_view text) {
    constexpr std::string_view rule = "four numbers from 0 to 255 with '.' between them";
    const std::string_view whole = text;
    std::uint32_t value = 0;
    for (int part = 0; part < 4; ++part) {
        const std::size_t dot = part < 3 ? text.find('.') : text.size();
        if (dot == std::string_view::npos) refuse("IPv4 address", whole, rule);
        const auto number = decimal(text.substr(0, dot), 255);
        if (!number) refuse("IPv4 address", whole, rule);
        value = value << 8U | *number;
        text.remove_prefix(part < 3 ? dot + 1 : dot);
    }
    return Ipv4Address(value);
}

std::string Ipv4Address::str() const {
    return std::to_string(value_ >> 24U) + "." + std::to_string(value_ >> 16U & 0xffU) + "." +
           std::to_string(value_ >> 8U & 0xffU) + "." + std::to_string(value_ & 0xffU);
}

Ipv4Network Ipv4Network::parse(std::string_view text) {
    constexpr std::string_view rule = "an IPv4 address, '/', and a prefix from 8 to 30, with all host bits zero";
    const std::size_t slash = text.find('/');
    if (slash == std::string_view::npos) refuse("network", text, rule);
    const auto prefix = decimal(text.substr(slash + 1), 30);
    if (!prefix || *prefix < 8) refuse("network", text, rule);
    Ipv4Network network;
    network.prefix_ = *prefix;
    network.base_ = Ipv4Address::parse(text.substr(0, slash));
    if ((network.base_.value() & (network.size() - 1)) != 0) refuse("network", text, rule);
    return network;
}

std::string Ipv4Network::str() const {
    return base_.str() + "/" + std::to_string(prefix_);
}
Ipv4Address Ipv4Network::broadcast() const noexcept {
    return Ipv4Address(base_.value() + size() - 1);
}
Ipv4Address Ipv4Network::netmask() const noexcept {
    return Ipv4Address(~(size() - 1));
}
bool Ipv4Network::contains(Ipv4Address address) const noexcept {
    return (address.value() & netmask().value()) == base_.value();
}

std::string_view toString(Protocol protocol) noexcept {
    return protocol == Protocol::Tcp ? "tcp" : "udp";
}

}  // namespace mergen
