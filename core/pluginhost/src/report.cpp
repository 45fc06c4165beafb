#include "report.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <initializer_list>
#include <vector>

#include <mergen/base/text.hpp>

namespace mergen::pluginhost::report {

namespace {

constexpr std::array steps{opening, reading, creating, destroying, closing};

std::string line(std::initializer_list<std::string_view> fields) {
    std::string text;
    for (const std::string_view field : fields) {
        if (!text.empty()) text += '\t';
        text += field;
    }
    return text + '\n';
}

[[noreturn]] void refuse(std::string_view found) {
    throw Error(ErrorKind::FailedPrecondition,
                "its report has a line that nobody should write: '" + printable(found, 80) + "'");
}

PluginKey parseKey(const std::vector<std::string>& fields, std::string_view text) {
    PluginKey key;
    key.key = fields[1];
    const char* const last = fields[2].data() + fields[2].size();
    int type = -1;
    if (const auto [end, error] = std::from_chars(fields[2].data(), last, type); error != std::errc() || end != last) {
        refuse(text);
    }
    if (type < MERGEN_KEY_STRING || type > MERGEN_KEY_PATH) refuse(text);
    key.type = static_cast<mergen_key_type>(type);
    key.required = fields[3] == "required";
    if (!key.required && fields[3] != "default") refuse(text);
    key.defaultValue = fields[4];
    key.sentence = fields[5];
    return key;
}

}  // namespace

std::string stepLine(std::string_view step) {
    return line({"step", step});
}
std::string refusedLine(std::string_view cause) {
    return line({"refused", printable(cause, 4 * maxTextBytes)});
}
std::string doneLine() {
    return line({"done"});
}

std::string manifestLines(const ManifestCopy& manifest) {
    std::string text = line({"plugin", manifest.kind, manifest.name, manifest.version});
    for (const PluginKey& key : manifest.keys) {
        text += line({"key", key.key, std::to_string(key.type), key.required ? "required" : "default", key.defaultValue,
                      key.sentence});
    }
    return text;
}

Report parse(std::string_view text) {
    Report report;
    for (auto end = text.find('\n'); end != std::string_view::npos; end = text.find('\n')) {
        const std::string_view now = text.substr(0, end);
        text.remove_prefix(end + 1);
        const std::vector<std::string> fields = split(now, '\t');
        if (report.done || report.refusal) refuse(now);
        if (fields[0] == "step" && fields.size() == 2) {
            if (std::ranges::find(steps, fields[1]) == steps.end()) refuse(now);
            report.step = fields[1];
        } else if (fields[0] == "plugin" && fields.size() == 4 && !report.manifest) {
            report.manifest = ManifestCopy{fields[1], fields[2], fields[3], {}};
        } else if (fields[0] == "key" && fields.size() == 6 && report.manifest &&
                   report.manifest->keys.size() < maxKeys) {
            report.manifest->keys.push_back(parseKey(fields, now));
        } else if (fields[0] == "refused" && fields.size() == 2) {
            report.refusal = printable(fields[1], 4 * maxTextBytes);
        } else if (fields[0] == "done" && fields.size() == 1 && report.manifest) {
            report.done = true;
        } else {
            refuse(now);
        }
    }
    if (report.manifest) checkWords(*report.manifest);
    return report;
}

}  // namespace mergen::pluginhost::report
