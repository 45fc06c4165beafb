// The names of the older programs, and what is no name at all.
#include <array>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "samples.hpp"

namespace mergen::server {
namespace {

using testing::HasSubstr;
using testing::Not;

struct OldName {
    const char* variable;
    const char* value;
    const char* path;
    const char* result;
    const char* bad;
};

/// As the documents of mergen-fire list them, with the values in their own spelling.
constexpr std::array<OldName, 13> oldNames = {
    {{"MGR_HTTP_ADDR", ":8123", "server.listen", "127.0.0.1:8123", "8123"},
     {"MGR_CONFIG_ROOT", "/srv/a", "paths.config_root", "/srv/a", "a"},
     {"MGR_DATA_ROOT", "/srv/b", "paths.data_root", "/srv/b", "b"},
     {"MGR_RUN_ROOT", "/srv/c", "paths.run_root", "/srv/c", "c/../d"},
     {"MGR_GLOBAL_HOOKS_DIR", "/srv/d", "paths.global_hooks_dir", "/srv/d", "hooks"},
     {"MGR_UNIT_PREFIX", "vm", "vm.unit_prefix", "vm", "a b"},
     {"MGR_COMMAND_TIMEOUT_SECONDS", "20", "server.read_timeout", "20s", "20s"},
     {"MGR_SHUTDOWN_TIMEOUT_SECONDS", "25", "server.drain_timeout", "25s", "-1"},
     {"MGR_PORT_START", "21000", "network.port_start", "21000", "0"},
     {"MGR_PORT_END", "39000", "network.port_end", "39000", "many"},
     {"MGR_GUEST_CIDR", "10.9.0.0/24", "network.guest_cidr", "10.9.0.0/24", "10.9.0.0"},
     {"MGR_LOG_LEVEL", "warn", "log.level", "warn", "loud"},
     {"MGR_LOG_FORMAT", "text", "log.format", "text", "xml"}}};

RunResult print(const Configuration& configuration, const std::vector<std::string>& variables) {
    return runMergend(configuration.arguments({"--print-config"}), variables);
}

TEST(ConfigEnvironment, EveryOldNameStandsInTheTableOfKeys) {
    std::map<std::string, std::string> table;
    for (const ConfigKey& key : configKeys()) {
        if (key.traits.oldVariable != nullptr) table.emplace(key.traits.oldVariable, key.path());
    }
    std::map<std::string, std::string> documented;
    for (const OldName& old : oldNames) documented.emplace(old.variable, old.path);
    EXPECT_EQ(table, documented);
}

TEST(ConfigEnvironment, EveryOldNameGivesItsKeyAValue) {
    const Configuration configuration;
    std::vector<std::string> variables;
    for (const OldName& old : oldNames) variables.push_back(std::string(old.variable) + "=" + old.value);
    const auto result = printed(configuration.arguments(), variables);
    for (const OldName& old : oldNames) {
        EXPECT_EQ(result.at(old.path).value, old.result) << old.variable;
        EXPECT_EQ(result.at(old.path).origin, "environment variable " + std::string(old.variable));
    }
}

TEST(ConfigEnvironment, ABadOrEmptyValueOfAnOldNameIsPassedOverWithAWarning) {
    const Configuration fromFile;
    const Configuration configuration("[network]\nport_start = 12345\n");
    for (const bool empty : {false, true}) {
        std::vector<std::string> variables;
        for (const OldName& old : oldNames) {
            variables.push_back(std::string(old.variable) + "=" + (empty ? "" : old.bad));
        }
        const RunResult result = print(configuration, variables);
        ASSERT_EQ(exitOf(result), exitCode::success) << result.errors;
        const auto values = readPrinted(result.output);
        for (const OldName& old : oldNames) {
            EXPECT_THAT(result.errors,
                        testing::ContainsRegex("note: environment variable " + std::string(old.variable) + ": " +
                                               old.path + ": [^\n]*; ignored, as if it were not given\n"));
            const bool given = std::string(old.path) == "network.port_start";
            EXPECT_EQ(values.at(old.path).origin, given ? configuration.file().string() + ":2" : "default");
        }
        EXPECT_EQ(values.at("network.port_start").value, "12345") << "what is weaker in the order holds";
    }
}

TEST(ConfigEnvironment, UnderTheProfileMergenABadOldNameLeavesThatProfilesDefault) {
    const Configuration configuration("[server]\nprofile = mergen\n");
    const auto result = printed(configuration.arguments(), {"MGR_LOG_FORMAT=xml", "MGR_DATA_ROOT="});
    EXPECT_EQ(result.at("log.format").value, "console");
    EXPECT_EQ(result.at("paths.data_root").value, "/var/lib/mergen");
}

TEST(ConfigEnvironment, OfAnOldAndANewNameTheNewOneHoldsAndThatIsSaid) {
    const Configuration configuration;
    const RunResult result = print(configuration, {"MGR_LOG_LEVEL=error", "MERGEN_LOG_LEVEL=warn"});
    EXPECT_EQ(readPrinted(result.output).at("log.level").value, "warn");
    EXPECT_THAT(result.errors,
                HasSubstr("note: environment variable MGR_LOG_LEVEL: MERGEN_LOG_LEVEL is given, too, and wins for "
                          "log.level\n"));
}

TEST(ConfigEnvironment, ABarePortMeansLoopbackAndThatIsSaid) {
    const Configuration configuration;
    const RunResult result = print(configuration, {"MGR_HTTP_ADDR=:8080"});
    EXPECT_EQ(readPrinted(result.output).at("server.listen").value, "127.0.0.1:8080");
    EXPECT_THAT(result.errors, HasSubstr("note: environment variable MGR_HTTP_ADDR: server.listen: ':8080' means "
                                         "loopback only, 127.0.0.1:8080\n"));
}

TEST(ConfigEnvironment, ThePathOfSystemctlHasNoEffectAndThatIsSaid) {
    const Configuration configuration;
    const RunResult result = print(configuration, {"MGR_SYSTEMCTL_PATH=/bin/systemctl"});
    EXPECT_EQ(exitOf(result), exitCode::success);
    EXPECT_THAT(result.errors, HasSubstr("note: environment variable MGR_SYSTEMCTL_PATH: has no effect: "));
}

TEST(ConfigEnvironment, TheStateDirectoryHoldsAllRootsThatAreNotPutElsewhere) {
    const Configuration configuration;
    auto result = printed(configuration.arguments(), {"MERGEN_STATE_DIR=/srv/state"});
    EXPECT_EQ(result["paths.config_root"].value, "/srv/state/vm.d");
    EXPECT_EQ(result["paths.data_root"].value, "/srv/state/data");
    EXPECT_EQ(result["paths.run_root"].value, "/srv/state/run");
    EXPECT_EQ(result["paths.run_root"].origin, "environment variable MERGEN_STATE_DIR");
    EXPECT_EQ(result["paths.image_roots"].value, "/srv/state/data/images");

    result = printed(configuration.arguments({"--set", "paths.config_root=/srv/c"}),
                     {"MERGEN_STATE_DIR=/srv/state", "MGR_RUN_ROOT=/srv/run", "MERGEN_PATHS_DATA_ROOT=/srv/data"});
    EXPECT_EQ(result["paths.config_root"].value, "/srv/c");
    EXPECT_EQ(result["paths.data_root"].value, "/srv/data");
    EXPECT_EQ(result["paths.run_root"].value, "/srv/run");
}

TEST(ConfigEnvironment, AStateDirectoryThatIsNoAbsolutePathIsRefused) {
    const Configuration configuration;
    for (const char* const value : {"", "state", "./state"}) {
        const RunResult result = print(configuration, {"MERGEN_STATE_DIR=" + std::string(value)});
        EXPECT_EQ(exitOf(result), exitCode::config) << value;
        EXPECT_EQ(result.errors,
                  "environment variable MERGEN_STATE_DIR: '" + std::string(value) + "' is not an absolute path\n");
    }
}

TEST(ConfigEnvironment, AVariableThatMeansNothingIsSaidWithTheNearestName) {
    const Configuration configuration;
    const RunResult result =
        print(configuration, {"MERGEN_SERVER_LISTN=:80", "MERGEN_STORAGE_MEMORY_RECORD_LIMT=5", "MGR_HTP_ADDR=:80",
                              "MERGEN_XYZZY_PLUGH=1", "MGR_OF_ANOTHER_PROGRAM=1", "MERGEN_BUILD_ROOT=/b"});
    EXPECT_EQ(exitOf(result), exitCode::success);
    const std::string nothing = ": means nothing to mergend";
    EXPECT_THAT(result.errors, HasSubstr("note: environment variable MERGEN_SERVER_LISTN" + nothing +
                                         "; did you mean 'MERGEN_SERVER_LISTEN'?\n"));
    EXPECT_THAT(result.errors, HasSubstr("note: environment variable MERGEN_STORAGE_MEMORY_RECORD_LIMT" + nothing +
                                         "; did you mean 'MERGEN_STORAGE_MEMORY_RECORD_LIMIT'?\n"));
    EXPECT_THAT(result.errors,
                HasSubstr("note: environment variable MGR_HTP_ADDR" + nothing + "; did you mean 'MGR_HTTP_ADDR'?\n"));
    EXPECT_THAT(result.errors, HasSubstr("note: environment variable MERGEN_XYZZY_PLUGH" + nothing + "\n"));
    EXPECT_THAT(result.errors, Not(HasSubstr("MGR_OF_ANOTHER_PROGRAM")));
    EXPECT_THAT(result.errors, Not(HasSubstr("MERGEN_BUILD_ROOT")));
}

TEST(ConfigEnvironment, NoTwoKeysShareAVariable) {
    std::map<std::string, std::string> seen;
    for (const ConfigKey& key : configKeys()) {
        const auto [other, isNew] = seen.emplace(key.variable(), key.path());
        EXPECT_TRUE(isNew) << key.path() << " and " << other->second;
    }
    for (const pluginhost::PluginInfo& plugin : foundPlugins()) {
        for (const pluginhost::PluginKey& key : plugin.keys) {
            const std::string title = plugin.kind + "." + plugin.name;
            const auto [other, isNew] = seen.emplace(variableFor(title, key.key), title + "." + key.key);
            EXPECT_TRUE(isNew) << title << "." << key.key << " and " << other->second;
        }
    }
}

}  // namespace
}  // namespace mergen::server
