#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <string>

#include "serde.hpp"

/// Members of bodies by what is in them. `target` is borrowed until the body has been read.
namespace mergen::fake {

inline constexpr std::uint64_t anyNumber = std::numeric_limits<std::uint64_t>::max();

inline JsonField text(const char* name, bool required, std::string& target) {
    return {name, required, [&target](JsonReader& reader) { target = reader.string(); }};
}

inline JsonField optionalText(const char* name, std::optional<std::string>& target) {
    return {name, false, [&target](JsonReader& reader) {
                if (!reader.null()) target = reader.string();
            }};
}

inline JsonField flag(const char* name, bool required, bool& target) {
    return {name, required, [&target](JsonReader& reader) { target = reader.boolean(); }};
}

/// `most`, `type`: as for JsonReader::integer.
inline JsonField number(const char* name, bool required, std::uint64_t& target, std::uint64_t most, const char* type) {
    return {name, required, [&target, most, type](JsonReader& reader) { target = reader.integer(most, type); }};
}

/// The place of a file.
inline JsonField optionalPath(const char* name, std::optional<std::string>& target) {
    return {name, false, [&target](JsonReader& reader) {
                if (!reader.null()) target = reader.path();
            }};
}

}  // namespace mergen::fake
