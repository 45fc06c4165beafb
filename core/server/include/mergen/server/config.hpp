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
#include <mergen/server/ini.hpp>
#include <mergen/server/listen.hpp>
#include <mergen/server/log.hpp>
#include <mergen/server/problem.hpp>

/// The configuration of mergend: one INI file, parsed whole into the structs of this header, checked whole, then used.
namespace mergen::server {

/// `[server]`
struct ServerSection {
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
    std::filesystem::path configRoot, dataRoot, runRoot, pluginDir, libexecDir;
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
    Bytes consoleLimit;
    std::size_t eventsPerVm = 0;
    std::string unitPrefix;
};

/// `[backends]`: the name of the plugin of each kind.
struct BackendsSection {
    std::string storage, supervisor, network;
    std::vector<std::string> vmms;  ///< never empty; the first is for new VMs
    std::chrono::milliseconds preflightTimeout{};

    /// kind and name of all, in the order in which they start.
    [[nodiscard]] std::vector<std::pair<std::string, std::string>> all() const;
};

/// `[kind.name]`: what is given for one plugin. Its keys stand in the plugin's manifest: see checkPluginSections().
struct PluginSection {
    std::string kind, name;
    std::size_t line = 0;
    std::vector<IniEntry> entries;

    [[nodiscard]] std::map<std::string, std::string, std::less<>> settings() const;
};

struct ServerConfig {
    ServerSection server;
    LogSection log;
    PathsSection paths;
    NetworkSection network;
    VmSection vm;
    BackendsSection backends;
    std::vector<PluginSection> plugins;
    std::map<std::string, std::size_t, std::less<>> lines;  ///< "section.key" → where it stands in the file, if it does

    /// Where the API's unix socket is to stand; empty: there is none.
    [[nodiscard]] std::filesystem::path socketPath() const;
    /// The section of this plugin, or null if the file has none.
    [[nodiscard]] const PluginSection* findPlugin(std::string_view kind, std::string_view name) const;
    /// What is given for this plugin; empty if the file has no section for it.
    [[nodiscard]] std::map<std::string, std::string, std::less<>> settingsOf(std::string_view kind,
                                                                             std::string_view name) const;
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
};
[[nodiscard]] std::span<const ConfigKey> configKeys();

/// Where the program finds what was installed with it; the defaults of plugin_dir and libexec_dir.
struct Installation {
    std::filesystem::path pluginDir, libexecDir;

    /// Seen from the program's own place: <prefix>/bin/mergend has <prefix>/lib/mergen/plugins and
    /// <prefix>/libexec/mergen. In a build tree, where the latter is missing, the other programs are beside it.
    [[nodiscard]] static Installation around(const std::filesystem::path& program);
    /// Of this process.
    [[nodiscard]] static Installation current();
};

/// Reads the server's sections; appends everything that is wrong to `problems` and then gives a configuration that must
/// not be used. Sections of plugins are only collected. Looks at nothing but the text.
[[nodiscard]] ServerConfig parseConfig(std::string_view text, const Installation& installation, Problems& problems);

/// Compares the plugins' sections with what the plugins found declare: unknown plugin, unknown key, wrong type, a
/// setting that must be given and is not (of the selected plugins only).
void checkPluginSections(const ServerConfig& config, std::span<const pluginhost::PluginInfo> found, Problems& problems);

/// The whole configuration as an INI text that parses to the same one.
[[nodiscard]] std::string render(const ServerConfig& config);

/// A configuration file's text. A link to it is followed. Throws Error that names the file.
[[nodiscard]] std::string readConfigFile(const std::filesystem::path& file);

}  // namespace mergen::server
