#include "findings.hpp"

#include <mergen/server/ini.hpp>

namespace mergen::server {

std::string hintFor(std::string_view value) {
    if (value.find(" #") != std::string_view::npos || value.find(" ;") != std::string_view::npos) {
        return " (a comment stands on a line of its own)";
    }
    if (value.starts_with('"') || value.starts_with('\'')) return " (values are written without quotes)";
    return {};
}

bool checkOutsideValue(std::string_view value, const Origin& origin, const std::string& where, Problems& problems,
                       Notes& notes) {
    const std::string reason = whyNoIniValue(value);
    if (reason.empty()) return true;
    if (origin.strict()) {
        problems.push_back({origin, where, reason, {}});
    } else {
        notes.push_back(ignoredValue(origin, where, reason));
    }
    return false;
}

Note ignoredValue(const Origin& origin, const std::string& where, const std::string& reason) {
    return {LogLevel::Warning, "config.variable.ignored", origin,
            where + ": " + reason + "; ignored, as if it were not given"};
}

Note inertVariable(LogLevel level, const Origin& origin, std::string_view why) {
    return {level, "config.variable.inert", origin, "has no effect: " + std::string(why)};
}

Note unknownVariable(const Origin& origin, const std::string& near) {
    return {LogLevel::Warning, "config.variable.unknown", origin,
            "means nothing to mergend" + (near.empty() ? "" : "; did you mean '" + near + "'?")};
}

}  // namespace mergen::server
