#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <mergen/pluginhost/plugin_host.hpp>
#include <mergen/sdk/log.hpp>
#include <mergen/sdk/types.hpp>
#include <mergen/server/config_input.hpp>
#include <mergen/server/ini.hpp>
#include <mergen/server/listen.hpp>
#include <mergen/server/log.hpp>
#include <mergen/server/problem.hpp>

/// The configuration of mergend: files, environment and command line, parsed whole into the structs of this header,
/// checked whole, then used.
namespace mergen::server {

/// Whose defaults hold.
enum class Profile : std::uint8_t { MergenFire, Mergen };
[[nodiscard]] std::string_view toString(Profile profile) noexcept;

/// `[server]`
struct ServerSection {
    Profile profile = Profile::MergenFire;
    ListenAddress listen;
    unsigned threads = 0;
    std::size_t maxQueued = 0;
    Bytes maxBody;
    std::chrono::milliseconds readTimeout{};
    std::chrono::milliseconds drainTimeout{};
    std::filesystem::path portFile;   ///< empty: none
    std::filesystem::path socket;     ///< as it is written: absolute, "auto" or empty; see socketPath()
    std::string socketGroup;          ///< name or number; empty: the server's own
    std::filesystem::path tokenFile;  ///< empty: none
    bool insecure = false;
};

/// `[log]`
struct LogSection {
    LogLevel level = LogLevel::Info;
    LogFormat format = LogFormat::Json;
};

/// `[paths]`
struct PathsSection {
    std::filesystem::path configRoot, dataRoot, runRoot, globalHooksDir, pluginDir, libexecDir;
    std::vector<std::filesystem::path> imageRoots;
};

/// `[network]`
struct NetworkSection {
    Ipv4Network guestCidr = Ipv4Network::parse("172.30.0.0/24");
    std::uint16_t portStart = 0, portEnd = 0;
};

/// `[vm]`
struct VmSection {
    std::size_t maxVms = 0;
    std::uint32_t uidStart = 0, uidCount = 0;
    std::chrono::milliseconds startTimeout{}, stopGrace{}, killGrace{}, controlTimeout{};
    std::chrono::milliseconds probeInterval{}, probeTimeout{};
    unsigned probeFailures = 0;
    Bytes consoleLimit;
    std::size_t eventsPerVm = 0;
    std::string unitPrefix;
};

/// `[backends]`: the name of the plugin of each kind.
struct BackendsSection {
    std::string storage, supervisor, network;
    std::vector<std::string> vmms;  ///< never empty; the first is for new VMs; "auto" stands alone
    std::chrono::milliseconds preflightTimeout{};

    /// The server chooses the VMM.
    [[nodiscard]] bool vmmAuto() const { return vmms == std::vector<std::string>{"auto"}; }
    /// kind and name of all that are named, in the order in which they start; see pluginsToLoad().
    [[nodiscard]] std::vector<std::pair<std::string, std::string>> all() const;
};

/// `[kind.name]`: what is given for one plugin. Its keys stand in the plugin's manifest: see resolvePlugins().
struct PluginSection {
    std::string kind, name;
    Origin origin;  ///< where the plugin is named first
    /// From all origins, in the order of reading: the last one of a key holds.
    std::vector<IniEntry> entries;

    [[nodiscard]] std::string title() const { return kind + "." + name; }
    /// The one that holds, or null if the key is not given.
    [[nodiscard]] const IniEntry* find(std::string_view key) const;
    [[nodiscard]] std::map<std::string, std::string, std::less<>> settings() const;
};

/// A variable of the environment that may be a plugin's setting: which one, only the plugins found can tell.
struct PendingVariable {
    Origin origin;
    std::string value;
};

struct ServerConfig {
    ServerSection server;
    LogSection log;
    PathsSection paths;
    NetworkSection network;
    VmSection vm;
    BackendsSection backends;
    std::vector<PluginSection> plugins;
    std::map<std::string, Origin, std::less<>> origins;  ///< of each key's value, by ConfigKey::path()
    std::vector<PendingVariable> pending;                ///< empty after resolvePlugins()

    /// Where the API's unix socket is to stand; empty: there is none.
    [[nodiscard]] std::filesystem::path socketPath() const;
    /// The section of this plugin, or null if nothing is given for it.
    [[nodiscard]] const PluginSection* findPlugin(std::string_view kind, std::string_view name) const;
    /// What is given for this plugin; empty if nothing is.
    [[nodiscard]] std::map<std::string, std::string, std::less<>> settingsOf(std::string_view kind,
                                                                             std::string_view name) const;
};

/// What only some keys have.
struct KeyTraits {
    /// The variable's name in the older programs; if it ends with _SECONDS, its value has no unit.
    const char* oldVariable = nullptr;
    /// The default under `profile = mergen`, where it is another.
    const char* mergenDefault = nullptr;
    /// The folder's name below MERGEN_STATE_DIR.
    const char* belowStateDir = nullptr;
    /// Whether a SIGHUP puts a new value in force; the others wait for the next start.
    bool reloadable = false;
};

/// One key of the server's own sections: the only place where its type, default, bounds and meaning stand. The reader,
/// the printer, `--help` and the test that compares config/mergen.ini all go by it.
struct ConfigKey {
    std::string section, key;
    std::string type;                                             ///< "duration", "port", ...
    std::string defaultValue;                                     ///< as it would stand in the file
    std::string sentence;                                         ///< what it means, its unit and its bounds
    std::function<void(ServerConfig&, const std::string&)> read;  ///< throws Error(InvalidArgument) with the rule
    std::function<std::string(const ServerConfig&)> write;        ///< the value as read() takes it
    KeyTraits traits{};

    /// "section.key"
    [[nodiscard]] std::string path() const { return section + "." + key; }
    /// MERGEN_<SECTION>_<KEY>
    [[nodiscard]] std::string variable() const;
    /// The sentence and what the traits add to it: as `--help` and config/mergen.ini have it.
    [[nodiscard]] std::string explanation() const;
};
[[nodiscard]] std::span<const ConfigKey> configKeys();

/// The environment variable of a setting of `section`, which for a plugin is "kind.name": MERGEN_ and both in upper
/// case, each character that is neither letter nor digit as '_'. Two settings can share one: see resolvePlugins().
[[nodiscard]] std::string variableFor(std::string_view section, std::string_view key);

/// Where the program finds what was installed with it; the defaults of plugin_dir and libexec_dir.
struct Installation {
    std::filesystem::path pluginDir, libexecDir;

    /// Seen from the program's own place: <prefix>/bin/mergend has <prefix>/lib/mergen/plugins and
    /// <prefix>/libexec/mergen. In a build tree, where the latter is missing, the other programs are beside it.
    [[nodiscard]] static Installation around(const std::filesystem::path& program);
    /// Of this process.
    [[nodiscard]] static Installation current();
};

/// Reads the server's sections from all layers: default < profile < file < conf.d < environment < --set. Appends
/// everything that is wrong to `problems`, in the order of reading, and then gives a configuration that must not be
/// used. A bad value is a problem also where another one replaces it, save in a variable of the older programs (MGR_…):
/// it is passed over with a note. Settings of plugins are only collected. Looks at nothing but `input`.
[[nodiscard]] ServerConfig parseConfig(const ConfigInput& input, const Installation& installation, Problems& problems,
                                       Notes& notes);

/// Brings what is given for plugins together with what the plugins found declare: gives the pending variables their
/// meaning, then looks for unknown plugins, unknown keys, wrong types, and a setting that must be given and is not (of
/// the selected plugins only). A variable that two settings could mean is a problem, one that none means a note.
void resolvePlugins(ServerConfig& config, std::span<const pluginhost::PluginInfo> found, Problems& problems,
                    Notes& notes);

/// The whole configuration as an INI text that parses to the same one; before each value, as a comment, its origin.
/// With every setting of the plugins in `found`.
[[nodiscard]] std::string render(const ServerConfig& config, std::span<const pluginhost::PluginInfo> found = {});

}  // namespace mergen::server
