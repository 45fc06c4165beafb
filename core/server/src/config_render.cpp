#include <algorithm>

#include <mergen/base/text.hpp>
#include <mergen/server/config.hpp>

namespace mergen::server {

namespace {

std::string comment(const std::string& text) {
    constexpr std::size_t longest = 4200;  // a path's PATH_MAX and a line number
    return "# " + printable(text, longest) + "\n";
}

std::string assignment(const std::string& key, const std::string& value) {
    return key + (value.empty() ? " =" : " = " + value) + "\n";
}

/// One plugin's section: what is given, and if it was found, what is not.
std::string renderPlugin(const std::string& title, const PluginSection* given,
                         const std::vector<pluginhost::PluginKey>* keys) {
    std::string text = "\n[" + title + "]\n";
    const auto value = [given](const std::string& key) { return given == nullptr ? nullptr : given->find(key); };
    if (keys == nullptr) {
        for (const auto& [key, setting] : given->settings()) {
            text += comment(describe(value(key)->origin)) + assignment(key, setting);
        }
        return text;
    }
    for (const pluginhost::PluginKey& key : *keys) {
        if (const IniEntry* entry = value(key.key)) {
            text += comment(describe(entry->origin)) + assignment(key.key, entry->value);
        } else if (key.required) {
            text += comment("not given; must be, if this plugin is selected") + "#" + key.key + " =\n";
        } else {
            text += comment(describe(Origin{})) + assignment(key.key, key.defaultValue);
        }
    }
    return text;
}

}  // namespace

std::string render(const ServerConfig& config, std::span<const pluginhost::PluginInfo> found) {
    std::string text;
    std::string section;
    for (const ConfigKey& key : configKeys()) {
        if (key.section != section) {
            section = key.section;
            text += (text.empty() ? "[" : "\n[") + section + "]\n";
        }
        text += comment(describe(config.origins.at(key.path()))) + assignment(key.key, key.write(config));
    }
    std::vector<std::string> done;
    for (const pluginhost::PluginInfo& plugin : found) {
        if (plugin.state == pluginhost::PluginState::Failed || plugin.keys.empty()) continue;
        done.push_back(plugin.kind + "." + plugin.name);
        text += renderPlugin(done.back(), config.findPlugin(plugin.kind, plugin.name), &plugin.keys);
    }
    for (const PluginSection& given : config.plugins) {
        if (std::ranges::find(done, given.title()) == done.end()) text += renderPlugin(given.title(), &given, nullptr);
    }
    return text;
}

}  // namespace mergen::server
