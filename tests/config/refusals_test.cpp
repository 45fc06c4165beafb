// What is refused, and the words for it; see also the suites ConfigRefuses and IniRefuses of the group unit.
#include <algorithm>
#include <sys/stat.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "samples.hpp"

namespace mergen::server {
namespace {

using testing::HasSubstr;

/// Expects a refusal that says `text`; the same whether the configuration is only looked at or served.
void expectRefusal(const std::vector<std::string>& arguments, const std::string& text,
                   std::vector<std::string> variables = {}) {
    // A server that is not refused at once would make its folders: not those of this host.
    const TempDir state;
    const bool placed = std::ranges::any_of(
        variables, [](const std::string& variable) { return variable.starts_with("MERGEN_STATE_DIR="); });
    if (!placed) variables.push_back("MERGEN_STATE_DIR=" + state.path().string());
    for (const char* const mode : {"--check-config", "--print-config", ""}) {
        std::vector<std::string> all = arguments;
        if (*mode != '\0') all.emplace_back(mode);
        const RunResult result = runMergend(all, variables);
        EXPECT_EQ(exitOf(result), exitCode::config) << mode;
        EXPECT_THAT(result.errors, HasSubstr(text)) << mode;
        EXPECT_EQ(result.output, "") << mode;
    }
}

struct SetCase {
    const char* name;
    const char* assignment;
    const char* text;
};
class ConfigSet : public testing::TestWithParam<SetCase> {};

TEST_P(ConfigSet, IsRefused) {
    const Configuration configuration;
    expectRefusal(configuration.arguments({"--set", GetParam().assignment}), GetParam().text);
}

INSTANTIATE_TEST_SUITE_P(
    All, ConfigSet,
    testing::Values(
        SetCase{"WithoutAValue", "vm.max_vms", "--set: 'vm.max_vms' is not section.key=value\n"},
        SetCase{"WithoutASection", "max_vms=1", "--set: 'max_vms=1' is not section.key=value\n"},
        SetCase{"OfAnUnknownKey", "server.listn=:80", "--set: server.listn: unknown key; did you mean 'listen'?\n"},
        SetCase{"OfAKeyOfAnotherSection", "server.level=info",
                "--set: server.level: unknown key; did you mean 'log.level'?\n"},
        SetCase{"OfAnUnknownSection", "sever.listen=:80", "--set: [sever]: unknown section; did you mean 'server'?\n"},
        SetCase{"OfAnUnknownPlugin", "storage.memry.record_limit=1",
                "--set: [storage.memry]: there is no such plugin in "},
        SetCase{"OfAnUnknownSettingOfAPlugin", "storage.memory.record_limt=1",
                "--set: storage.memory.record_limt: unknown key; did you mean 'record_limit'?\n"},
        SetCase{"WithQuotes", "vm.max_vms=\"5\"",
                "--set: vm.max_vms: '\"5\"' is not a whole number (values are written without quotes)\n"},
        SetCase{"WithControlCharacters", "server.port_file=/a\nb",
                "--set: server.port_file: the value holds control characters\n"},
        SetCase{"ThatIsNotUtf8", "server.port_file=/\xff", "--set: server.port_file: the value is not UTF-8 text\n"},
        SetCase{"OfAnUnknownProfile", "server.profile=fire",
                "--set: server.profile: 'fire' is not mergen-fire or mergen\n"}),
    [](const auto& instance) { return std::string(instance.param.name); });

TEST(ConfigRefused, ValuesOfTheEnvironmentThatNoFileCouldHold) {
    const Configuration configuration;
    expectRefusal(configuration.arguments(),
                  "environment variable MERGEN_SERVER_PORT_FILE: server.port_file: the value holds control characters",
                  {"MERGEN_SERVER_PORT_FILE=/a\nb"});
    expectRefusal(configuration.arguments(),
                  "environment variable MERGEN_NETWORK_LINUX_TRANSIT: network.linux.transit: the value is not UTF-8",
                  {"MERGEN_NETWORK_LINUX_TRANSIT=\xff"});
}

TEST(ConfigRefused, AnEmptyVariableOfMergenWhereTheKeyTakesNoEmptyValue) {
    const Configuration configuration;
    expectRefusal(configuration.arguments(), "environment variable MERGEN_VM_MAX_VMS: vm.max_vms: '' is not a whole",
                  {"MERGEN_VM_MAX_VMS="});
}

TEST(ConfigRefused, ABadValueAlsoWhereAStrongerLayerReplacesIt) {
    const Configuration configuration("[vm]\nmax_vms = many\n[storage.memory]\nrecord_limit = many\n");
    const std::string file = configuration.file().string();
    const std::vector<std::string> arguments =
        configuration.arguments({"--set", "vm.max_vms=1", "--set", "storage.memory.record_limit=1"});
    expectRefusal(arguments, file + ":2: vm.max_vms: 'many' is not a whole number\n");
    const Configuration plugin("[storage.memory]\nrecord_limit = many\n");
    expectRefusal(plugin.arguments({"--set", "storage.memory.record_limit=1"}),
                  plugin.file().string() + ":2: storage.memory.record_limit: 'many' is not a whole number\n");
}

TEST(ConfigRefused, AFileOfConfDAsTheFileItself) {
    struct Case {
        std::string content, text;
    };
    const Case cases[] = {{"[vm]\nmax_vms = 1\nmax_vms = 1\n", ":3: vm.max_vms: the key is given already in line 2"},
                          {"[vm]\n[vm]\n", ":2: [vm]: the section stands already in line 1"},
                          {"[wm]\n", ":1: [wm]: unknown section; did you mean 'vm'?"},
                          {"[vm]\nmax_wms = 1\n", ":2: vm.max_wms: unknown key; did you mean 'max_vms'?"},
                          {"max_vms = 1\n", ":1: max_vms: the key stands before any [section]"},
                          {"[vm]\nmax_vms = \xff\n", ":2: vm: the line is not UTF-8 text"},
                          {std::string(maxIniBytes + 1, '#'), ": it is larger than 262144 bytes"},
                          {"[storage.memry]\n", ":1: [storage.memry]: there is no such plugin in "}};
    for (const auto& [content, text] : cases) {
        const Configuration configuration("[vm]\nmax_vms = 2\n");
        const fs::path file = configuration.add("a.ini", content);
        expectRefusal(configuration.arguments(), file.string() + text);
        const Configuration alone(content);
        expectRefusal(alone.arguments(), alone.file().string() + text);
    }
}

TEST(ConfigRefused, OneKeyInTwoFilesIsNoDuplicate) {
    const Configuration configuration("[vm]\nmax_vms = 1\n");
    configuration.add("a.ini", "[vm]\nmax_vms = 2\n");
    EXPECT_EQ(printed(configuration.arguments()).at("vm.max_vms").value, "2");
}

TEST(ConfigRefused, RulesOverSeveralKeysNameTheOriginOfOne) {
    const Configuration configuration;
    expectRefusal(configuration.arguments(),
                  "environment variable MGR_PORT_START: network.port_start: 40000 is less than port_start, 50000",
                  {"MGR_PORT_START=50000"});
    expectRefusal(configuration.arguments({"--set", "network.port_end=100"}),
                  "--set: network.port_end: 100 is less than port_start, 20000");
    expectRefusal(configuration.arguments(),
                  "environment variable MERGEN_STATE_DIR: paths.run_root: has 58 bytes, at most 56 are possible",
                  {"MERGEN_STATE_DIR=/" + std::string(53, 'a')});
}

TEST(ConfigRefused, FilesAndFoldersThatOthersCanWrite) {
    const Configuration configuration;
    const fs::path file = configuration.add("a.ini", "");
    const fs::path folder = file.parent_path();
    const std::string why = ", so others than its owner can write it (chmod go-w)";
    const auto refusedWith = [&](const fs::path& path, mode_t bad, mode_t good, const std::string& text) {
        ::chmod(path.c_str(), bad);
        expectRefusal(configuration.arguments(), text);
        ::chmod(path.c_str(), good);
        EXPECT_EQ(exitOf(runMergend(configuration.arguments({"--print-config"}))), exitCode::success);
    };
    const std::string called = "the configuration file " + configuration.file().string();
    refusedWith(configuration.file(), 0664, 0644, called + " has mode 0664" + why);
    refusedWith(configuration.file(), 0602, 0600, called + " has mode 0602" + why);
    refusedWith(file, 0666, 0644, "the configuration file " + file.string() + " has mode 0666" + why);
    refusedWith(folder, 0775, 0755, "the configuration folder " + folder.string() + " has mode 0775" + why);
    refusedWith(configuration.folder(), 0777, 0711, "above " + called + " has mode 0777" + why);
}

TEST(ConfigRefused, FilesOfAnotherUser) {
    if (!isRoot()) GTEST_SKIP() << "only root can give a file to another user";
    const Configuration configuration;
    ASSERT_EQ(::chown(configuration.file().c_str(), 65534, 65534), 0);
    expectRefusal(configuration.arguments(),
                  "the configuration file " + configuration.file().string() + " belongs to uid 65534");
}

TEST(ConfigRefused, WhatIsNoRegularFile) {
    const Configuration configuration;
    const fs::path fifo = configuration.folder() / "fifo";
    ASSERT_EQ(::mkfifo(fifo.c_str(), 0600), 0);
    for (const fs::path& path : {fifo, configuration.folder(), fs::path("/dev/null")}) {
        const RunResult result = runMergend({"--print-config", "--config", path.string()});
        EXPECT_EQ(exitOf(result), exitCode::config) << path;
        EXPECT_NE(result.errors, "") << path;
    }
    fs::create_directories(configuration.folder() / "conf.d");
    ::chmod((configuration.folder() / "conf.d").c_str(), 0755);
    fs::rename(fifo, configuration.folder() / "conf.d" / "a.ini");
    expectRefusal(configuration.arguments(), "it is not a regular file");
}

TEST(ConfigRefused, FilesAndFoldersThatAreNamedAndNotThere) {
    const Configuration configuration;
    expectRefusal({"--config", "/nonexistent/m.ini"}, "cannot read the configuration file /nonexistent/m.ini: ");
    expectRefusal(configuration.arguments({"--conf-dir", "/nonexistent/conf.d"}),
                  "cannot follow the configuration folder /nonexistent/conf.d: ");
    expectRefusal(configuration.arguments({"--conf-dir", configuration.file().string()}), " is not a folder");
}

TEST(ConfigRefused, ALinkInConfDIsFollowedOnlyToWhereNobodyElseCanWrite) {
    const Configuration configuration;
    configuration.add("b.ini", "");
    const TempDir other;
    const fs::path target = other.write("x.ini", "[vm]\nmax_vms = 7\n");
    fs::create_symlink(target, configuration.folder() / "conf.d" / "a.ini");
    EXPECT_EQ(printed(configuration.arguments()).at("vm.max_vms").value, "7");
    ::chmod(other.path().c_str(), 0777);
    expectRefusal(configuration.arguments(), "has mode 0777");
}

}  // namespace
}  // namespace mergen::server
