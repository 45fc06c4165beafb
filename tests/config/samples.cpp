#include "samples.hpp"

#include <algorithm>
#include <sstream>

#include <mergen/base/text.hpp>
#include <mergen/sdk/error.hpp>

namespace mergen::server {

namespace {

using Pair = std::pair<const char*, const char*>;

/// Of keys whose type does not tell what they take, or that rules tie together.
const std::map<std::string, Pair, std::less<>>& ownSamples() {
    static const std::map<std::string, Pair, std::less<>> samples = {
        {"server.profile", {"mergen", "mergen"}},
        {"server.listen", {"[::1]:9001", "127.0.0.1:9002"}},
        {"server.socket_group", {"root", "0"}},
        {"log.level", {"debug", "warn"}},
        {"log.format", {"text", "text"}},
        {"network.guest_cidr", {"10.1.0.0/16", "10.2.0.0/24"}},
        {"network.port_start", {"1001", "2001"}},
        {"network.port_end", {"50001", "50002"}},
        {"vm.uid_start", {"100001", "200001"}},
        {"vm.unit_prefix", {"one", "two"}},
        // A plugin that is not there would be refused where the plugins are looked at.
        {"paths.plugin_dir", {"/nonexistent/one", "/nonexistent/two"}},
    };
    return samples;
}

const std::map<std::string, std::vector<Pair>, std::less<>>& samplesOfTypes() {
    static const std::map<std::string, std::vector<Pair>, std::less<>> samples = {
        {"integer", {{"101", "102"}, {"11", "12"}, {"10001", "10002"}}},
        {"duration", {{"7s", "8s"}, {"70ms", "80ms"}}},
        {"size", {{"64KiB", "128KiB"}, {"1GiB", "2GiB"}}},
        {"path", {{"/srv/one", "/srv/two"}}},
        {"paths", {{"/srv/x, /srv/y", "/srv/z"}}},
        {"name", {{"one", "two"}}},
        {"names", {{"one, two", "three"}}},
        {"boolean", {{"true", "true"}, {"false", "false"}}},
    };
    return samples;
}

bool takes(const ConfigKey& key, const std::string& value) {
    ServerConfig trial;
    try {
        key.read(trial, value);
    } catch (const Error&) {
        return false;
    }
    return key.write(trial) != key.defaultValue;
}

}  // namespace

std::string sample(const ConfigKey& key, bool second) {
    const auto choose = [second](const Pair& pair) { return std::string(second ? pair.second : pair.first); };
    if (const auto own = ownSamples().find(key.path()); own != ownSamples().end()) return choose(own->second);
    if (const auto pairs = samplesOfTypes().find(key.type); pairs != samplesOfTypes().end()) {
        for (const Pair& pair : pairs->second) {
            if (!takes(key, pair.first) || !takes(key, pair.second)) continue;
            // Folders must be apart from each other.
            return choose(pair) + (key.type == "path" ? "/" + key.key : "");
        }
    }
    ADD_FAILURE() << key.path() << " needs two values in ownSamples(), for tests";
    return {};
}

std::string badSample(const ConfigKey& key) {
    for (const char* const value : {"many", "No Such Thing", "/a/../b", "!", "relative"}) {
        ServerConfig trial;
        try {
            key.read(trial, value);
        } catch (const Error&) {
            return value;
        }
    }
    ADD_FAILURE() << key.path() << " takes anything";
    return {};
}

std::string sample(mergen_key_type type, bool second) {
    switch (type) {
        case MERGEN_KEY_INTEGER:
            return second ? "7" : "8";
        case MERGEN_KEY_BOOLEAN:
            return second ? "true" : "false";
        case MERGEN_KEY_DURATION:
            return second ? "7s" : "8s";
        case MERGEN_KEY_SIZE:
            return second ? "7KiB" : "8KiB";
        case MERGEN_KEY_STRING:
        case MERGEN_KEY_PATH:
            break;
    }
    return second ? "/srv/seven" : "/srv/eight";
}

std::string badSample(mergen_key_type type) {
    return type == MERGEN_KEY_STRING || type == MERGEN_KEY_PATH ? "" : "many";
}

std::map<std::string, Printed> readPrinted(const std::string& text) {
    std::map<std::string, Printed> result;
    std::istringstream stream(text);
    std::string section;
    std::string origin;
    for (std::string line; std::getline(stream, line);) {
        const std::size_t equals = line.find('=');
        if (line.starts_with("# ")) {
            origin = line.substr(2);
        } else if (line.starts_with('[')) {
            section = line.substr(1, line.size() - 2);
        } else if (!line.starts_with('#') && equals != std::string::npos) {
            const std::string key = section + "." + std::string(trim(line.substr(0, equals)));
            EXPECT_TRUE(result.emplace(key, Printed{std::string(trim(line.substr(equals + 1))), origin}).second) << key;
            origin.clear();
        }
    }
    return result;
}

std::map<std::string, Printed> printed(std::vector<std::string> arguments, const std::vector<std::string>& variables) {
    arguments.emplace_back("--print-config");
    const RunResult result = runMergend(std::move(arguments), variables);
    EXPECT_EQ(exitOf(result), 0) << result.errors;
    return readPrinted(result.output);
}

const std::vector<pluginhost::PluginInfo>& foundPlugins() {
    static const std::vector<pluginhost::PluginInfo> plugins = [] {
        const Installation installation = Installation::around(MERGEND);
        pluginhost::PluginHostConfig config;
        config.directory = installation.pluginDir;
        config.preflightProgram = installation.libexecDir / "mergen-preflight";
        config.preflightTimeout = patience;
        pluginhost::PluginHost host(config, nullLog());
        std::vector<pluginhost::PluginInfo> found = host.scan();
        for (const pluginhost::PluginInfo& plugin : found) {
            EXPECT_NE(plugin.state, pluginhost::PluginState::Failed) << plugin.detail;
        }
        return found;
    }();
    return plugins;
}

Configuration::Configuration(const std::string& text) : file_(dir_.write("m.ini", text)) {}

fs::path Configuration::add(const std::string& name, const std::string& text) const {
    fs::create_directory(dir_.path() / "conf.d");
    ::chmod((dir_.path() / "conf.d").c_str(), 0755);
    return dir_.write("conf.d/" + name, text);
}

std::vector<std::string> Configuration::arguments(std::vector<std::string> more) const {
    more.insert(more.begin(), {"--config", file_.string()});
    return more;
}

}  // namespace mergen::server
