// mergend itself: its command line, its start and its end.
#include <algorithm>
#include <sstream>
#include <sys/resource.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <mergen/base/json.hpp>
#include <mergen/base/text.hpp>
#include <mergen/pluginhost/plugin_host.hpp>
#include <mergen/sdk/manifest.h>
#include <mergen/server/config.hpp>
#include <mergen/server/exit_code.hpp>
#include <mergen/server/instance.hpp>

#include "mergend_process.hpp"

namespace mergen::server {
namespace {

using testing::HasSubstr;
using testing::Not;

/// Tests that serve need the programs that the plugins look for at their start.
class MergendServes : public testing::Test {
protected:
    void SetUp() override {
        if (!fs::exists("/usr/bin/qemu-system-x86_64"))
            GTEST_SKIP() << "needs qemu-system-x86_64 for the plugin vmm/qemu";
    }
};

// The command line.

TEST(Mergend, HelpListsEveryOptionAndEveryKey) {
    const RunResult result = runMergend({"--help"});
    EXPECT_EQ(exitOf(result), exitCode::success);
    for (const char* const option : {"--config", "--conf-dir", "--set", "--check-config", "--print-config",
                                     "--list-plugins", "--new-token", "--version", "--help"}) {
        EXPECT_THAT(result.output, HasSubstr(option));
    }
    for (const ConfigKey& key : configKeys()) {
        EXPECT_THAT(result.output, HasSubstr("  " + key.key + " = " + key.defaultValue + "  (" + key.type +
                                             ")\n      " + key.variable() + "\n"));
    }
    for (const char* const setting : {"[storage.files]", "[supervisor.process]", "[network.linux]",
                                      "  topology = netns", "[vmm.firecracker]", "MERGEN_VMM_QEMU_BINARY"}) {
        EXPECT_THAT(result.output, HasSubstr(setting));
    }
}

TEST(Mergend, VersionNamesItselfAndThePluginSdk) {
    const RunResult result = runMergend({"--version"});
    EXPECT_EQ(exitOf(result), exitCode::success);
    EXPECT_THAT(result.output, testing::MatchesRegex("mergend [0-9.]+ \\(plugin SDK " MERGEN_STRINGIFY(
                                   MERGEN_SDK_MAJOR) "\\.[0-9]+, .*\\)\n"));
}

TEST(Mergend, RefusesAWrongCommandLine) {
    for (const char* const argument : {"--nonsense", "--daemon", "--pidfile=/x", "--config", "--set", "serve"}) {
        const RunResult result = runMergend({argument});
        EXPECT_EQ(exitOf(result), exitCode::usage) << argument;
        EXPECT_THAT(result.errors, HasSubstr("mergend: ")) << argument;
    }
}

TEST(Mergend, RefusesAFileThatIsNotThere) {
    const RunResult result = runMergend({"--config", "/nonexistent/m.ini"});
    EXPECT_EQ(exitOf(result), exitCode::config);
    EXPECT_THAT(result.errors, HasSubstr("cannot read the configuration file /nonexistent/m.ini"));
}

TEST(Mergend, CheckConfigRefusesAGuestNetworkThatANetworkPluginNeedsItself) {
    const Place place("[network]\nguest_cidr = 192.0.0.0/24\n", "linux");
    const RunResult result = runMergend({"--config", place.file().string(), "--check-config"});
    EXPECT_NE(exitOf(result), exitCode::success);
    EXPECT_THAT(result.errors, HasSubstr("the guest network 192.0.0.0/24 overlaps the setting transit"));
}

TEST(Mergend, CheckConfigSaysAllThatIsWrong) {
    const Place place("vmm = nosuch\n[storage.memry]\n[storage.files]\ndocument_limt = 1\n[log]\nlevel = loud\n");
    const RunResult result = runMergend({"--check-config", "--config", place.file().string()});
    EXPECT_EQ(exitOf(result), exitCode::config);
    const std::string file = place.file().string();
    EXPECT_THAT(result.errors, HasSubstr(file + ":12: [storage.memry]: there is no such plugin in "));
    EXPECT_THAT(result.errors, HasSubstr("; did you mean 'storage.memory'?"));
    EXPECT_THAT(result.errors,
                HasSubstr(file + ":14: storage.files.document_limt: unknown key; did you mean 'document_limit'?"));
    EXPECT_THAT(result.errors, HasSubstr(file + ":16: log.level: 'loud' is not debug, info, warn or error"));
    EXPECT_THAT(result.errors, HasSubstr(file + ":11: backends.vmm: there is no vmm plugin 'nosuch' in "));
}

TEST(Mergend, CheckConfigOfAGoodFileTouchesNothing) {
    const Place place;
    const RunResult result = runMergend({"--config", place.file().string(), "--check-config"});
    EXPECT_EQ(exitOf(result), exitCode::success) << result.errors;
    EXPECT_THAT(result.output, HasSubstr(": in order"));
    EXPECT_EQ(std::distance(fs::directory_iterator(place.folder()), {}), 1) << "only the file itself";
}

TEST(Mergend, TheShippedConfigurationIsInOrder) {
    // A copy: the clone itself may belong to another user, or be one that a group can write.
    const TempDir dir;
    const RunResult result =
        runMergend({"--config", dir.write("mergen.ini", contentOf(MERGEN_INI)).string(), "--check-config"});
    EXPECT_EQ(exitOf(result), exitCode::success) << result.errors;
}

TEST(Mergend, ListPluginsShowsEveryBackendWithItsSettings) {
    const Place place;
    const RunResult result = runMergend({"--config", place.file().string(), "--list-plugins"});
    ASSERT_EQ(exitOf(result), exitCode::success) << result.errors;
    for (const char* const words :
         {"KIND +NAME +VERSION +STATE +FILE", "storage +files +[0-9.]+ +available +/", "storage +memory ",
          "supervisor +process ", "network +linux ", "network +stub ", "vmm +qemu "}) {
        EXPECT_THAT(result.output, testing::ContainsRegex(words));
    }
    EXPECT_THAT(result.output, HasSubstr("[storage.memory]\n"));
    EXPECT_THAT(result.output,
                HasSubstr("  record_limit = 10000  (integer)\n      MERGEN_STORAGE_MEMORY_RECORD_LIMIT\n"));
}

// config/mergen.ini against the plugins' manifests, as config_file_test.cpp does for the server's keys.
TEST(Mergend, TheShippedConfigurationHasEveryKeyOfEveryPlugin) {
    Installation installation = Installation::around(MERGEND);
    pluginhost::PluginHostConfig config;
    config.directory = installation.pluginDir;
    config.preflightProgram = installation.libexecDir / "mergen-preflight";
    config.preflightTimeout = patience;
    pluginhost::PluginHost host(config, nullLog());

    std::map<std::string, std::string> documented;  // "kind.name.key = default" → prose
    std::istringstream file(contentOf(MERGEN_INI));
    std::string section;
    std::string prose;
    for (std::string line; std::getline(file, line);) {
        if (line.starts_with("# ")) {
            prose += (prose.empty() ? "" : " ") + line.substr(2);
            continue;
        }
        if (line.starts_with("#[")) section = line.substr(2, line.size() - 3);
        if (line.starts_with('[')) section.clear();
        if (line.starts_with('#') && line.find('=') != std::string::npos && !section.empty()) {
            documented.emplace(section + "." + line.substr(1), prose);
        }
        prose.clear();
    }
    for (const pluginhost::PluginInfo& plugin : host.scan()) {
        ASSERT_NE(plugin.state, pluginhost::PluginState::Failed) << plugin.detail;
        for (const pluginhost::PluginKey& key : plugin.keys) {
            const std::string name = plugin.kind + "." + plugin.name + "." + key.key + " =" +
                                     (key.defaultValue.empty() ? "" : " " + key.defaultValue);
            const auto found = documented.find(name);
            ASSERT_NE(found, documented.end()) << name << " is missing: " << key.sentence;
            EXPECT_EQ(found->second, key.sentence) << name;
            documented.erase(found);
        }
    }
    for (const auto& [name, sentence] : documented) ADD_FAILURE() << name << " is no key of a plugin";
}

// Serving.

TEST_F(MergendServes, TellsItsPortAnswersAndDrainsOnSigterm) {
    const Place place;
    for (const int signal : {SIGTERM, SIGINT}) {
        Mergend server(place);
        const std::string ready = server.waitFor("server.ready");
        ASSERT_FALSE(ready.empty()) << server.seen();
        const std::string port(trim(split(contentOf(place.portFile()), '\n').front()));
        const auto line = json::parseObject(ready);
        EXPECT_EQ(line->getValue<std::string>("url"), "http://127.0.0.1:" + port);
        EXPECT_THAT(line->getValue<std::string>("message"),
                    testing::MatchesRegex("mergend [0-9.]+ listening on http://.*"));
        const std::string reply = get(port, "/healthz");
        EXPECT_THAT(reply, HasSubstr("HTTP/1.1 200"));
        EXPECT_THAT(reply, HasSubstr(R"({"status":"ok"})"));
        EXPECT_THAT(get(port, "/v1/plugins"), HasSubstr("memory"));
        server.kill(signal);
        EXPECT_FALSE(server.waitFor("server.stopped").empty()) << server.seen();
        EXPECT_EQ(server.wait(), 0);
        EXPECT_FALSE(fs::exists(place.portFile()));
        EXPECT_NO_THROW(RootLock(place.dataRoot(), "data root"));
    }
}

TEST_F(MergendServes, MayOpenAsManyFilesAsTheHardLimitAllows) {
    rlimit before{};
    ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
    const rlimit low{std::min<rlim_t>(256, before.rlim_max), before.rlim_max};
    ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &low), 0);
    const Place place;
    Mergend server(place);
    ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &before), 0);
    ASSERT_TRUE(server.ready()) << server.seen();
    rlimit of{};
    ASSERT_EQ(::prlimit(server.pid(), RLIMIT_NOFILE, nullptr, &of), 0);
    EXPECT_EQ(of.rlim_cur, of.rlim_max);
    EXPECT_EQ(of.rlim_max, before.rlim_max);
}

TEST_F(MergendServes, ASecondServerOnTheSameDataRootIsRefusedAndToldThePid) {
    const Place place;
    Mergend server(place);
    ASSERT_TRUE(server.ready()) << server.seen();
    const RunResult second = runMergend({"--config", place.file().string()});
    EXPECT_EQ(exitOf(second), exitCode::startFailed);
    EXPECT_THAT(second.errors, HasSubstr("in use by the process with pid " + std::to_string(server.pid())));
    EXPECT_TRUE(fs::exists(place.portFile())) << "the first one's port file";
    EXPECT_THAT(get(std::string(trim(contentOf(place.portFile()).substr(0, 5))), "/healthz"), HasSubstr("200"));
}

TEST_F(MergendServes, ASecondServerOnTheSameRunRootIsRefused) {
    const Place place;
    Mergend server(place);
    ASSERT_TRUE(server.ready()) << server.seen();
    const RunResult second = runMergend(
        {"--config", place.file().string(), "--set", "paths.data_root=" + (place.folder() / "other").string()});
    EXPECT_EQ(exitOf(second), exitCode::startFailed);
    EXPECT_THAT(second.errors, HasSubstr("run root"));
    EXPECT_THAT(second.errors, HasSubstr("in use by the process with pid " + std::to_string(server.pid())));
}

TEST_F(MergendServes, APortFileThatIsAFolderFailsTheStartAndLosesNothing) {
    const Place place;
    const fs::path kept = place.portFile() / "kept";
    fs::create_directories(kept);
    const RunResult result = runMergend({"--config", place.file().string()});
    EXPECT_EQ(exitOf(result), exitCode::startFailed);
    EXPECT_THAT(result.errors, HasSubstr(place.portFile().string()));
    EXPECT_TRUE(fs::exists(kept));
}

TEST_F(MergendServes, ASigtermWhileItStartsEndsItWithoutServing) {
    const Place place;
    Mergend server(place);
    ASSERT_FALSE(server.waitFor("server.starting").empty());
    server.kill(SIGTERM);
    EXPECT_EQ(server.wait(), 0);
    EXPECT_FALSE(fs::exists(place.portFile()));
    EXPECT_NO_THROW(RootLock(place.dataRoot(), "data root"));
}

TEST_F(MergendServes, AfterAKillTheNextOneStarts) {
    const Place place;
    Mergend killed(place);
    ASSERT_TRUE(killed.ready()) << killed.seen();
    const std::string mark = contentOf(place.dataRoot() / "instance");
    killed.kill(SIGKILL);
    EXPECT_TRUE(WIFSIGNALED(killed.wait()));
    Mergend next(place);
    const std::string ready = next.waitFor("server.ready");
    ASSERT_FALSE(ready.empty()) << next.seen();
    EXPECT_EQ(json::parseObject(ready)->getValue<std::string>("instance") + "\n", mark);
    EXPECT_THAT(ready, HasSubstr(":" + std::string(trim(split(contentOf(place.portFile()), '\n').front())) + "\""));
}

TEST_F(MergendServes, APortThatIsTakenFailsTheStartAndLeavesNothingHeld) {
    const Place first;
    Mergend holder(first);
    ASSERT_TRUE(holder.ready()) << holder.seen();
    const std::string port(trim(split(contentOf(first.portFile()), '\n').front()));

    const Place place;
    std::string text = contentOf(place.file());
    text.replace(text.find("127.0.0.1:0"), 11, "127.0.0.1:" + port);
    const TempDir dir;
    const RunResult result = runMergend({"--config", dir.write("m.ini", text).string()});
    EXPECT_EQ(exitOf(result), exitCode::startFailed) << result.errors;
    EXPECT_THAT(result.errors, HasSubstr("\"event\":\"server.start.failed\""));
    EXPECT_THAT(result.errors, HasSubstr(port));
    EXPECT_FALSE(fs::exists(place.portFile()));
    EXPECT_NO_THROW(RootLock(place.dataRoot(), "data root"));
}

TEST_F(MergendServes, AWantedPluginThatIsMissingIsRefusedByLine) {
    const Place place({}, "nosuch");
    const RunResult result = runMergend({"--config", place.file().string()});
    EXPECT_EQ(exitOf(result), exitCode::config);
    EXPECT_THAT(result.errors, HasSubstr(":10: backends.network: there is no network plugin 'nosuch' in "));
}

TEST_F(MergendServes, AWrongPluginSectionIsRefusedByLine) {
    const Place place("[storage.memory]\nrecord_limit = many\n");
    const RunResult result = runMergend({"--config", place.file().string()});
    EXPECT_EQ(exitOf(result), exitCode::config);
    EXPECT_THAT(result.errors, HasSubstr(":12: storage.memory.record_limit: 'many' is not a whole number"));
}

TEST_F(MergendServes, SystemdIsToldOfReadinessAndOfTheEnd) {
    const Place place;
    NotifySocket systemd(place.folder() / "notify");
    Mergend server(place, {systemd.variable()});
    ASSERT_TRUE(server.ready()) << server.seen();
    EXPECT_THAT(systemd.waitFor("READY=1\n"), HasSubstr("STATUS=Listening on http://127.0.0.1:"));
    server.kill(SIGTERM);
    EXPECT_NE(systemd.waitFor("STOPPING=1\n"), "");
    EXPECT_EQ(server.wait(), 0);
}

}  // namespace
}  // namespace mergen::server
