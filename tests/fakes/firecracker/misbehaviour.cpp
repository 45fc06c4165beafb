#include "misbehaviour.hpp"

#include <algorithm>
#include <cstdlib>

namespace mergen::fake {
namespace {

/// "PUT:/actions" as "PUT /actions".
std::string callOf(std::string text) {
    std::replace(text.begin(), text.end(), ':', ' ');
    return text;
}

}  // namespace

void Misbehaviour::read(std::string_view words, std::string_view prefix) {
    while (!words.empty()) {
        const std::size_t end = std::min(words.find_first_of(" \n"), words.size());
        std::string_view word = words.substr(0, end);
        words.remove_prefix(std::min(end + 1, words.size()));
        if (!word.starts_with(prefix)) continue;
        word.remove_prefix(prefix.size());
        const std::size_t equals = word.find('=');
        const std::string_view key = word.substr(0, equals);
        const std::string value(equals == std::string_view::npos ? "" : word.substr(equals + 1));
        if (key == "die-after-start") dieAfterStart = true;
        if (key == "freeze") freeze = true;
        if (key == "ignore-shutdown") ignoreShutdown = true;
        if (key == "no-drivers") noDrivers = true;
        if (key == "exit") exit = std::atoi(value.c_str());
        if (key == "exit-on-file") exitOnFile = value;
        if (key == "hang-at") hangAt = callOf(value);
        if (key == "die-at") dieAt = callOf(value);
        if (key == "slow") slowMs = static_cast<unsigned>(std::atoi(value.c_str()));
        if (key == "lie") lie = value;
        if (key == "flood") flood = value;
        if (key == "version") version = value;
    }
}

}  // namespace mergen::fake
