#include <algorithm>
#include <array>
#include <cctype>

#include <mergen/base/text.hpp>
#include <mergen/sdk/error.hpp>
#include <mergen/sdk/plugin.hpp>
#include <mergen/server/config.hpp>

#include "environment.hpp"
#include "findings.hpp"

namespace mergen::server {

namespace {

/// Names of older programs for settings of plugins, from what is weakest to what wins.
struct OldName {
    std::string_view variable, kind, name, key;
};
constexpr std::array<OldName, 2> oldNames = {{{"FIRECRACKER_BINARY", "vmm", "firecracker", "binary"},
                                              {"MERGEN_FIRECRACKER_BIN", "vmm", "firecracker", "binary"}}};

class Resolver {
public:
    Resolver(ServerConfig& config, std::span<const pluginhost::PluginInfo> found, Problems& problems, Notes& notes)
        : config_(config), found_(found), problems_(problems), notes_(notes) {
        for (const pluginhost::PluginInfo& plugin : found_) titles_.push_back(plugin.kind + "." + plugin.name);
    }

    void run() {
        readOldNames();
        for (const PendingVariable& variable : config_.pending) readVariable(variable);
        config_.pending.clear();
        for (const PluginSection& section : config_.plugins) checkSection(section);
        for (const auto& [kind, name] : config_.backends.all()) checkSelected(kind, name);
        sortByOrigin(problems_);
    }

private:
    /// None if it is missing or was refused.
    [[nodiscard]] const pluginhost::PluginInfo* find(std::string_view kind, std::string_view name) const {
        for (const pluginhost::PluginInfo& plugin : found_) {
            if (plugin.kind == kind && plugin.name == name && plugin.state != pluginhost::PluginState::Failed)
                return &plugin;
        }
        return nullptr;
    }

    /// Whether a library of this name is there, be it refused.
    [[nodiscard]] bool isThere(const std::string& title) const {
        return std::ranges::find(titles_, title) != titles_.end();
    }

    void readOldNames() {
        for (const OldName& old : oldNames) {
            const auto pending =
                std::ranges::find(config_.pending, old.variable,
                                  [](const PendingVariable& each) -> std::string_view { return each.origin.name; });
            if (pending == config_.pending.end()) continue;
            const PendingVariable variable = std::move(*pending);
            config_.pending.erase(pending);
            const pluginhost::PluginInfo* const plugin = find(old.kind, old.name);
            const auto* const key = plugin == nullptr ? nullptr : findKey(*plugin, old.key);
            const std::string where = pathOf(old.kind, old.name, old.key);
            if (key == nullptr) {
                // Other programs read these two as well.
                notes_.push_back(inertVariable(LogLevel::Info, variable.origin, "there is no setting " + where));
            } else if (!variable.origin.strict() && !isGood(*key, variable, where)) {
                continue;
            } else {
                add(old.kind, old.name, old.key, variable);
            }
        }
    }

    static std::string pathOf(std::string_view kind, std::string_view name, std::string_view key) {
        return std::string(kind) + "." + std::string(name) + "." + std::string(key);
    }

    bool isGood(const pluginhost::PluginKey& key, const PendingVariable& variable, const std::string& where) {
        std::string reason = variable.value.empty() ? "the value is empty" : whyNoIniValue(variable.value);
        try {
            Settings::check(key.type, variable.value);
        } catch (const Error& error) {
            reason = error.what();
        }
        if (!reason.empty()) notes_.push_back(ignoredValue(variable.origin, where, reason));
        return reason.empty();
    }

    void readVariable(const PendingVariable& variable) {
        std::vector<std::string> names = knownVariables();
        for (const OldName& old : oldNames) names.emplace_back(old.variable);
        std::vector<std::string> meanings;
        for (const pluginhost::PluginInfo& plugin : found_) {
            if (plugin.state == pluginhost::PluginState::Failed) continue;
            for (const pluginhost::PluginKey& key : plugin.keys) {
                const std::string title = plugin.kind + "." + plugin.name;
                names.push_back(variableFor(title, key.key));
                if (names.back() != variable.origin.name) continue;
                meanings.push_back(title + "." + key.key);
                if (meanings.size() == 1) add(plugin.kind, plugin.name, key.key, variable);
            }
        }
        if (meanings.size() == 1) return;
        if (meanings.empty()) {
            notes_.push_back(unknownVariable(variable.origin, nearestWord(variable.origin.name, names)));
            return;
        }
        std::string text;
        for (const std::string& meaning : meanings) text += (text.empty() ? "" : " and ") + meaning;
        problems_.push_back(
            {variable.origin, {}, "can mean " + text + ": give the one that is meant in a file or by --set", {}});
    }

    /// Behind what is weaker, before what wins.
    void add(std::string_view kind, std::string_view name, std::string_view key, const PendingVariable& variable) {
        const std::string where = pathOf(kind, name, key);
        if (!checkOutsideValue(variable.value, variable.origin, where, problems_, notes_)) return;
        auto section = std::ranges::find_if(
            config_.plugins, [&](const PluginSection& each) { return each.kind == kind && each.name == name; });
        if (section == config_.plugins.end()) {
            section = config_.plugins.insert(section, {std::string(kind), std::string(name), variable.origin, {}});
        }
        const auto stronger = std::ranges::find_if(
            section->entries, [&](const IniEntry& entry) { return entry.origin.source > variable.origin.source; });
        section->entries.insert(stronger, {std::string(key), variable.value, variable.origin});
    }

    static const pluginhost::PluginKey* findKey(const pluginhost::PluginInfo& plugin, std::string_view name) {
        const auto key = std::ranges::find(plugin.keys, name, &pluginhost::PluginKey::key);
        return key == plugin.keys.end() ? nullptr : &*key;
    }

    void checkSection(const PluginSection& section) {
        if (const auto* plugin = find(section.kind, section.name)) {
            checkEntries(section, *plugin);
            return;
        }
        // A refused library keeps its section: what refused it is said elsewhere, and is the thing to mend.
        if (isThere(section.title())) return;
        problems_.push_back({section.origin, "[" + section.title() + "]",
                             "there is no such plugin in " + config_.paths.pluginDir.string(),
                             nearestWord(section.title(), titles_)});
    }

    void checkEntries(const PluginSection& section, const pluginhost::PluginInfo& plugin) {
        std::vector<std::string> known;
        for (const pluginhost::PluginKey& key : plugin.keys) known.push_back(key.key);
        for (const IniEntry& entry : section.entries) {
            const std::string where = section.title() + "." + entry.key;
            const pluginhost::PluginKey* const key = findKey(plugin, entry.key);
            if (key == nullptr) {
                problems_.push_back({entry.origin, where, "unknown key", nearestWord(entry.key, known)});
                continue;
            }
            try {
                Settings::check(key->type, entry.value);
            } catch (const Error& error) {
                problems_.push_back({entry.origin, where, error.what() + hintFor(entry.value), {}});
            }
        }
    }

    void checkSelected(const std::string& kind, const std::string& name) {
        const pluginhost::PluginInfo* const plugin = find(kind, name);
        if (plugin == nullptr) {
            const std::string where = "backends." + kind;
            const Origin& origin = config_.origins.at(where);
            // Loading it says why.
            if (isThere(kind + "." + name) || origin.kind == Origin::Kind::Default) return;
            std::vector<std::string> ofKind;
            for (const pluginhost::PluginInfo& each : found_) {
                if (each.kind == kind) ofKind.push_back(each.name);
            }
            problems_.push_back(
                {origin, where, "there is no " + kind + " plugin '" + name + "' in " + config_.paths.pluginDir.string(),
                 nearestWord(name, ofKind)});
            return;
        }
        const PluginSection* const section = config_.findPlugin(kind, name);
        for (const pluginhost::PluginKey& key : plugin->keys) {
            if (!key.required || (section != nullptr && section->find(key.key) != nullptr)) continue;
            problems_.push_back({section == nullptr ? Origin{} : section->origin,
                                 kind + "." + name + "." + key.key,
                                 "must be given: " + key.sentence,
                                 {}});
        }
    }

    ServerConfig& config_;
    const std::span<const pluginhost::PluginInfo> found_;
    Problems& problems_;
    Notes& notes_;
    std::vector<std::string> titles_;  // "kind.name" of all that were found
};

}  // namespace

std::string variableFor(std::string_view section, std::string_view key) {
    std::string name = "MERGEN_" + std::string(section) + "_" + std::string(key);
    for (char& c : name) {
        const auto byte = static_cast<unsigned char>(c);
        c = std::isalnum(byte) != 0 ? static_cast<char>(std::toupper(byte)) : '_';
    }
    return name;
}

bool isOldPluginVariable(std::string_view name) {
    return std::ranges::find(oldNames, name, &OldName::variable) != oldNames.end();
}

void resolvePlugins(ServerConfig& config, std::span<const pluginhost::PluginInfo> found, Problems& problems,
                    Notes& notes) {
    Resolver(config, found, problems, notes).run();
}

}  // namespace mergen::server
