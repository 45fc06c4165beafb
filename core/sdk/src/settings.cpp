#include <algorithm>
#include <array>
#include <charconv>
#include <limits>
#include <optional>

#include <mergen/sdk/plugin.hpp>

namespace mergen {

namespace {

struct Unit {
    std::string_view suffix;
    std::uint64_t factor;
};

constexpr std::array<Unit, 4> durations{{{"ms", 1}, {"s", 1000}, {"m", 60'000}, {"h", 3'600'000}}};
constexpr std::array<Unit, 4> sizes{{{"", 1}, {"KiB", 1U << 10U}, {"MiB", 1U << 20U}, {"GiB", 1U << 30U}}};

/// Digits and one of the units; nothing if the text is anything else or the product leaves 63 bits.
template <std::size_t N>
std::optional<std::uint64_t> withUnit(std::string_view text, const std::array<Unit, N>& units) noexcept {
    std::uint64_t number = 0;
    const char* const last = text.data() + text.size();
    const auto [end, error] = std::from_chars(text.data(), last, number);
    if (error != std::errc() || end == text.data()) return std::nullopt;
    const std::string_view suffix(end, static_cast<std::size_t>(last - end));
    const auto* unit = std::ranges::find(units, suffix, &Unit::suffix);
    constexpr std::uint64_t most = std::numeric_limits<std::int64_t>::max();
    if (unit == units.end() || number > most / unit->factor) return std::nullopt;
    return number * unit->factor;
}

std::optional<std::int64_t> toInteger(std::string_view text) noexcept {
    std::int64_t value = 0;
    const char* const last = text.data() + text.size();
    const auto [end, error] = std::from_chars(text.data(), last, value);
    if (error != std::errc() || end != last || text.empty()) return std::nullopt;
    return value;
}

[[noreturn]] void refuse(std::string_view value, std::string_view rule) {
    throw Error(ErrorKind::InvalidArgument, "'" + std::string(value) + "' is not " + std::string(rule));
}

}  // namespace

void Settings::check(mergen_key_type type, std::string_view value) {
    switch (type) {
        case MERGEN_KEY_STRING:
        case MERGEN_KEY_PATH:
            return;
        case MERGEN_KEY_INTEGER:
            if (!toInteger(value)) refuse(value, "a whole number");
            return;
        case MERGEN_KEY_BOOLEAN:
            if (value != "true" && value != "false") refuse(value, "true or false");
            return;
        case MERGEN_KEY_DURATION:
            if (!withUnit(value, durations)) refuse(value, "a duration: a whole number with ms, s, m or h");
            return;
        case MERGEN_KEY_SIZE:
            if (!withUnit(value, sizes)) refuse(value, "a size: a whole number of bytes, or with KiB, MiB or GiB");
            return;
    }
    refuse(value, "of a type that this server knows");
}

Settings::Settings(const mergen_key* keys, std::map<std::string, std::string, std::less<>> given)
    : values_(std::move(given)) {
    for (const mergen_key* key = keys; key != nullptr && key->key != nullptr; ++key) {
        types_.emplace(key->key, key->type);
        if (key->default_value != nullptr) {
            values_.try_emplace(key->key, key->default_value);
        } else if (!values_.contains(key->key)) {
            throw Error(ErrorKind::InvalidArgument, std::string("the setting '") + key->key + "' must be given: " +
                                                        (key->sentence == nullptr ? "" : key->sentence));
        }
    }
    for (const auto& [key, value] : values_) {
        const auto type = types_.find(key);
        if (type == types_.end()) throw Error(ErrorKind::InvalidArgument, "there is no setting '" + key + "'");
        try {
            check(type->second, value);
        } catch (const Error& error) {
            throw error.within(key);
        }
    }
}

const std::string& Settings::find(std::string_view key, mergen_key_type type) const {
    const auto known = types_.find(key);
    if (known == types_.end() || known->second != type) {
        throw Error(ErrorKind::Internal, "the plugin asks for the setting '" + std::string(key) +
                                             "', which its manifest does not declare so");
    }
    return values_.find(key)->second;
}

const std::string& Settings::text(std::string_view key) const {
    return find(key, MERGEN_KEY_STRING);
}
std::int64_t Settings::integer(std::string_view key) const {
    return *toInteger(find(key, MERGEN_KEY_INTEGER));
}
bool Settings::boolean(std::string_view key) const {
    return find(key, MERGEN_KEY_BOOLEAN) == "true";
}
std::chrono::milliseconds Settings::duration(std::string_view key) const {
    return std::chrono::milliseconds(*withUnit(find(key, MERGEN_KEY_DURATION), durations));
}
std::uint64_t Settings::bytes(std::string_view key) const {
    return *withUnit(find(key, MERGEN_KEY_SIZE), sizes);
}
std::filesystem::path Settings::path(std::string_view key) const {
    return find(key, MERGEN_KEY_PATH);
}

}  // namespace mergen
