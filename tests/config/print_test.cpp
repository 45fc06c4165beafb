// --print-config: what it prints is a configuration again, and the same one.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "samples.hpp"

namespace mergen::server {
namespace {

std::string print(std::vector<std::string> arguments, const std::vector<std::string>& variables = {}) {
    arguments.emplace_back("--print-config");
    const RunResult result = runMergend(std::move(arguments), variables);
    EXPECT_EQ(exitOf(result), 0) << result.errors;
    return result.output;
}

/// Values only: read again, each comes from the file.
std::map<std::string, std::string> valuesOf(const std::string& text) {
    std::map<std::string, std::string> values;
    for (const auto& [path, value] : readPrinted(text)) values[path] = value.value;
    return values;
}

void expectRoundTrip(const std::vector<std::string>& arguments, const std::vector<std::string>& variables = {}) {
    const std::string text = print(arguments, variables);
    const Configuration again(text);
    EXPECT_EQ(valuesOf(print(again.arguments())), valuesOf(text));
}

TEST(PrintConfig, OfTheDefaultsIsAFileOfTheDefaults) {
    const Configuration configuration;
    expectRoundTrip(configuration.arguments());
}

TEST(PrintConfig, OfTheProfileMergenIsAFileOfTheSame) {
    const Configuration configuration;
    expectRoundTrip(configuration.arguments({"--set", "server.profile=mergen"}));
}

TEST(PrintConfig, OfAValueForEveryKeyIsAFileOfTheSame) {
    const Configuration configuration;
    std::vector<std::string> variables;
    for (const ConfigKey& key : configKeys()) variables.push_back(key.variable() + "=" + sample(key, /*second=*/false));
    expectRoundTrip(configuration.arguments(), variables);
}

TEST(PrintConfig, OfAValueForEverySettingOfEveryPluginIsAFileOfTheSame) {
    const Configuration configuration;
    std::vector<std::string> variables;
    for (const pluginhost::PluginInfo& plugin : foundPlugins()) {
        for (const pluginhost::PluginKey& key : plugin.keys) {
            variables.push_back(variableFor(plugin.kind + "." + plugin.name, key.key) + "=" + sample(key.type, false));
        }
    }
    expectRoundTrip(configuration.arguments(), variables);
}

TEST(PrintConfig, HasEveryKeyAndEverySettingOfEveryPluginWithItsDefault) {
    const Configuration configuration;
    auto result = printed(configuration.arguments());
    for (const ConfigKey& key : configKeys()) {
        EXPECT_TRUE(result.contains(key.path())) << key.path();
        if (!key.defaultValue.empty()) {
            EXPECT_EQ(result[key.path()].value, key.defaultValue) << key.path();
        }
        result.erase(key.path());
    }
    for (const pluginhost::PluginInfo& plugin : foundPlugins()) {
        for (const pluginhost::PluginKey& key : plugin.keys) {
            const std::string path = plugin.kind + "." + plugin.name + "." + key.key;
            EXPECT_EQ(result[path].value, key.defaultValue) << path;
            result.erase(path);
        }
    }
    for (const auto& [path, value] : result) ADD_FAILURE() << path << " is no setting";
}

TEST(PrintConfig, WithoutAFolderOfPluginsPrintsTheServersPartAndWhatIsGiven) {
    const Configuration configuration("[paths]\nplugin_dir = /nonexistent\n[storage.memory]\nrecord_limit = 5\n");
    std::vector<std::string> arguments = configuration.arguments({"--print-config"});
    const RunResult result = runMergend(arguments);
    EXPECT_EQ(exitOf(result), exitCode::success);
    EXPECT_THAT(result.errors, testing::HasSubstr("note: the plugins are left out: "));
    const auto values = readPrinted(result.output);
    EXPECT_EQ(values.at("storage.memory.record_limit").value, "5");
    EXPECT_FALSE(values.contains("storage.memory.document_limit"));
}

}  // namespace
}  // namespace mergen::server
