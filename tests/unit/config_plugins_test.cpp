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

}  // namespace
}  // namespace mergen::server
