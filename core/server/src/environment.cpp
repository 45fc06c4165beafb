#include "environment.hpp"

#include <algorithm>
#include <array>

#include <mergen/base/text.hpp>

#include "findings.hpp"

namespace mergen::server {

namespace {

constexpr std::string_view stateDirectory = "MERGEN_STATE_DIR";

/// Variables that are read elsewhere, or by Mergen's other programs and scripts.
constexpr std::array<std::string_view, 5> elsewhere = {"MERGEN_FAILPOINTS", "MERGEN_BUILD_ROOT", "MERGEN_GUEST_DIR",
                                                       "MERGEN_PYTHON", "MERGEN_INIT_LOG_LEVEL"};

/// Variables of the older programs that are taken and do nothing, and why.
constexpr std::array<std::pair<std::string_view, std::string_view>, 1> inert = {
    {{"MGR_SYSTEMCTL_PATH", "Mergen runs no systemctl"}}};

class Reader {
public:
    Reader(const ConfigInput& input, std::size_t source, Problems& problems, Notes& notes)
        : input_(input), source_(source), problems_(problems), notes_(notes) {}

    std::vector<IniSection> run() {
        readStateDirectory();
        for (const ConfigKey& key : configKeys()) readOldVariable(key);
        for (const ConfigKey& key : configKeys()) {
            if (const std::string* value = find(key.variable())) add(key, key.variable(), *value);
        }
        for (const auto& [name, text] : inert) {
            if (find(name) != nullptr) notes_.push_back(inertVariable(LogLevel::Warning, originOf(name), text));
        }
        noteMistypedOldVariables();
        return std::move(sections_);
    }

private:
    [[nodiscard]] const std::string* find(std::string_view variable) const {
        const auto found = input_.environment.find(variable);
        return found == input_.environment.end() ? nullptr : &found->second;
    }

    [[nodiscard]] Origin originOf(std::string_view variable) const {
        return {Origin::Kind::Environment, std::string(variable), 0, source_};
    }

    void add(const ConfigKey& key, std::string_view variable, std::string_view value) {
        const Origin origin = originOf(variable);
        value = trim(value);
        if (!checkOutsideValue(value, origin, key.path(), problems_, notes_)) return;
        sections_.push_back({key.section, origin, {{key.key, std::string(value), origin}}});
    }

    /// One folder for all that a server keeps; each of its parts can be put elsewhere by its own variable.
    void readStateDirectory() {
        const std::string* const value = find(stateDirectory);
        if (value == nullptr) return;
        if (!trim(*value).starts_with('/')) {
            problems_.push_back(
                {originOf(stateDirectory), {}, "'" + printable(*value) + "' is not an absolute path", {}});
            return;
        }
        for (const ConfigKey& key : configKeys()) {
            if (key.traits.belowStateDir != nullptr) {
                add(key, stateDirectory, std::string(trim(*value)) + "/" + key.traits.belowStateDir);
            }
        }
    }

    void readOldVariable(const ConfigKey& key) {
        if (key.traits.oldVariable == nullptr) return;
        const std::string* const given = find(key.traits.oldVariable);
        if (given == nullptr) return;
        const Origin origin = originOf(key.traits.oldVariable);
        if (find(key.variable()) != nullptr) {
            notes_.push_back({LogLevel::Warning, "config.variable.shadowed", origin,
                              key.variable() + " is given, too, and wins for " + key.path()});
            return;
        }
        std::string value(trim(*given));
        if (value.empty()) {
            notes_.push_back(ignoredValue(origin, key.path(), "the value is empty"));
            return;
        }
        if (origin.name.ends_with("_SECONDS")) {
            if (!std::ranges::all_of(value, [](char c) { return c >= '0' && c <= '9'; })) {
                notes_.push_back(
                    ignoredValue(origin, key.path(), "'" + printable(value) + "' is not a whole number of seconds"));
                return;
            }
            value += 's';
        }
        add(key, key.traits.oldVariable, value);
    }

    /// Other programs may have MGR_… of their own: only what is nearly one of ours is worth a word.
    void noteMistypedOldVariables() {
        std::vector<std::string> ours;
        for (const std::string& name : knownVariables()) {
            if (name.starts_with("MGR_")) ours.push_back(name);
        }
        for (const auto& [name, value] : input_.environment) {
            if (!name.starts_with("MGR_") || std::ranges::find(ours, name) != ours.end()) continue;
            const std::string near = nearestWord(name, ours);
            if (!near.empty()) notes_.push_back(unknownVariable(originOf(name), near));
        }
    }

    const ConfigInput& input_;
    const std::size_t source_;
    Problems& problems_;
    Notes& notes_;
    std::vector<IniSection> sections_;
};

}  // namespace

std::vector<IniSection> readEnvironment(const ConfigInput& input, std::size_t source,
                                        std::vector<PendingVariable>& others, Problems& problems, Notes& notes) {
    const std::vector<std::string> known = knownVariables();
    for (const auto& [name, value] : input.environment) {
        const bool ours = name.starts_with("MERGEN_") || isOldPluginVariable(name);
        if (!ours || std::ranges::find(known, name) != known.end()) continue;
        others.push_back({{Origin::Kind::Environment, name, 0, source}, std::string(trim(value))});
    }
    return Reader(input, source, problems, notes).run();
}

std::vector<std::string> knownVariables() {
    std::vector<std::string> names = {std::string(stateDirectory)};
    for (const ConfigKey& key : configKeys()) {
        names.push_back(key.variable());
        if (key.traits.oldVariable != nullptr) names.emplace_back(key.traits.oldVariable);
    }
    names.insert(names.end(), elsewhere.begin(), elsewhere.end());
    for (const auto& [name, text] : inert) names.emplace_back(name);
    return names;
}

}  // namespace mergen::server
