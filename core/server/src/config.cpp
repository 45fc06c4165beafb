#include <algorithm>
#include <array>
#include <iterator>
#include <optional>
#include <set>
#include <utility>

#include <mergen/api/access.hpp>
#include <mergen/base/file.hpp>
#include <mergen/base/text.hpp>
#include <mergen/sdk/error.hpp>
#include <mergen/server/config.hpp>

#include "environment.hpp"
#include "findings.hpp"

namespace mergen::server {

namespace fs = std::filesystem;

namespace {

constexpr std::array<std::string_view, 7> pluginKinds = {"storage", "supervisor", "network", "vmm",
                                                         "image",   "hooks",      "proxy"};

/// The longest name that is made below run_root, "/<uuid>/mergen.socket", has 51 bytes, and sun_path of unix(7) room
/// for 107 and a NUL.
constexpr std::size_t maxSocketBytes = 107;
constexpr std::size_t maxRunRootBytes = maxSocketBytes - 51;

class ConfigParser {
public:
    ConfigParser(const Installation& installation, Problems& problems, Notes& notes)
        : installation_(installation), problems_(problems), notes_(notes) {}

    ServerConfig run(const ConfigInput& input) {
        std::vector<IniSection> sections = readLayers(input);
        readDefaults(sections);
        // [backends] first: what it selects is what an unknown section may have meant.
        std::ranges::stable_partition(sections, [](const IniSection& section) { return section.name == "backends"; });
        for (IniSection& section : sections) readSection(section);
        noteLoopback();
        resolveDefaults();
        checkTogether();
        sortByOrigin(problems_);
        return std::move(config_);
    }

private:
    /// All that is given, from what is weakest to what wins.
    std::vector<IniSection> readLayers(const ConfigInput& input) {
        std::size_t source = 0;
        std::vector<IniSection> all;
        const auto append = [&all](std::vector<IniSection> sections) {
            std::ranges::move(sections, std::back_inserter(all));
        };
        for (const ConfigInput::File& file : input.files) {
            append(parseIni(file.text, {Origin::Kind::File, file.path.string(), 0, ++source}, problems_));
        }
        append(readEnvironment(input, ++source, config_.pending, problems_, notes_));
        ++source;
        for (const std::string& assignment : input.assignments) readAssignment(assignment, source, all);
        return all;
    }

    /// "section.key=value"; the section of a plugin has a '.' itself.
    void readAssignment(const std::string& text, std::size_t source, std::vector<IniSection>& all) {
        const Origin origin{Origin::Kind::CommandLine, {}, 0, source};
        const std::size_t equals = text.find('=');
        const std::string path(trim(std::string_view(text).substr(0, equals)));
        const std::size_t dot = path.rfind('.');
        if (equals == std::string::npos || dot == std::string::npos) {
            problems_.push_back({origin, {}, "'" + printable(text) + "' is not section.key=value", {}});
            return;
        }
        const std::string value(trim(std::string_view(text).substr(equals + 1)));
        if (!checkOutsideValue(value, origin, path, problems_, notes_)) return;
        all.push_back({path.substr(0, dot), origin, {{path.substr(dot + 1), value, origin}}});
    }

    void readDefaults(const std::vector<IniSection>& sections) {
        for (const ConfigKey& key : configKeys()) {
            if (std::ranges::find(sectionNames_, key.section) == sectionNames_.end())
                sectionNames_.push_back(key.section);
            key.read(config_, key.defaultValue);
            config_.origins[key.path()] = {};
        }
        const Profile profile = chosenProfile(sections);
        if (profile != Profile::Mergen) return;
        for (const ConfigKey& key : configKeys()) {
            if (key.traits.mergenDefault == nullptr) continue;
            key.read(config_, key.traits.mergenDefault);
            config_.origins[key.path()] = {Origin::Kind::Profile, std::string(toString(profile)), 0, 0};
        }
    }

    /// Looked for first, as the defaults depend on it. A value that is none is said when its section is read.
    static Profile chosenProfile(const std::vector<IniSection>& sections) {
        ServerConfig trial;
        for (const IniSection& section : sections) {
            for (const IniEntry& entry : section.entries) {
                if (section.name != "server" || entry.key != "profile") continue;
                try {
                    findKey(section.name, entry.key)->read(trial, entry.value);
                } catch (const Error&) {
                    continue;
                }
            }
        }
        return trial.server.profile;
    }

    void readSection(IniSection& section) {
        if (std::ranges::find(sectionNames_, section.name) != sectionNames_.end()) {
            for (const IniEntry& entry : section.entries) readEntry(section.name, entry);
            return;
        }
        const std::size_t dot = section.name.find('.');
        const std::string kind = section.name.substr(0, dot);
        const bool isKind = std::ranges::find(pluginKinds, kind) != pluginKinds.end();
        if (dot != std::string::npos && isKind) {
            addPlugin(kind, section.name.substr(dot + 1), section);
            return;
        }
        std::vector<std::string> candidates = sectionNames_;
        std::string suggestion;
        for (const auto& [backendKind, backendName] : config_.backends.all()) {
            candidates.push_back(backendKind + "." + backendName);
            if (section.name == backendKind) suggestion = candidates.back();
        }
        if (suggestion.empty()) suggestion = nearestWord(section.name, candidates);
        problems_.push_back({section.origin, "[" + section.name + "]", "unknown section", suggestion});
    }

    void addPlugin(const std::string& kind, const std::string& name, IniSection& section) {
        const auto known = std::ranges::find_if(
            config_.plugins, [&](const PluginSection& plugin) { return plugin.kind == kind && plugin.name == name; });
        if (known == config_.plugins.end()) {
            config_.plugins.push_back({kind, name, section.origin, std::move(section.entries)});
        } else {
            std::ranges::move(section.entries, std::back_inserter(known->entries));
        }
    }

    void readEntry(const std::string& section, const IniEntry& entry) {
        const std::string where = section + "." + entry.key;
        const ConfigKey* const known = findKey(section, entry.key);
        if (known == nullptr) {
            problems_.push_back({entry.origin, where, "unknown key", nearestKey(section, entry.key)});
            return;
        }
        try {
            known->read(config_, entry.value);
            config_.origins[where] = entry.origin;
            if (where == "server.listen") listenText_ = entry.value;
        } catch (const Error& error) {
            const std::string reason = error.what() + hintFor(entry.value);
            if (!entry.origin.strict()) {
                notes_.push_back(ignoredValue(entry.origin, where, reason));
                return;
            }
            faulty_.insert(where);
            problems_.push_back({entry.origin, where, reason, {}});
        }
    }

    /// Elsewhere ":8080" means every address of the host.
    void noteLoopback() {
        if (!listenText_.starts_with(':')) return;
        notes_.push_back(
            {LogLevel::Info, "config.listen.loopback", config_.origins.at("server.listen"),
             "server.listen: '" + listenText_ + "' means loopback only, " + toString(config_.server.listen)});
    }

    static const ConfigKey* findKey(std::string_view section, std::string_view name) {
        for (const ConfigKey& key : configKeys()) {
            if (key.section == section && key.key == name) return &key;
        }
        return nullptr;
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
        const std::vector<std::string>& vmms = config_.backends.vmms;
        if (vmms.size() > 1 && std::ranges::find(vmms, "auto") != vmms.end())
            problem({"backends.vmm"}, "auto stands alone: it chooses among the VMMs that there are");
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

    /// About the first of `keys` that is given.
    void problem(std::initializer_list<std::string> keys, std::string reason) {
        for (const std::string& key : keys) {
            const Origin& origin = config_.origins.at(key);
            if (origin.kind <= Origin::Kind::Profile) continue;
            problems_.push_back({origin, key, std::move(reason), {}});
            return;
        }
        problems_.push_back({{}, *keys.begin(), std::move(reason), {}});
    }

    const Installation& installation_;
    Problems& problems_;
    Notes& notes_;
    ServerConfig config_;
    std::vector<std::string> sectionNames_;
    std::string listenText_;        // of server.listen, as it is given
    std::set<std::string> faulty_;  // "section.key" whose value was refused
};

}  // namespace

std::vector<std::pair<std::string, std::string>> BackendsSection::all() const {
    std::vector<std::pair<std::string, std::string>> result = {
        {"storage", storage}, {"supervisor", supervisor}, {"network", network}};
    if (vmmAuto()) return result;
    for (const std::string& vmm : vmms) result.emplace_back("vmm", vmm);
    return result;
}

const IniEntry* PluginSection::find(std::string_view key) const {
    const IniEntry* last = nullptr;
    for (const IniEntry& entry : entries) {
        if (entry.key == key) last = &entry;
    }
    return last;
}

std::map<std::string, std::string, std::less<>> PluginSection::settings() const {
    std::map<std::string, std::string, std::less<>> result;
    for (const IniEntry& entry : entries) result[entry.key] = entry.value;
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

ServerConfig parseConfig(const ConfigInput& input, const Installation& installation, Problems& problems, Notes& notes) {
    return ConfigParser(installation, problems, notes).run(input);
}

}  // namespace mergen::server
