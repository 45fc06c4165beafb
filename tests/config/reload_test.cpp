// SIGHUP: what is taken over at once, what waits for the next start, and what changes nothing.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <mergen/base/json.hpp>
#include <mergen/base/text.hpp>

#include "samples.hpp"

namespace mergen::server {
namespace {

using testing::HasSubstr;
using testing::Not;

class ConfigReload : public testing::Test {
protected:
    void SetUp() override {
        if (!fs::exists("/usr/bin/qemu-system-x86_64"))
            GTEST_SKIP() << "needs qemu-system-x86_64 for the plugin vmm/qemu";
    }

    /// The file of `place` with `more` behind it.
    static void append(const Place& place, const std::string& more) {
        std::ofstream(place.file(), std::ios::app) << more;
    }

    /// Sends SIGHUP and gives the lines of the log up to the last one of the reload.
    static std::string reload(Mergend& server, const std::string& last = "config.reload.done") {
        const std::size_t before = server.seen().size();
        server.kill(SIGHUP);
        EXPECT_NE(server.waitFor(last), "") << server.seen();
        return server.seen().substr(before);
    }

    static std::string reloaded(const std::string& key, const std::string& value, const std::string& source) {
        return R"("event":"config.reloaded","key":")" + key + R"(","value":")" + value + R"(","source":")" + source +
               "\"";
    }
    static std::string waits(const std::string& key, const std::string& now, const std::string& then) {
        return R"("event":"config.reload.waits","key":")" + key + R"(","in_force":")" + now + R"(","given":")" + then +
               "\"";
    }
};

TEST_F(ConfigReload, ThatChangesNothingSaysNothing) {
    const Place place;
    Mergend server(place);
    ASSERT_TRUE(server.ready()) << server.seen();
    const std::string lines = reload(server);
    EXPECT_THAT(lines, Not(HasSubstr("config.reloaded")));
    EXPECT_THAT(lines, Not(HasSubstr("config.reload.waits")));
    server.kill(SIGTERM);
    EXPECT_EQ(server.wait(), 0);
}

TEST_F(ConfigReload, EveryKeyIsTakenOverOrSaidToWait) {
    const Place place;
    Mergend server(place);
    ASSERT_TRUE(server.ready()) << server.seen();
    // A file with another value for every key, the plugins' folder apart: there the reload would look for libraries.
    const auto before = printed({"--config", place.file().string()});
    std::map<std::string, std::string> sections;
    for (const ConfigKey& key : configKeys()) {
        std::string value = sample(key, /*second=*/true);
        if (key.path() == "log.format") value = "json";  // what is read here
        if (key.section == "backends" && key.type != "duration") value = before.at(key.path()).value;
        sections[key.section] += key.key + " = " + value + "\n";
    }
    std::string text;
    for (const auto& [section, lines] : sections) text += "[" + section + "]\n" + lines;
    std::ofstream(place.file()) << text << "[storage.memory]\nrecord_limit = 77\n";
    // log.level becomes warn, which leaves out the lines of what is taken over; a second reload makes it info again.
    const auto after = printed({"--config", place.file().string()});
    server.kill(SIGHUP);
    ASSERT_NE(server.waitFor("config.reload.waits"), "") << server.seen();
    std::string level = text;
    level.replace(level.find("level = warn"), 12, "level = info");
    std::ofstream(place.file()) << level << "[storage.memory]\nrecord_limit = 77\n";
    const std::string lines = reload(server);
    for (const ConfigKey& key : configKeys()) {
        const std::string path = key.path();
        if (before.at(path).value == after.at(path).value || path == "log.level") continue;
        if (key.traits.reloadable) {
            EXPECT_THAT(lines, Not(HasSubstr(R"("key":")" + path + "\""))) << "it is in force already";
        } else {
            EXPECT_THAT(lines, HasSubstr(waits(path, before.at(path).value, after.at(path).value)));
        }
    }
    EXPECT_THAT(lines, HasSubstr(waits("storage.memory.record_limit", "10000", "77")));
    EXPECT_THAT(lines, HasSubstr(R"("key":"log.level","value":"info")"));
    server.kill(SIGTERM);
    EXPECT_THAT(server.waitFor("server.draining"), HasSubstr(R"("limit_ms":8000)"))
        << "the drain timeout of the reload";
    EXPECT_EQ(server.wait(), 0);
}

TEST_F(ConfigReload, WhatIsReloadableIsTakenOverFromEveryFile) {
    const Place place;
    Mergend server(place);
    ASSERT_TRUE(server.ready()) << server.seen();
    fs::create_directory(place.folder() / "conf.d");
    ::chmod((place.folder() / "conf.d").c_str(), 0755);
    const fs::path added = place.folder() / "conf.d" / "a.ini";
    std::ofstream(added) << "[vm]\nstop_grace = 3s\n";
    ::chmod(added.c_str(), 0644);
    append(place, "[log]\nlevel = debug\n[vm]\nmax_vms = 5\nstop_grace = 4s\n");
    std::string lines = reload(server);
    EXPECT_THAT(lines, HasSubstr(reloaded("log.level", "debug", place.file().string() + ":12")));
    EXPECT_THAT(lines, HasSubstr(reloaded("vm.max_vms", "5", place.file().string() + ":14")));
    EXPECT_THAT(lines, HasSubstr(reloaded("vm.stop_grace", "3s", added.string() + ":2")));
    EXPECT_THAT(lines, Not(HasSubstr("config.reload.waits")));
    // And back, by what is no longer there.
    fs::remove(added);
    lines = reload(server);
    EXPECT_THAT(lines, HasSubstr(reloaded("vm.stop_grace", "4s", place.file().string() + ":15")));
    EXPECT_THAT(lines, Not(HasSubstr("max_vms")));
}

TEST_F(ConfigReload, ANewLimitHoldsForTheNextRequest) {
    const Place place("[vm]\nmax_vms = 1\n");
    Mergend server(place);
    ASSERT_TRUE(server.ready()) << server.seen();
    const fs::path images = place.dataRoot() / "images";
    for (const char* const name : {"rootfs", "kernel"}) std::ofstream(images / name) << "content";
    const auto create = [&] {
        const std::string port(trim(split(contentOf(place.portFile()), '\n').front()));
        return ask(port, "POST", "/v1/vms",
                   R"({"vcpu":1,"memMiB":128,"rootfs":")" + (images / "rootfs").string() + R"(","kernel":")" +
                       (images / "kernel").string() + "\"}");
    };
    EXPECT_THAT(create(), HasSubstr("HTTP/1.1 201"));
    EXPECT_THAT(create(), HasSubstr("HTTP/1.1 507"));
    std::string text = contentOf(place.file());
    std::ofstream(place.file()) << text.replace(text.find("max_vms = 1"), 11, "max_vms = 2");
    static_cast<void>(reload(server));
    EXPECT_THAT(create(), HasSubstr("HTTP/1.1 201"));
    EXPECT_THAT(create(), HasSubstr("there are 2 VMs, the limit (vm.max_vms)"));
}

TEST_F(ConfigReload, ABadFileChangesNothingAndAllItsProblemsAreSaid) {
    const Place place;
    Mergend server(place);
    ASSERT_TRUE(server.ready()) << server.seen();
    const std::string good = contentOf(place.file());
    append(place, "[log]\nlevel = debug\n[vm]\nmax_vms = none\nnonsense = 1\n[storage.memory]\nrecord_limit = x\n");
    const std::string file = place.file().string();
    std::string lines = reload(server, "config.reload.refused");
    EXPECT_THAT(lines, HasSubstr(file + ":14: vm.max_vms: 'none' is not a whole number"));
    EXPECT_THAT(lines, HasSubstr(file + ":15: vm.nonsense: unknown key"));
    EXPECT_THAT(lines, HasSubstr(file + ":17: storage.memory.record_limit: 'x' is not a whole number"));
    EXPECT_THAT(lines, HasSubstr(R"("problems":3)"));
    EXPECT_THAT(lines, Not(HasSubstr("config.reloaded")));

    fs::remove(place.file());
    EXPECT_THAT(reload(server, "config.reload.refused"), HasSubstr("cannot read the configuration file " + file));

    std::ofstream(place.file()) << good;
    ::chmod(place.file().c_str(), 0666);
    EXPECT_THAT(reload(server, "config.reload.refused"), HasSubstr("has mode 0666"));
    ::chmod(place.file().c_str(), 0644);
    lines = reload(server);
    EXPECT_THAT(lines, Not(HasSubstr("config.reloaded"))) << "nothing of the bad ones was kept";
    EXPECT_THAT(get(std::string(trim(split(contentOf(place.portFile()), '\n').front())), "/healthz"), HasSubstr("200"));
}

TEST_F(ConfigReload, ANewLogFormatAndLevelHoldFromTheReloadOn) {
    const Place place;
    Mergend server(place);
    ASSERT_TRUE(server.ready()) << server.seen();
    append(place, "[log]\nformat = text\n");
    server.kill(SIGHUP);
    EXPECT_THAT(server.waitForText("config.reload.done"), testing::MatchesRegex("\\[INFO\\] [^ ]+ config.reload.done"));
    EXPECT_THAT(server.seen(), HasSubstr("config.reloaded key=log.format value=text source="));
}

TEST_F(ConfigReload, EnvironmentAndSetKeepTheirPlaceAboveTheFile) {
    const Place place;
    Mergend server(place, {"MGR_LOG_LEVEL=info", "MERGEN_VM_MAX_VMS=9"});
    ASSERT_TRUE(server.ready()) << server.seen();
    append(place, "[log]\nlevel = debug\n[vm]\nmax_vms = 5\n");
    EXPECT_THAT(reload(server), Not(HasSubstr("config.reloaded")));
}

TEST_F(ConfigReload, SystemdIsToldWhenItBeginsAndWhenItHasEnded) {
    const Place place;
    NotifySocket systemd(place.folder() / "notify");
    Mergend server(place, {systemd.variable()});
    ASSERT_TRUE(server.ready()) << server.seen();
    ASSERT_NE(systemd.waitFor("READY=1\n"), "");
    server.kill(SIGHUP);
    EXPECT_THAT(systemd.waitFor("RELOADING=1"), testing::MatchesRegex("RELOADING=1\nMONOTONIC_USEC=[0-9]+"));
    EXPECT_EQ(systemd.waitFor("READY=1"), "READY=1");
    append(place, "[nonsense]\n");
    server.kill(SIGHUP);
    EXPECT_NE(systemd.waitFor("RELOADING=1\n"), "");
    EXPECT_EQ(systemd.waitFor("READY=1"), "READY=1") << "also after a refusal: the server goes on";
}

TEST_F(ConfigReload, GlobalHooksThatNothingRunsAreSaidAtTheStart) {
    const Place place;
    const fs::path hooks = place.folder() / "hooks.d";
    fs::create_directory(hooks);
    {
        Mergend server(place, {"MGR_GLOBAL_HOOKS_DIR=" + hooks.string()});
        ASSERT_TRUE(server.ready()) << server.seen();
        EXPECT_THAT(server.seen(), Not(HasSubstr("paths.global_hooks.inert"))) << "an empty folder";
        server.kill(SIGTERM);
        EXPECT_EQ(server.wait(), 0);
    }
    std::ofstream(hooks / "a.json") << "{}";
    Mergend server(place, {"MGR_GLOBAL_HOOKS_DIR=" + hooks.string()});
    ASSERT_TRUE(server.ready()) << server.seen();
    EXPECT_THAT(server.seen(), HasSubstr(R"("event":"paths.global_hooks.inert","path":")" + hooks.string()));
}

TEST_F(ConfigReload, TheNotesOfTheStartAreInTheLog) {
    const Place place;
    Mergend server(place, {"MGR_PORT_START=many", "MGR_SYSTEMCTL_PATH=x", "MERGEN_SERVER_LISTN=x"});
    ASSERT_TRUE(server.ready()) << server.seen();
    for (const char* const event : {"config.variable.ignored", "config.variable.inert", "config.variable.unknown"}) {
        EXPECT_THAT(server.seen(), HasSubstr(R"("level":"warn","event":")" + std::string(event) + "\""));
    }
}

}  // namespace
}  // namespace mergen::server
