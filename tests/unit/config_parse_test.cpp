#include <chrono>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <mergen/sdk/error.hpp>
#include <mergen/server/config.hpp>

#include "server_test_support.hpp"

namespace mergen::server {
namespace {

using namespace std::chrono_literals;
using testing::ElementsAre;
using testing::HasSubstr;

const Installation installation{"/opt/lib/mergen/plugins", "/opt/libexec/mergen"};

ServerConfig parse(std::string_view text, std::vector<std::string>* described = nullptr) {
    Problems problems;
    Notes notes;
    ServerConfig config = parseConfig(fileInput(text), installation, problems, notes);
    for (const Problem& problem : problems) {
        if (described != nullptr) {
            described->push_back(describe(problem));
        } else {
            ADD_FAILURE() << describe(problem);
        }
    }
    return config;
}

std::vector<std::string> problemsOf(std::string_view text) {
    std::vector<std::string> described;
    static_cast<void>(parse(text, &described));
    return described;
}

TEST(Config, DefaultsAreThoseOfTheDocuments) {
    const ServerConfig config = parse("");
    EXPECT_EQ(config.server.listen, (ListenAddress{"127.0.0.1", 8080}));
    EXPECT_EQ(config.server.threads, 16U);
    EXPECT_EQ(config.server.maxBody, Bytes{1U << 20U});
    EXPECT_EQ(config.server.drainTimeout, 30s);
    EXPECT_TRUE(config.server.portFile.empty());
    EXPECT_EQ(config.log.level, LogLevel::Info);
    EXPECT_EQ(config.log.format, LogFormat::Json);
    EXPECT_EQ(config.paths.configRoot, "/etc/firecracker/vm.d");
    EXPECT_EQ(config.paths.dataRoot, "/var/lib/firecracker");
    EXPECT_EQ(config.paths.runRoot, "/run/firecracker");
    EXPECT_EQ(config.paths.globalHooksDir, "/etc/firecracker/hooks.d");
    EXPECT_THAT(config.paths.imageRoots, ElementsAre("/var/lib/firecracker/images"));
    EXPECT_EQ(config.paths.pluginDir, installation.pluginDir);
    EXPECT_EQ(config.paths.libexecDir, installation.libexecDir);
    EXPECT_EQ(config.network.guestCidr.str(), "172.30.0.0/24");
    EXPECT_EQ(config.network.portStart, 20000);
    EXPECT_EQ(config.network.portEnd, 40000);
    EXPECT_EQ(config.vm.unitPrefix, "fc");
    EXPECT_THAT(config.backends.all(), ElementsAre(std::pair("storage", "files"), std::pair("supervisor", "process"),
                                                   std::pair("network", "linux")));
    EXPECT_TRUE(config.backends.vmmAuto());
}

TEST(Config, AutoStandsAloneAmongVmms) {
    Problems problems;
    Notes notes;
    static_cast<void>(parseConfig(fileInput("[backends]\nvmm = auto, qemu\n"), installation, problems, notes));
    ASSERT_EQ(problems.size(), 1U);
    EXPECT_EQ(problems[0].where, "backends.vmm");
    EXPECT_EQ(problems[0].origin.line, 2U);
}

/// A text with a value for every key that is not its default.
constexpr std::string_view everyKey = R"([server]
profile = mergen
listen = [::1]:9000
port_file = /run/port
threads = 3
max_queued = 64
max_body = 64KiB
read_timeout = 1500ms
drain_timeout = 2m
socket = /run/s.sock
socket_group = kvm
token_file = /etc/mergen/tokens
insecure = true
[log]
level = warn
format = text
[paths]
config_root = /a
data_root = /b/
run_root = /c
global_hooks_dir = /i
image_roots = /d , /e/f
plugin_dir = /g
libexec_dir = /h
[network]
guest_cidr = 10.0.0.0/16
port_start = 1
port_end = 65535
[vm]
max_vms = 7
uid_start = 100000
uid_count = 9
start_timeout = 1h
stop_grace = 0ms
kill_grace = 100ms
control_timeout = 1s
probe_interval = 0s
probe_timeout = 10ms
probe_failures = 1000
console_limit = 2GiB
events_per_vm = 20
unit_prefix = vmd
[backends]
storage = memory
supervisor = systemd
network = stub
vmm = firecracker, qemu
preflight_timeout = 3s
[storage.memory]
document_limit = 1
)";

TEST(Config, EveryKeyReachesItsField) {
    std::string text(everyKey);
    text.replace(text.find("2GiB"), 4, "1GiB");
    const ServerConfig config = parse(text);
    EXPECT_EQ(config.server.profile, Profile::Mergen);
    EXPECT_EQ(config.server.listen, (ListenAddress{"::1", 9000}));
    EXPECT_EQ(config.server.portFile, "/run/port");
    EXPECT_EQ(config.server.threads, 3U);
    EXPECT_EQ(config.server.maxQueued, 64U);
    EXPECT_EQ(config.server.maxBody, Bytes{65536});
    EXPECT_EQ(config.server.readTimeout, 1500ms);
    EXPECT_EQ(config.server.drainTimeout, 2min);
    EXPECT_EQ(config.server.socket, "/run/s.sock");
    EXPECT_EQ(config.server.socketGroup, "kvm");
    EXPECT_EQ(config.server.tokenFile, "/etc/mergen/tokens");
    EXPECT_TRUE(config.server.insecure);
    EXPECT_EQ(config.log.level, LogLevel::Warning);
    EXPECT_EQ(config.log.format, LogFormat::Text);
    EXPECT_EQ(config.paths.configRoot, "/a");
    EXPECT_EQ(config.paths.dataRoot, "/b");
    EXPECT_EQ(config.paths.runRoot, "/c");
    EXPECT_EQ(config.paths.globalHooksDir, "/i");
    EXPECT_THAT(config.paths.imageRoots, ElementsAre("/d", "/e/f"));
    EXPECT_EQ(config.paths.pluginDir, "/g");
    EXPECT_EQ(config.paths.libexecDir, "/h");
    EXPECT_EQ(config.network.guestCidr.str(), "10.0.0.0/16");
    EXPECT_EQ(config.network.portStart, 1);
    EXPECT_EQ(config.network.portEnd, 65535);
    EXPECT_EQ(config.vm.maxVms, 7U);
    EXPECT_EQ(config.vm.uidStart, 100000U);
    EXPECT_EQ(config.vm.uidCount, 9U);
    EXPECT_EQ(config.vm.startTimeout, 1h);
    EXPECT_EQ(config.vm.stopGrace, 0ms);
    EXPECT_EQ(config.vm.killGrace, 100ms);
    EXPECT_EQ(config.vm.controlTimeout, 1s);
    EXPECT_EQ(config.vm.probeInterval, 0s);
    EXPECT_EQ(config.vm.probeTimeout, 10ms);
    EXPECT_EQ(config.vm.probeFailures, 1000U);
    EXPECT_EQ(config.vm.consoleLimit, Bytes{1U << 30U});
    EXPECT_EQ(config.vm.eventsPerVm, 20U);
    EXPECT_EQ(config.vm.unitPrefix, "vmd");
    EXPECT_EQ(config.backends.storage, "memory");
    EXPECT_EQ(config.backends.supervisor, "systemd");
    EXPECT_EQ(config.backends.network, "stub");
    EXPECT_THAT(config.backends.vmms, ElementsAre("firecracker", "qemu"));
    EXPECT_EQ(config.backends.preflightTimeout, 3s);
    ASSERT_EQ(config.plugins.size(), 1U);
    EXPECT_EQ(config.plugins[0].settings().at("document_limit"), "1");
}

TEST(Config, ThePrintedOneParsesToTheSame) {
    std::string text(everyKey);
    text.replace(text.find("2GiB"), 4, "1GiB");
    const std::string printed = render(parse(text));
    for (const ConfigKey& key : configKeys()) {
        EXPECT_EQ(key.write(parse(printed)), key.write(parse(text))) << key.path();
        EXPECT_NE(key.write(parse(printed)), key.write(parse(""))) << key.path() << " should differ from its default";
    }
    EXPECT_EQ(parse(printed).settingsOf("storage", "memory"), parse(text).settingsOf("storage", "memory"));
    const std::string defaults = render(parse(""));
    for (const ConfigKey& key : configKeys()) EXPECT_EQ(key.write(parse(defaults)), key.write(parse("")));
}

TEST(Config, TheSocketStandsInTheRunRootUnlessItIsNamedOrUnwanted) {
    EXPECT_EQ(parse("").socketPath(), "/run/firecracker/mergend.sock");
    EXPECT_EQ(parse("[paths]\nrun_root = /c\n").socketPath(), "/c/mergend.sock");
    EXPECT_EQ(parse("[server]\nsocket = /s\n").socketPath(), "/s");
    EXPECT_EQ(parse("[server]\nsocket =\n").socketPath(), "");
}

TEST(Config, OtherHostsAreServedOnlyWithTokensOrWhenThatIsSaid) {
    for (const char* const address :
         {"0.0.0.0:80", "*:80", "192.0.2.7:80", "[::]:80", "[2001:db8::1]:80", "[::ffff:127.0.0.1]:80"}) {
        const std::string listen = "[server]\nlisten = " + std::string(address) + "\n";
        EXPECT_THAT(problemsOf(listen),
                    ElementsAre(testing::AllOf(testing::StartsWith("f.ini:2: server.listen: '"),
                                               testing::HasSubstr("can be reached from other hosts"),
                                               testing::HasSubstr("set token_file ('mergend --new-token NAME' makes a "
                                                                  "token), or insecure = true"))))
            << address;
        EXPECT_THAT(problemsOf(listen + "insecure = false\ntoken_file =\n"), testing::SizeIs(1)) << address;
        EXPECT_THAT(problemsOf(listen + "token_file = /t\n"), testing::IsEmpty()) << address;
        EXPECT_THAT(problemsOf(listen + "insecure = true\n"), testing::IsEmpty()) << address;
    }
    for (const char* const address : {":80", "localhost:80", "127.0.0.1:80", "127.9.9.9:80", "[::1]:80", ""}) {
        EXPECT_THAT(problemsOf("[server]\nlisten = " + std::string(address) + "\n"), testing::IsEmpty()) << address;
    }
}

TEST(Config, EveryDefaultIsWrittenAsTheTableSaysIt) {
    const ServerConfig config = parse("");
    for (const ConfigKey& key : configKeys()) {
        if (key.defaultValue.empty()) continue;  // depends on other keys, or on where the program is
        EXPECT_EQ(key.write(config), key.defaultValue) << key.section << '.' << key.key;
    }
}

struct Refused {
    const char* text;
    const char* problem;
};

class ConfigRefuses : public testing::TestWithParam<Refused> {};

TEST_P(ConfigRefuses, WithLineReasonAndSuggestion) {
    EXPECT_THAT(problemsOf(GetParam().text), ElementsAre(GetParam().problem));
}

INSTANTIATE_TEST_SUITE_P(
    All, ConfigRefuses,
    testing::Values(
        // names
        Refused{"\n[serwer]\n", "f.ini:2: [serwer]: unknown section; did you mean 'server'?"},
        Refused{"[storage]\n", "f.ini:1: [storage]: unknown section; did you mean 'storage.files'?"},
        Refused{"[backends]\nstorage = memory\n[storage]\n",
                "f.ini:3: [storage]: unknown section; did you mean 'storage.memory'?"},
        Refused{"[storag.files]\n", "f.ini:1: [storag.files]: unknown section; did you mean 'storage.files'?"},
        Refused{"[nothing-like-it]\nx = 1\n", "f.ini:1: [nothing-like-it]: unknown section"},
        Refused{"[server]\n\nlistn = :80\n", "f.ini:3: server.listn: unknown key; did you mean 'listen'?"},
        Refused{"[server]\nlevel = debug\n", "f.ini:2: server.level: unknown key; did you mean 'log.level'?"},
        Refused{"[server]\nxyzzy = 1\n", "f.ini:2: server.xyzzy: unknown key"},
        Refused{"[log]\nlevel = info\nlevel = info\n", "f.ini:3: log.level: the key is given already in line 2"},
        // types
        Refused{"[server]\nthreads = four\n", "f.ini:2: server.threads: 'four' is not a whole number"},
        Refused{"[server]\nthreads = 4.0\n", "f.ini:2: server.threads: '4.0' is not a whole number"},
        Refused{"[server]\nthreads =\n", "f.ini:2: server.threads: '' is not a whole number"},
        Refused{"[server]\nthreads = 99999999999999999999\n",
                "f.ini:2: server.threads: '99999999999999999999' is not a whole number"},
        Refused{"[server]\nthreads = 4 # four\n",
                "f.ini:2: server.threads: '4 # four' is not a whole number (a comment stands on a line of its own)"},
        Refused{"[server]\nthreads = \"4\"\n",
                "f.ini:2: server.threads: '\"4\"' is not a whole number (values are written without quotes)"},
        Refused{"[server]\nread_timeout = 10\n",
                "f.ini:2: server.read_timeout: '10' is not a duration: a whole number with ms, s, m or h"},
        Refused{"[server]\nmax_body = 1MB\n",
                "f.ini:2: server.max_body: '1MB' is not a size: a whole number of bytes, or with KiB, MiB or GiB"},
        Refused{"[log]\nlevel = loud\n", "f.ini:2: log.level: 'loud' is not debug, info, warn or error"},
        Refused{"[log]\nformat = xml\n", "f.ini:2: log.format: 'xml' is not json, text or console"},
        Refused{
            "[server]\nlisten = example.org:80\n",
            "f.ini:2: server.listen: 'example.org:80' cannot be listened on: 'example.org' is no address, and names "
            "are not looked up; write ADDRESS:PORT, [IPV6]:PORT, localhost:PORT, :PORT or *:PORT"},
        Refused{"[server]\nlisten =\nsocket =\n",
                "f.ini:2: server.listen: there is nothing to listen on, as socket is empty, too"},
        Refused{"[server]\nlisten =\nport_file = /p\n",
                "f.ini:3: server.port_file: there is no port to write, as listen is empty"},
        Refused{"[server]\nsocket = run/s\n", "f.ini:2: server.socket: 'run/s' is not an absolute path"},
        Refused{"[server]\nsocket = "
                "/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
                "aaaaaaaaaaaaa\n",
                "f.ini:2: server.socket: the socket's path has 108 bytes; at most 107 are possible"},
        Refused{"[server]\nsocket_group = a b\n",
                "f.ini:2: server.socket_group: 'a b' is no name or number of a group"},
        Refused{"[server]\ninsecure = maybe\n", "f.ini:2: server.insecure: 'maybe' is not true or false"},
        Refused{
            "[backends]\nstorage = Files\n",
            "f.ini:2: backends.storage: 'Files' is no name of a plugin: 1 to 32 lower-case letters, digits and '-'"},
        Refused{"[backends]\nvmm = qemu, qemu\n", "f.ini:2: backends.vmm: 'qemu, qemu' names 'qemu' twice"},
        Refused{"[backends]\nvmm = qemu,\n",
                "f.ini:2: backends.vmm: '' is no name of a plugin: 1 to 32 lower-case letters, digits and '-'"},
        Refused{
            "[vm]\nunit_prefix = a/b\n",
            "f.ini:2: vm.unit_prefix: 'a/b' is no beginning of a unit's name: 1 to 32 letters, digits, '-' and '_'"},
        // bounds
        Refused{"[server]\nthreads = 1\n", "f.ini:2: server.threads: '1' is out of range: 2 to 256"},
        Refused{"[server]\nthreads = 257\n", "f.ini:2: server.threads: '257' is out of range: 2 to 256"},
        Refused{"[server]\nmax_body = 17MiB\n", "f.ini:2: server.max_body: '17MiB' is out of range: 1KiB to 16MiB"},
        Refused{"[server]\nread_timeout = 999ms\n", "f.ini:2: server.read_timeout: '999ms' is out of range: 1s to 5m"},
        Refused{"[network]\nport_start = 0\n", "f.ini:2: network.port_start: '0' is out of range: 1 to 65535"},
        Refused{"[network]\nport_end = 65536\n", "f.ini:2: network.port_end: '65536' is out of range: 1 to 65535"},
        Refused{"[vm]\nuid_start = 0\n", "f.ini:2: vm.uid_start: '0' is out of range: 1000 to 4294967294"},
        Refused{"[vm]\nprobe_interval = 1ms\n",
                "f.ini:2: vm.probe_interval: '1ms' is out of range: 0, or 100ms to 24h"},
        Refused{"[vm]\nconsole_limit = 2GiB\n", "f.ini:2: vm.console_limit: '2GiB' is out of range: 4KiB to 1GiB"},
        // paths
        Refused{"[paths]\ndata_root = data\n", "f.ini:2: paths.data_root: 'data' is not an absolute path"},
        Refused{"[paths]\ndata_root =\n", "f.ini:2: paths.data_root: '' is not an absolute path"},
        Refused{"[paths]\ndata_root = /a/../b\n", "f.ini:2: paths.data_root: '/a/../b' holds '..'"},
        Refused{"[paths]\ndata_root = \"/a\"\n",
                "f.ini:2: paths.data_root: '\"/a\"' is not an absolute path (values are written without quotes)"},
        Refused{"[paths]\nimage_roots = /a,b\n", "f.ini:2: paths.image_roots: 'b' is not an absolute path"},
        Refused{"[server]\nport_file = port\n", "f.ini:2: server.port_file: 'port' is not an absolute path"},
        // rules over several keys
        Refused{"[network]\nport_start = 300\nport_end = 200\n",
                "f.ini:3: network.port_end: 200 is less than port_start, 300"},
        Refused{"[network]\nport_start = 50000\n", "f.ini:2: network.port_start: 40000 is less than port_start, 50000"},
        Refused{"[network]\nguest_cidr = 127.0.0.0/16\n",
                "f.ini:2: network.guest_cidr: '127.0.0.0/16' has no addresses that a guest can have"},
        Refused{"[network]\nguest_cidr = 169.254.7.0/24\n",
                "f.ini:2: network.guest_cidr: '169.254.7.0/24' has no addresses that a guest can have"},
        Refused{"[vm]\nuid_start = 4294967000\n",
                "f.ini:2: vm.uid_start: uid_start + uid_count leaves the 32 bits of a uid"},
        Refused{"[vm]\nuid_start = 65000\nuid_count = 1000\n",
                "f.ini:2: vm.uid_start: the uids from 65000 to 65999 include 65534, nobody, or 65535"},
        Refused{"[paths]\nrun_root = /var/lib/firecracker/run\n",
                "f.ini:2: paths.run_root: /var/lib/firecracker/run lies within paths.data_root: each needs a folder of "
                "its own"},
        Refused{"[paths]\nconfig_root = /x\ndata_root = /x\n",
                "f.ini:2: paths.config_root: /x is also paths.data_root: each needs a folder of its own"},
        Refused{
            "[paths]\nrun_root = /123456789/123456789/123456789/123456789/123456789/123456\n",
            "f.ini:2: paths.run_root: has 57 bytes, at most 56 are possible: the path of a unix socket below it ends "
            "at 107"},
        Refused{"[paths]\nimage_roots = /srv/images, /var/lib\n",
                "f.ini:2: paths.image_roots: /var/lib includes paths.data_root: a VM could be made from the disks and "
                "records of others"}));

TEST(Config, RefusesWhatIsNoNetwork) {
    for (const char* const text :
         {"172.30.0.0", "172.30.0.1/24", "172.30.0.0/31", "172.30.0/24", "::/8", "", "172.30.0.0/24 # guests"}) {
        EXPECT_THAT(problemsOf("[network]\nguest_cidr = " + std::string(text) + "\n"),
                    ElementsAre(HasSubstr("f.ini:2: network.guest_cidr: ")));
    }
}

TEST(Config, TheLongestRunRootThatKeepsSocketsShortEnoughIsTaken) {
    EXPECT_THAT(problemsOf("[paths]\nrun_root = /123456789/123456789/123456789/123456789/123456789/12345\n"),
                ElementsAre());
}

TEST(Config, AllThatIsWrongIsSaidAtOnceInTheOrderOfLines) {
    EXPECT_THAT(problemsOf("[vm]\nmax_vms = 0\nfoo\n[sever]\nthreads = 1\n[backends]\nnetwork = a b\n"),
                ElementsAre(HasSubstr("f.ini:2: vm.max_vms: "), HasSubstr("f.ini:3: vm: 'foo' lacks '='"),
                            HasSubstr("f.ini:4: [sever]: unknown section"), HasSubstr("f.ini:7: backends.network: ")));
}

TEST(Config, AKeyThatWasRefusedBringsNoErrorOfARuleOverSeveral) {
    EXPECT_EQ(problemsOf("[network]\nport_start = 0\nport_end = 1\n").size(), 1U);
}

TEST(Config, FindsWhatWasInstalledBesideTheProgram) {
    const TempDir dir;
    const auto built = Installation::around(dir.path() / "bin" / "mergend");
    EXPECT_EQ(built.pluginDir, dir.path() / "lib/mergen/plugins");
    EXPECT_EQ(built.libexecDir, dir.path() / "bin");
    std::filesystem::create_directories(dir.path() / "libexec/mergen");
    EXPECT_EQ(Installation::around(dir.path() / "bin" / "mergend").libexecDir, dir.path() / "libexec/mergen");
}

}  // namespace
}  // namespace mergen::server
