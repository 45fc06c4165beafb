#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <mergen/server/config.hpp>

#include "server_test_support.hpp"

namespace mergen::server {
namespace {

using pluginhost::PluginInfo;
using pluginhost::PluginKey;
using pluginhost::PluginState;
using testing::ElementsAre;
using testing::IsEmpty;

PluginInfo plugin(std::string kind, std::string name, std::vector<PluginKey> keys) {
    PluginInfo info;
    info.kind = std::move(kind);
    info.name = std::move(name);
    info.keys = std::move(keys);
    return info;
}

std::vector<PluginInfo> found() {
    return {plugin("storage", "files", {{"document_limit", MERGEN_KEY_SIZE, false, "1MiB", "Limit."}}),
            plugin("storage", "memory", {}),
            plugin("network", "linux",
                   {{"uplink", MERGEN_KEY_STRING, true, "", "The interface that leads outside."},
                    {"forward", MERGEN_KEY_BOOLEAN, false, "true", "Turns forwarding on."}}),
            plugin("network", "other", {{"needed", MERGEN_KEY_STRING, true, "", "Needed."}})};
}

struct Resolved {
    ServerConfig config;
    std::vector<std::string> problems, notes;
};

Resolved resolve(const ConfigInput& input, const std::vector<PluginInfo>& plugins = found()) {
    Resolved result;
    Problems problems;
    Notes notes;
    result.config = parseConfig(input, {"/plugins", "/libexec"}, problems, notes);
    EXPECT_THAT(problems, IsEmpty());
    resolvePlugins(result.config, plugins, problems, notes);
    for (const Problem& problem : problems) result.problems.push_back(describe(problem));
    for (const Note& note : notes) result.notes.push_back(describe(note));
    return result;
}

std::vector<std::string> problemsOf(std::string_view text, const std::vector<PluginInfo>& plugins = found()) {
    return resolve(fileInput(text), plugins).problems;
}

TEST(PluginSections, InOrderBringNoProblem) {
    EXPECT_THAT(problemsOf("[network.linux]\nuplink = eth0\nforward = false\n[storage.files]\ndocument_limit = 2KiB\n"),
                IsEmpty());
}

TEST(PluginSections, AnUnknownPluginIsRefusedWithTheNearest) {
    EXPECT_THAT(
        problemsOf("[network.linux]\nuplink = eth0\n\n[storage.fils]\n"),
        ElementsAre("f.ini:4: [storage.fils]: there is no such plugin in /plugins; did you mean 'storage.files'?"));
}

TEST(PluginSections, ASelectedBackendThatIsNotThereIsRefusedByLineWithTheNearest) {
    EXPECT_THAT(problemsOf("[backends]\nstorage = fils\n\n[network.linux]\nuplink = eth0\n"),
                ElementsAre("f.ini:2: backends.storage: there is no storage plugin 'fils' in /plugins; did you mean "
                            "'files'?"));
}

TEST(PluginSections, AnUnknownKeyIsRefusedWithTheNearest) {
    EXPECT_THAT(problemsOf("[network.linux]\nuplink = eth0\nfoward = true\n"),
                ElementsAre("f.ini:3: network.linux.foward: unknown key; did you mean 'forward'?"));
}

TEST(PluginSections, AValueOfAnotherTypeIsRefused) {
    EXPECT_THAT(problemsOf("[network.linux]\nuplink = eth0\nforward = yes\n"),
                ElementsAre("f.ini:3: network.linux.forward: 'yes' is not true or false"));
}

TEST(PluginSections, OfPluginsThatAreNotSelectedAreCheckedToo) {
    EXPECT_THAT(problemsOf("[network.linux]\nuplink = eth0\n[storage.memory]\nx = 1\n"),
                ElementsAre("f.ini:4: storage.memory.x: unknown key"));
}

TEST(PluginSections, ASelectedPluginNeedsItsRequiredKeys) {
    EXPECT_THAT(problemsOf("[server]\n"),
                ElementsAre("network.linux.uplink: must be given: The interface that leads outside."));
    EXPECT_THAT(problemsOf("[network.linux]\nforward = true\n"),
                ElementsAre("f.ini:1: network.linux.uplink: must be given: The interface that leads outside."));
}

TEST(PluginSections, ThatOfARefusedLibraryIsLeftToItsOwnRefusal) {
    auto plugins = found();
    plugins[2].state = PluginState::Failed;
    EXPECT_THAT(problemsOf("[network.linux]\nanything = 1\n", plugins), IsEmpty());
}

// The environment: a variable's meaning is known only when the plugins are.

ConfigInput withEnvironment(std::map<std::string, std::string, std::less<>> environment,
                            std::string_view text = "[network.linux]\nuplink = eth0\n") {
    ConfigInput input = fileInput(text);
    input.environment = std::move(environment);
    return input;
}

TEST(PluginVariables, GiveASettingItsValueAboveTheFileAndBelowTheCommandLine) {
    ConfigInput input = withEnvironment({{"MERGEN_NETWORK_LINUX_UPLINK", "eth1"}});
    Resolved resolved = resolve(input);
    EXPECT_THAT(resolved.problems, IsEmpty());
    EXPECT_THAT(resolved.notes, IsEmpty());
    EXPECT_EQ(resolved.config.settingsOf("network", "linux").at("uplink"), "eth1");
    input.assignments = {"network.linux.uplink=eth2"};
    EXPECT_EQ(resolve(input).config.settingsOf("network", "linux").at("uplink"), "eth2");
    EXPECT_EQ(resolve(withEnvironment({{"MERGEN_STORAGE_FILES_DOCUMENT_LIMIT", "2KiB"}}))
                  .config.settingsOf("storage", "files")
                  .at("document_limit"),
              "2KiB");
}

TEST(PluginVariables, CanGiveWhatMustBeGiven) {
    EXPECT_THAT(resolve(withEnvironment({{"MERGEN_NETWORK_LINUX_UPLINK", "eth1"}}, "")).problems, IsEmpty());
}

TEST(PluginVariables, ThatTwoSettingsCouldMeanAreRefusedWithBoth) {
    auto plugins = found();
    plugins.push_back(plugin("network", "linux-up", {{"link", MERGEN_KEY_STRING, false, "", "Another."}}));
    EXPECT_EQ(variableFor("network.linux-up", "link"), "MERGEN_NETWORK_LINUX_UP_LINK");
    plugins[2].keys.push_back({"up_link", MERGEN_KEY_STRING, false, "", "One."});
    EXPECT_THAT(resolve(withEnvironment({{"MERGEN_NETWORK_LINUX_UP_LINK", "x"}}), plugins).problems,
                ElementsAre("environment variable MERGEN_NETWORK_LINUX_UP_LINK: can mean network.linux.up_link and "
                            "network.linux-up.link: give the one that is meant in a file or by --set"));
}

TEST(PluginVariables, AKeyOfTheServerHasItsVariableToItself) {
    auto plugins = found();
    plugins.push_back(plugin("network", "guest", {{"cidr", MERGEN_KEY_STRING, false, "", "A trap."}}));
    const Resolved resolved = resolve(withEnvironment({{"MERGEN_NETWORK_GUEST_CIDR", "10.0.0.0/24"}}), plugins);
    EXPECT_EQ(resolved.config.network.guestCidr.str(), "10.0.0.0/24");
    EXPECT_TRUE(resolved.config.settingsOf("network", "guest").empty());
}

std::vector<PluginInfo> withFirecracker() {
    auto plugins = found();
    plugins.push_back(plugin("vmm", "firecracker", {{"binary", MERGEN_KEY_PATH, false, "firecracker", "Program."}}));
    return plugins;
}

TEST(PluginVariables, FirecrackersProgramHasTwoOldNamesOfWhichMergensOwnWins) {
    const auto binary = [](std::map<std::string, std::string, std::less<>> environment) {
        const Resolved resolved = resolve(withEnvironment(std::move(environment)), withFirecracker());
        EXPECT_THAT(resolved.problems, IsEmpty());
        return resolved.config.settingsOf("vmm", "firecracker").at("binary");
    };
    EXPECT_EQ(binary({{"FIRECRACKER_BINARY", "/a"}}), "/a");
    EXPECT_EQ(binary({{"FIRECRACKER_BINARY", "/a"}, {"MERGEN_FIRECRACKER_BIN", "/b"}}), "/b");
    EXPECT_EQ(
        binary(
            {{"FIRECRACKER_BINARY", "/a"}, {"MERGEN_FIRECRACKER_BIN", "/b"}, {"MERGEN_VMM_FIRECRACKER_BINARY", "/c"}}),
        "/c");
}

TEST(PluginVariables, OfOtherProgramsDoNoHarmWhenEmptyOrWithoutTheirPlugin) {
    const Resolved empty = resolve(withEnvironment({{"FIRECRACKER_BINARY", ""}}), withFirecracker());
    EXPECT_THAT(empty.problems, IsEmpty());
    EXPECT_THAT(empty.notes,
                ElementsAre("environment variable FIRECRACKER_BINARY: vmm.firecracker.binary: the value is "
                            "empty; ignored, as if it were not given"));
    EXPECT_TRUE(empty.config.settingsOf("vmm", "firecracker").empty());
    const Resolved without = resolve(withEnvironment({{"MERGEN_FIRECRACKER_BIN", "/b"}}));
    EXPECT_THAT(without.problems, IsEmpty());
    EXPECT_THAT(without.notes, ElementsAre("environment variable MERGEN_FIRECRACKER_BIN: has no effect: there is no "
                                           "setting vmm.firecracker.binary"));
}

}  // namespace
}  // namespace mergen::server
