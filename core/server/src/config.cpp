#include <algorithm>
#include <array>
#include <optional>
#include <set>
#include <utility>

#include <mergen/api/access.hpp>
#include <mergen/base/file.hpp>
#include <mergen/base/text.hpp>
#include <mergen/sdk/error.hpp>
#include <mergen/sdk/plugin.hpp>
#include <mergen/server/config.hpp>

namespace mergen::server {

namespace fs = std::filesystem;

namespace {

constexpr std::array<std::string_view, 7> pluginKinds = {"storage", "supervisor", "network", "vmm",
                                                         "image",   "hooks",      "proxy"};

/// The longest name that is made below run_root, "/<uuid>/mergen.socket", has 51 bytes, and sun_path of unix(7) room
/// for 107 and a NUL.
constexpr std::size_t maxSocketBytes = 107;
constexpr std::size_t maxRunRootBytes = maxSocketBytes - 51;

/// What an operator who writes such a value may not know.
std::string hintFor(std::string_view value) {
    if (value.find(" #") != std::string_view::npos || value.find(" ;") != std::string_view::npos) {
        return " (a comment stands on a line of its own)";
    }
    if (value.starts_with('"') || value.starts_with('\'')) return " (values are written without quotes)";
    return {};
}

class ConfigParser {
public:
    ConfigParser(const Installation& installation, Problems& problems)
        : installation_(installation), problems_(problems) {}

    ServerConfig run(std::string_view text) {
        for (const ConfigKey& key : configKeys()) {
            if (std::ranges::find(sectionNames_, key.section) == sectionNames_.end())
                sectionNames_.push_back(key.section);
            key.read(config_, key.defaultValue);
        }
        // [backends] first: what it selects is what an unknown section may have meant.
        std::vector<IniSection> sections = parseIni(text, problems_);
        std::ranges::stable_partition(sections, [](const IniSection& section) { return section.name == "backends"; });
        for (IniSection& section : sections) readSection(section);
        resolveDefaults();
        checkTogether();
        sortByLine(problems_);
        return std::move(config_);
    }

private:
    void readSection(IniSection& section) {
        if (std::ranges::find(sectionNames_, section.name) != sectionNames_.end()) {
            for (const IniEntry& entry : section.entries) readEntry(section.name, entry);
            return;
        }
        const std::size_t dot = section.name.find('.');
        const std::string kind = section.name.substr(0, dot);
        const bool isKind = std::ranges::find(pluginKinds, kind) != pluginKinds.end();
        if (dot != std::string::npos && isKind) {
            config_.plugins.push_back({kind, section.name.substr(dot + 1), section.line, std::move(section.entries)});
            return;
        }
        std::vector<std::string> candidates = sectionNames_;
        std::string suggestion;
        for (const auto& [backendKind, backendName] : config_.backends.all()) {
            candidates.push_back(backendKind + "." + backendName);
            if (section.name == backendKind) suggestion = candidates.back();
        }
        if (suggestion.empty()) suggestion = nearestWord(section.name, candidates);
        problems_.push_back({section.line, "[" + section.name + "]", "unknown section", suggestion});
    }

    void readEntry(const std::string& section, const IniEntry& entry) {
        const std::string where = section + "." + entry.key;
        const auto keys = configKeys();
        const auto known = std::ranges::find_if(
            keys, [&](const ConfigKey& key) { return key.section == section && key.key == entry.key; });
        if (known == keys.end()) {
            problems_.push_back({entry.line, where, "unknown key", nearestKey(section, entry.key)});
            return;
        }
        config_.lines[where] = entry.line;
        try {
            known->read(config_, entry.value);
        } catch (const Error& error) {
            faulty_.insert(where);
            problems_.push_back({entry.line, where, error.what() + hintFor(entry.value), {}});
        }
    }

    /// Of the same section; else the key of that very name in another one.
    static std::string nearestKey(const std::string& section, const std::string& word) {
        std::vector<std::string> candidates;
        for (const ConfigKey& key : configKeys()) {
            if (key.section == section) candidates.push_back(key.key);
        }
        if (std::string near = nearestWord(word, candidates); !near.empty()) return near;
        for (const ConfigKey& key : configKeys()) {
            if (key.key == word) return key.section + "." + key.key;
        }
        return {};
    }

    void resolveDefaults() {
        PathsSection& paths = config_.paths;
        if (paths.imageRoots.empty()) paths.imageRoots = {paths.dataRoot / "images"};
        if (paths.pluginDir.empty()) paths.pluginDir = installation_.pluginDir;
        if (paths.libexecDir.empty()) paths.libexecDir = installation_.libexecDir;
    }

    /// Rules over more than one key. A key that was refused alone is left out: its value here is the default.
    void checkTogether() {
        const NetworkSection& network = config_.network;
        if (sound({"network.port_start", "network.port_end"}) && network.portStart > network.portEnd) {
            problem({"network.port_end", "network.port_start"},
                    std::to_string(network.portEnd) + " is less than port_start, " + std::to_string(network.portStart));
        }
        const VmSection& vm = config_.vm;
        if (sound({"vm.uid_start", "vm.uid_count"})) {
            const std::uint64_t last = std::uint64_t{vm.uidStart} + vm.uidCount - 1;
            if (last >= 0xffffffffU) {
                problem({"vm.uid_count", "vm.uid_start"}, "uid_start + uid_count leaves the 32 bits of a uid");
            } else if (vm.uidStart <= 65535 && last >= 65534) {
                problem({"vm.uid_start", "vm.uid_count"}, "the uids from " + std::to_string(vm.uidStart) + " to " +
                                                              std::to_string(last) +
                                                              " include 65534, nobody, or 65535");
            }
        }
        checkAccess();
        checkRoots();
    }

    void checkAccess() {
        const ServerSection& server = config_.server;
        if (sound({"server.listen", "server.token_file", "server.insecure"}) && !server.listen.host.empty()) {
            try {
                api::requireAccessControl(server.listen.host, !server.tokenFile.empty(), server.insecure);
            } catch (const Error& error) {
                problem({"server.listen"}, error.what());
            }
        }
        if (sound({"server.listen", "server.socket"}) && server.listen.host.empty() && server.socket.empty()) {
            problem({"server.listen", "server.socket"}, "there is nothing to listen on, as socket is empty, too");
        }
        if (sound({"server.listen", "server.port_file"}) && server.listen.host.empty() && !server.portFile.empty()) {
            problem({"server.port_file"}, "there is no port to write, as listen is empty");
        }
        const std::size_t bytes = config_.socketPath().native().size();
        if (sound({"server.socket"}) && server.socket != "auto" && bytes > maxSocketBytes) {
            problem({"server.socket"},
                    "the socket's path has " + std::to_string(bytes) + " bytes; at most 107 are possible");
        }
    }

    void checkRoots() {
        const PathsSection& paths = config_.paths;
        const std::array<std::pair<std::string, const fs::path*>, 3> roots = {{{"paths.config_root", &paths.configRoot},
                                                                               {"paths.data_root", &paths.dataRoot},
                                                                               {"paths.run_root", &paths.runRoot}}};
        for (const auto& [key, path] : roots) {
            if (*path == "/") problem({key}, "the root folder of the host cannot be it");
            for (const auto& [otherKey, otherPath] : roots) {
                // Each VM has a folder named by its id below each root; a root in there could be taken for a VM's.
                if (key == otherKey || !sound({key, otherKey}) || !isWithin(*path, *otherPath)) continue;
                if (*path == *otherPath && key > otherKey) continue;  // said once
                problem({key, otherKey}, path->string() + (*path == *otherPath ? " is also " : " lies within ") +
                                             otherKey + ": each needs a folder of its own");
            }
        }
        if (sound({"paths.run_root"}) && paths.runRoot.native().size() > maxRunRootBytes) {
            problem({"paths.run_root"}, "has " + std::to_string(paths.runRoot.native().size()) + " bytes, at most " +
                                            std::to_string(maxRunRootBytes) +
                                            " are possible: the path of a unix socket below it ends at 107");
        }
        if (!sound({"paths.image_roots"})) return;
        for (const fs::path& image : paths.imageRoots) {
            for (const auto& [key, path] : roots) {
                if (!sound({key}) || !isWithin(*path, image)) continue;
                problem({"paths.image_roots", key}, image.string() + " includes " + key +
                                                        ": a VM could be made from the disks and records of others");
            }
        }
    }

    static bool isWithin(const fs::path& inner, const fs::path& outer) {
        return std::mismatch(outer.begin(), outer.end(), inner.begin(), inner.end()).first == outer.end();
    }

    [[nodiscard]] bool sound(std::initializer_list<std::string> keys) const {
        return std::ranges::none_of(keys, [this](const std::string& key) { return faulty_.contains(key); });
    }

    /// About the first of `keys` that stands in the file.
    void problem(std::initializer_list<std::string> keys, std::string reason) {
        for (const std::string& key : keys) {
            if (const auto line = config_.lines.find(key); line != config_.lines.end()) {
                problems_.push_back({line->second, key, std::move(reason), {}});
                return;
            }
        }
        problems_.push_back({0, *keys.begin(), std::move(reason), {}});
    }

    const Installation& installation_;
    Problems& problems_;
    ServerConfig config_;
    std::vector<std::string> sectionNames_;
    std::set<std::string> faulty_;  // "section.key" whose value was refused
};

void checkEntries(const PluginSection& section, const pluginhost::PluginInfo& plugin, Problems& problems) {
    std::vector<std::string> known;
    for (const pluginhost::PluginKey& key : plugin.keys) known.push_back(key.key);
    for (const IniEntry& entry : section.entries) {
        const std::string where = section.kind + "." + section.name + "." + entry.key;
        const auto key = std::ranges::find(plugin.keys, entry.key, &pluginhost::PluginKey::key);
        if (key == plugin.keys.end()) {
            problems.push_back({entry.line, where, "unknown key", nearestWord(entry.key, known)});
            continue;
        }
        try {
            Settings::check(key->type, entry.value);
        } catch (const Error& error) {
            problems.push_back({entry.line, where, error.what() + hintFor(entry.value), {}});
        }
    }
}

}  // namespace

std::vector<std::pair<std::string, std::string>> BackendsSection::all() const {
    std::vector<std::pair<std::string, std::string>> result = {
        {"storage", storage}, {"supervisor", supervisor}, {"network", network}};
    for (const std::string& vmm : vmms) result.emplace_back("vmm", vmm);
    return result;
}

std::map<std::string, std::string, std::less<>> PluginSection::settings() const {
    std::map<std::string, std::string, std::less<>> result;
    for (const IniEntry& entry : entries) result.emplace(entry.key, entry.value);
    return result;
}

fs::path ServerConfig::socketPath() const {
    return server.socket == "auto" ? paths.runRoot / "mergend.sock" : server.socket;
}

const PluginSection* ServerConfig::findPlugin(std::string_view kind, std::string_view name) const {
    for (const PluginSection& section : plugins) {
        if (section.kind == kind && section.name == name) return &section;
    }
    return nullptr;
}

std::map<std::string, std::string, std::less<>> ServerConfig::settingsOf(std::string_view kind,
                                                                         std::string_view name) const {
    const PluginSection* const section = findPlugin(kind, name);
    return section == nullptr ? decltype(section->settings()){} : section->settings();
}

Installation Installation::around(const fs::path& program) {
    const fs::path own = program.parent_path();
    const fs::path prefix = own.parent_path();
    std::error_code ignored;
    const fs::path installed = prefix / "libexec" / "mergen";
    return {prefix / "lib" / "mergen" / "plugins", fs::is_directory(installed, ignored) ? installed : own};
}

Installation Installation::current() {
    return around(fs::read_symlink("/proc/self/exe"));
}

ServerConfig parseConfig(std::string_view text, const Installation& installation, Problems& problems) {
    return ConfigParser(installation, problems).run(text);
}

void checkPluginSections(const ServerConfig& config, std::span<const pluginhost::PluginInfo> found,
                         Problems& problems) {
    std::vector<std::string> names;
    for (const pluginhost::PluginInfo& plugin : found) names.push_back(plugin.kind + "." + plugin.name);
    const auto find = [&](const std::string& kind, const std::string& name) {
        return std::ranges::find_if(found, [&](const pluginhost::PluginInfo& plugin) {
            return plugin.kind == kind && plugin.name == name && plugin.state != pluginhost::PluginState::Failed;
        });
    };
    for (const PluginSection& section : config.plugins) {
        const std::string name = section.kind + "." + section.name;
        if (const auto plugin = find(section.kind, section.name); plugin != found.end()) {
            checkEntries(section, *plugin, problems);
            continue;
        }
        // A refused library keeps its section: what refused it is said elsewhere, and is the thing to mend.
        if (std::ranges::find(names, name) != names.end()) continue;
        problems.push_back({section.line, "[" + name + "]",
                            "there is no such plugin in " + config.paths.pluginDir.string(), nearestWord(name, names)});
    }
    for (const auto& [kind, name] : config.backends.all()) {
        const auto plugin = find(kind, name);
        if (plugin == found.end()) {
            const auto line = config.lines.find("backends." + kind);
            const bool refused = std::ranges::find(names, kind + "." + name) != names.end();
            if (refused || line == config.lines.end()) continue;  // loading it says why
            std::vector<std::string> ofKind;
            for (const pluginhost::PluginInfo& each : found) {
                if (each.kind == kind) ofKind.push_back(each.name);
            }
            problems.push_back({line->second, "backends." + kind,
                                "there is no " + kind + " plugin '" + name + "' in " + config.paths.pluginDir.string(),
                                nearestWord(name, ofKind)});
            continue;
        }
        const PluginSection* const section = config.findPlugin(kind, name);
        for (const pluginhost::PluginKey& key : plugin->keys) {
            if (!key.required) continue;
            if (section != nullptr &&
                std::ranges::find(section->entries, key.key, &IniEntry::key) != section->entries.end()) {
                continue;
            }
            problems.push_back({section == nullptr ? 0 : section->line,
                                kind + "." + name + "." + key.key,
                                "must be given: " + key.sentence,
                                {}});
        }
    }
    sortByLine(problems);
}

std::string render(const ServerConfig& config) {
    std::string text;
    std::string section;
    for (const ConfigKey& key : configKeys()) {
        if (key.section != section) {
            section = key.section;
            text += (text.empty() ? "[" : "\n[") + section + "]\n";
        }
        text += key.key + " = " + key.write(config) + "\n";
    }
    for (const PluginSection& plugin : config.plugins) {
        text += "\n[" + plugin.kind + "." + plugin.name + "]\n";
        for (const IniEntry& entry : plugin.entries) text += entry.key + " = " + entry.value + "\n";
    }
    return text;
}

std::string readConfigFile(const fs::path& file) {
    std::error_code error;
    const fs::path real = fs::canonical(file, error);  // readFile() follows no links
    if (error) throw Error::fromErrno(error.value(), "cannot read the configuration file " + file.string());
    auto content = readFile(real, maxIniBytes);
    if (!content) throw Error(ErrorKind::NotFound, "the configuration file " + file.string() + " has gone");
    return *std::move(content);
}

}  // namespace mergen::server
