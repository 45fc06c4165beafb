#include "target.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>

#include <mergen/base/text.hpp>

namespace mergen::api {

namespace {

Error refused(const std::string& name, const std::string& text) {
    return Error(ErrorKind::InvalidArgument, name + ": " + text).about(name);
}

std::string decode(std::string_view text) {
    std::string decoded;
    decoded.reserve(text.size());
    for (std::size_t i = 0; i < text.size(); ++i) {
        if (text[i] != '%') {
            decoded += text[i];
            continue;
        }
        unsigned value = 0;
        const std::string_view digits = text.substr(i + 1, 2);
        const char* const last = digits.data() + digits.size();
        const auto [end, error] = std::from_chars(digits.data(), last, value, 16);
        if (digits.size() != 2 || error != std::errc() || end != last) {
            throw Error(ErrorKind::InvalidArgument, "'" + printable(text.substr(i, 3)) +
                                                        "' in the request target is no "
                                                        "percent-encoding: '%' and two hexadecimal digits");
        }
        decoded += static_cast<char>(value);
        i += 2;
    }
    return decoded;
}

}  // namespace

Target parseTarget(std::string_view text) {
    Target target;
    const std::size_t mark = text.find('?');
    const std::string_view path = text.substr(0, mark);
    for (const std::string& segment : split(path.substr(1), '/')) target.segments.push_back(decode(segment));
    if (mark == std::string_view::npos || mark + 1 == text.size()) return target;
    for (const std::string& pair : split(text.substr(mark + 1), '&')) {
        const std::size_t equals = pair.find('=');
        const std::string name = decode(std::string_view(pair).substr(0, equals));
        std::string value = equals == std::string::npos ? "" : decode(std::string_view(pair).substr(equals + 1));
        if (!target.query.emplace(name, std::move(value)).second) {
            throw refused(printable(name, 60), "the query parameter stands twice");
        }
    }
    return target;
}

void checkParameters(const Target& target, std::span<const std::string> known) {
    for (const auto& [name, value] : target.query) {
        if (std::ranges::find(known, name) != known.end()) continue;
        std::string text = "unknown query parameter";
        const std::string near = nearestWord(name, known);
        if (!near.empty()) {
            text += ", did you mean " + near + "?";
        } else if (known.empty()) {
            text += "; this route takes none";
        } else {
            text += ", known are";
            for (const std::string& word : known) text += " " + word;
        }
        throw refused(printable(name, 60), text);
    }
}

bool parseBool(const std::string& name, std::string_view text) {
    constexpr std::array<std::string_view, 6> yes{"1", "t", "T", "true", "TRUE", "True"};
    constexpr std::array<std::string_view, 6> no{"0", "f", "F", "false", "FALSE", "False"};
    if (std::ranges::find(yes, text) != yes.end()) return true;
    if (std::ranges::find(no, text) != no.end()) return false;
    throw refused(name, "'" + printable(text, 60) + "' is none of true, false, 1, 0");
}

std::uint64_t parseNumber(const std::string& name, std::string_view text, std::uint64_t min, std::uint64_t max) {
    std::uint64_t value = 0;
    const char* const last = text.data() + text.size();
    const auto [end, error] = std::from_chars(text.data(), last, value);
    if (error != std::errc() || end != last || text.empty() || value < min || value > max) {
        throw refused(name, "'" + printable(text, 60) + "' is not a whole number from " + std::to_string(min) + " to " +
                                std::to_string(max));
    }
    return value;
}

}  // namespace mergen::api
