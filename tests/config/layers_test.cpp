// Every key by every way in which it can be given.
#include <array>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <mergen/base/text.hpp>

#include "samples.hpp"

namespace mergen::server {
namespace {

using testing::HasSubstr;

/// In the order in which one replaces another.
enum class Layer { Default, File, ConfDir, Environment, CommandLine };
constexpr std::array<Layer, 4> layers = {Layer::File, Layer::ConfDir, Layer::Environment, Layer::CommandLine};

/// What is given in one layer: each setting, "section.key", with its value.
using Given = std::map<std::string, std::string>;

std::string iniText(const Given& given) {
    std::map<std::string, std::string> sections;
    for (const auto& [path, value] : given) {
        const std::size_t dot = path.rfind('.');
        sections[path.substr(0, dot)] += path.substr(dot + 1) + " = " + value + "\n";
    }
    std::string text;
    for (const auto& [section, lines] : sections) text += "[" + section + "]\n" + lines;
    return text;
}

/// Gives the settings in each layer up to `top`, each with the value that `value` has for it there.
struct Stack {
    Stack(const std::vector<std::string>& settings, Layer top,
          const std::function<std::string(const std::string&, Layer)>& value)
        : configuration(textOf(settings, Layer::File, top, value)) {
        if (top >= Layer::ConfDir) configuration.add("10.ini", textOf(settings, Layer::ConfDir, top, value));
        arguments = configuration.arguments();
        for (const std::string& path : settings) {
            const std::size_t dot = path.rfind('.');
            if (top >= Layer::Environment) {
                variables.push_back(variableFor(path.substr(0, dot), path.substr(dot + 1)) + "=" +
                                    value(path, Layer::Environment));
            }
            if (top < Layer::CommandLine) continue;
            arguments.emplace_back("--set");
            arguments.push_back(path + "=" + value(path, Layer::CommandLine));
        }
    }

    static std::string textOf(const std::vector<std::string>& settings, Layer layer, Layer top,
                              const std::function<std::string(const std::string&, Layer)>& value) {
        Given given;
        for (const std::string& path : settings) {
            if (layer <= top) given[path] = value(path, layer);
        }
        return iniText(given);
    }

    /// What the comment before the value of `path` must be.
    [[nodiscard]] std::string originOf(const std::string& path, Layer layer) const {
        const std::size_t dot = path.rfind('.');
        switch (layer) {
            case Layer::Default:
                return "default";
            case Layer::File:
                return configuration.file().string() + ":" + lineOf(configuration.file(), path);
            case Layer::ConfDir: {
                const fs::path file = configuration.folder() / "conf.d" / "10.ini";
                return file.string() + ":" + lineOf(file, path);
            }
            case Layer::Environment:
                return "environment variable " + variableFor(path.substr(0, dot), path.substr(dot + 1));
            case Layer::CommandLine:
                return "--set";
        }
        return {};
    }

    static std::string lineOf(const fs::path& file, const std::string& path) {
        const std::vector<std::string> lines = split(contentOf(file), '\n');
        std::string section;
        for (std::size_t i = 0; i < lines.size(); ++i) {
            if (lines[i].starts_with('[')) section = lines[i].substr(1, lines[i].size() - 2);
            if (section + "." + std::string(trim(lines[i].substr(0, lines[i].find('=')))) == path) {
                return std::to_string(i + 1);
            }
        }
        return "none";
    }

    Configuration configuration;
    std::vector<std::string> arguments, variables;
};

const ConfigKey& keyOf(const std::string& path) {
    for (const ConfigKey& key : configKeys()) {
        if (key.path() == path) return key;
    }
    std::abort();
}

std::vector<std::string> allKeys() {
    std::vector<std::string> paths;
    for (const ConfigKey& key : configKeys()) paths.push_back(key.path());
    return paths;
}

class ConfigLayers : public testing::TestWithParam<Layer> {};

// Neighbouring layers have different values, so that a value from the wrong one would be seen.
TEST_P(ConfigLayers, EveryKeyHasTheValueOfTheStrongestAndSaysWhichThatIs) {
    const auto value = [](const std::string& path, Layer layer) {
        return sample(keyOf(path), layer == Layer::ConfDir || layer == Layer::CommandLine);
    };
    const Stack stack(allKeys(), GetParam(), value);
    const auto result = printed(stack.arguments, stack.variables);
    ServerConfig expected;
    for (const ConfigKey& key : configKeys()) {
        const std::string path = key.path();
        ASSERT_TRUE(result.contains(path)) << path;
        key.read(expected, value(path, GetParam()));
        EXPECT_EQ(result.at(path).value, key.write(expected)) << path;
        EXPECT_EQ(result.at(path).origin, stack.originOf(path, GetParam())) << path;
    }
}

TEST_P(ConfigLayers, EverySettingOfEveryPluginHasTheValueOfTheStrongestAndSaysWhichThatIs) {
    std::map<std::string, mergen_key_type> types;
    std::vector<std::string> settings;
    for (const pluginhost::PluginInfo& plugin : foundPlugins()) {
        for (const pluginhost::PluginKey& key : plugin.keys) {
            settings.push_back(plugin.kind + "." + plugin.name + "." + key.key);
            types[settings.back()] = key.type;
        }
    }
    ASSERT_FALSE(settings.empty());
    const auto value = [&types](const std::string& path, Layer layer) {
        return sample(types.at(path), layer == Layer::ConfDir || layer == Layer::CommandLine);
    };
    const Stack stack(settings, GetParam(), value);
    const auto result = printed(stack.arguments, stack.variables);
    for (const std::string& path : settings) {
        ASSERT_TRUE(result.contains(path)) << path;
        EXPECT_EQ(result.at(path).value, value(path, GetParam())) << path;
        EXPECT_EQ(result.at(path).origin, stack.originOf(path, GetParam())) << path;
    }
}

TEST_P(ConfigLayers, ABadValueOfAnyKeyIsRefusedWithItsOrigin) {
    const auto value = [](const std::string& path, Layer layer) {
        return layer == GetParam() ? badSample(keyOf(path)) : sample(keyOf(path), false);
    };
    const Stack stack(allKeys(), GetParam(), value);
    std::vector<std::string> arguments = stack.arguments;
    arguments.emplace_back("--print-config");
    const RunResult result = runMergend(arguments, stack.variables);
    EXPECT_EQ(exitOf(result), exitCode::config);
    EXPECT_EQ(result.output, "");
    for (const ConfigKey& key : configKeys()) {
        EXPECT_THAT(result.errors, HasSubstr(stack.originOf(key.path(), GetParam()) + ": " + key.path() + ": "));
    }
}

TEST_P(ConfigLayers, ABadValueOfAPluginsSettingIsRefusedWithItsOrigin) {
    std::map<std::string, std::string> bad;
    std::vector<std::string> settings;
    for (const pluginhost::PluginInfo& plugin : foundPlugins()) {
        for (const pluginhost::PluginKey& key : plugin.keys) {
            if (badSample(key.type).empty()) continue;
            settings.push_back(plugin.kind + "." + plugin.name + "." + key.key);
            bad[settings.back()] = badSample(key.type);
        }
    }
    ASSERT_FALSE(settings.empty());
    const Stack stack(settings, GetParam(), [&bad](const std::string& path, Layer) { return bad.at(path); });
    std::vector<std::string> arguments = stack.arguments;
    arguments.emplace_back("--print-config");
    const RunResult result = runMergend(arguments, stack.variables);
    EXPECT_EQ(exitOf(result), exitCode::config);
    for (const std::string& path : settings) {
        EXPECT_THAT(result.errors, HasSubstr(stack.originOf(path, GetParam()) + ": " + path + ": '"));
    }
}

std::string nameOfLayer(const testing::TestParamInfo<Layer>& instance) {
    constexpr std::array names = {"Default", "File", "ConfDir", "Environment", "Set"};
    return names.at(static_cast<std::size_t>(instance.param));
}

INSTANTIATE_TEST_SUITE_P(All, ConfigLayers, testing::ValuesIn(layers), nameOfLayer);

TEST(ConfigOrder, WithoutAnythingGivenEveryValueIsADefault) {
    const Configuration configuration;
    for (const auto& [path, value] : printed(configuration.arguments())) EXPECT_EQ(value.origin, "default") << path;
}

TEST(ConfigOrder, TheFilesOfConfDAreReadInByteOrderOfTheirNames) {
    const Configuration configuration("[vm]\nmax_vms = 1\n[network]\nport_start = 1\n");
    configuration.add("9.ini", "[vm]\nmax_vms = 9\n");
    configuration.add("10.ini", "[vm]\nmax_vms = 10\n[network]\nport_start = 10\n");
    configuration.add("Z.ini", "[vm]\nmax_vms = 90\n");
    configuration.add("a.ini", "[vm]\nmax_vms = 97\n");
    auto result = printed(configuration.arguments());
    EXPECT_EQ(result["vm.max_vms"].value, "97");
    EXPECT_THAT(result["vm.max_vms"].origin, HasSubstr("conf.d/a.ini:2"));
    EXPECT_EQ(result["network.port_start"].value, "10");
}

TEST(ConfigOrder, OtherNamesAndHiddenFilesInConfDArePassedOver) {
    const Configuration configuration;
    for (const char* const name : {".a.ini", "a.ini~", "a.ini.rpmsave", "README"}) {
        configuration.add(name, "[vm]\nmax_vms = 1\n");
    }
    EXPECT_EQ(printed(configuration.arguments())["vm.max_vms"].origin, "default");
}

TEST(ConfigOrder, AnotherFolderCanStandForConfD) {
    const Configuration configuration;
    configuration.add("a.ini", "[vm]\nmax_vms = 1\n");
    const TempDir other;
    other.write("b.ini", "[vm]\nmax_vms = 2\n");
    const auto result = printed(configuration.arguments({"--conf-dir", other.path().string()}));
    EXPECT_EQ(result.at("vm.max_vms").value, "2");
    EXPECT_EQ(result.at("vm.max_vms").origin, (other.path() / "b.ini").string() + ":2");
}

TEST(ConfigOrder, OfSeveralSetsTheLastHolds) {
    const Configuration configuration;
    const auto result =
        printed(configuration.arguments({"--set", "vm.max_vms=1", "--set=vm.max_vms=2", "--set", "vm.max_vms = 3 "}));
    EXPECT_EQ(result.at("vm.max_vms").value, "3");
}

TEST(ConfigOrder, AnEmptyValueIsAValueWhereAKeyTakesIt) {
    const Configuration configuration("[server]\nport_file = /a\n");
    EXPECT_EQ(printed(configuration.arguments({"--set", "server.port_file="})).at("server.port_file").value, "");
    EXPECT_EQ(printed(configuration.arguments(), {"MERGEN_SERVER_PORT_FILE="}).at("server.port_file").value, "");
}

struct ProfileRow {
    const char* path;
    const char* value;
};
constexpr std::array<ProfileRow, 7> mergenDefaults = {{{"paths.config_root", "/etc/mergen/vm.d"},
                                                       {"paths.data_root", "/var/lib/mergen"},
                                                       {"paths.run_root", "/run/mergen"},
                                                       {"paths.global_hooks_dir", "/etc/mergen/hooks.d"},
                                                       {"vm.unit_prefix", "mergen"},
                                                       {"log.format", "console"},
                                                       {"server.drain_timeout", "15s"}}};

TEST(ConfigProfile, MergenHasItsOwnDefaultsHoweverItIsChosen) {
    const Configuration plain;
    const Configuration inFile("[server]\nprofile = mergen\n");
    const Configuration inFolder;
    inFolder.add("a.ini", "[server]\nprofile = mergen\n");
    const std::pair<std::vector<std::string>, std::vector<std::string>> ways[] = {
        {inFile.arguments(), {}},
        {inFolder.arguments(), {}},
        {plain.arguments(), {"MERGEN_SERVER_PROFILE=mergen"}},
        {plain.arguments({"--set", "server.profile=mergen"}), {}}};
    for (const auto& [arguments, variables] : ways) {
        const auto result = printed(arguments, variables);
        std::size_t fromProfile = 0;
        for (const auto& [path, value] : result) fromProfile += value.origin == "profile mergen" ? 1 : 0;
        EXPECT_EQ(fromProfile, mergenDefaults.size());
        for (const auto& [path, value] : mergenDefaults) {
            EXPECT_EQ(result.at(path).value, value) << path;
            EXPECT_EQ(result.at(path).origin, "profile mergen") << path;
        }
        EXPECT_EQ(result.at("paths.image_roots").value, "/var/lib/mergen/images");
    }
}

TEST(ConfigProfile, WhatIsGivenReplacesTheDefaultsOfMergenToo) {
    const Configuration configuration("[server]\nprofile = mergen\n[paths]\nrun_root = /run/other\n");
    const auto result = printed(configuration.arguments(), {"MGR_UNIT_PREFIX=vm"});
    EXPECT_EQ(result.at("paths.run_root").value, "/run/other");
    EXPECT_EQ(result.at("vm.unit_prefix").value, "vm");
}

TEST(ConfigProfile, AWeakerLayersProfileIsReplacedByAStrongerOne) {
    const Configuration configuration("[server]\nprofile = mergen\n");
    const auto result = printed(configuration.arguments({"--set", "server.profile=mergen-fire"}));
    EXPECT_EQ(result.at("paths.run_root").value, "/run/firecracker");
    EXPECT_EQ(result.at("paths.run_root").origin, "default");
}

}  // namespace
}  // namespace mergen::server
