// mergend itself, with the plugins that touch nothing of the host: as an ordinary user, without KVM and namespaces.
#include <array>
#include <chrono>
#include <csignal>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sstream>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <mergen/base/fd.hpp>
#include <mergen/base/json.hpp>
#include <mergen/base/process.hpp>
#include <mergen/base/text.hpp>
#include <mergen/pluginhost/plugin_host.hpp>
#include <mergen/sdk/manifest.h>
#include <mergen/server/config.hpp>
#include <mergen/server/exit_code.hpp>
#include <mergen/server/instance.hpp>

#include "server_test_support.hpp"

namespace mergen::server {
namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;
using testing::HasSubstr;
using testing::Not;

/// How long anything may take before the test fails: far beyond what it takes, as nothing is timed.
constexpr auto patience = 120s;

std::vector<std::string> environment() {
    std::vector<std::string> result = {"PATH=/usr/sbin:/usr/bin:/sbin:/bin"};
    for (const char* const name : {"ASAN_OPTIONS", "UBSAN_OPTIONS", "LSAN_OPTIONS", "TSAN_OPTIONS"}) {
        if (const char* const value = std::getenv(name)) result.push_back(std::string(name) + "=" + value);
    }
    return result;
}

/// Waits until `fd` can be read; false after `patience`.
bool readable(int fd) {
    pollfd waiting{fd, POLLIN, 0};
    int result = 0;
    do {
        result = ::poll(&waiting, 1, static_cast<int>(std::chrono::milliseconds(patience).count()));
    } while (result < 0 && errno == EINTR);
    return result > 0;
}

RunResult runMergend(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), MERGEND);
    SpawnOptions options;
    options.arguments = std::move(arguments);
    options.environment = environment();
    return run(options, patience);
}

int exitOf(const RunResult& result) {
    return WIFEXITED(result.status) ? WEXITSTATUS(result.status) : -1;
}

/// Folders of one server, with the configuration file for it.
class Place {
public:
    explicit Place(const std::string& more = {}, const std::string& network = "stub") {
        file_ = dir_.write("mergen.ini", "[server]\nlisten = 127.0.0.1:0\nport_file = " + portFile().string() +
                                             "\n[paths]\nconfig_root = " + (dir_.path() / "config").string() +
                                             "\ndata_root = " + dataRoot().string() +
                                             "\nrun_root = " + (dir_.path() / "run").string() +
                                             "\n[backends]\nstorage = memory\nnetwork = " + network + "\n" + more);
    }
    [[nodiscard]] const fs::path& file() const noexcept { return file_; }
    [[nodiscard]] const fs::path& folder() const noexcept { return dir_.path(); }
    [[nodiscard]] fs::path portFile() const { return dir_.path() / "port"; }
    [[nodiscard]] fs::path dataRoot() const { return dir_.path() / "data"; }

private:
    TempDir dir_;
    fs::path file_;
};

/// A running mergend. Its log comes through a pipe, so that waiting for an event is waiting for a line.
class Mergend {
public:
    explicit Mergend(const Place& place, const std::string& notifySocket = {}) {
        int ends[2];
        if (::pipe2(ends, O_CLOEXEC) != 0) std::abort();
        log_ = UniqueFd(ends[0]);
        const UniqueFd writing(ends[1]);
        SpawnOptions options;
        options.arguments = {MERGEND, "--config", place.file().string()};
        options.environment = environment();
        if (!notifySocket.empty()) options.environment.push_back("NOTIFY_SOCKET=" + notifySocket);
        options.standardError = writing.get();
        pid_ = spawn(options);
        pidfd_ = UniqueFd(static_cast<int>(::syscall(SYS_pidfd_open, pid_, 0)));
    }
    ~Mergend() {
        if (pid_ == 0) return;
        ::kill(pid_, SIGKILL);
        ::waitpid(pid_, nullptr, 0);
    }
    Mergend(const Mergend&) = delete;
    Mergend& operator=(const Mergend&) = delete;

    /// The log line of `event`, or empty if the server ended before it came.
    std::string waitFor(const std::string& event) {
        for (;;) {
            for (std::size_t end = pending_.find('\n'); end != std::string::npos; end = pending_.find('\n')) {
                const std::string line = pending_.substr(0, end);
                pending_.erase(0, end + 1);
                seen_ += line + "\n";
                if (line.find("\"event\":\"" + event + "\"") != std::string::npos) return line;
            }
            if (!readable(log_.get())) return {};
            std::array<char, 4096> buffer{};
            const ssize_t got = ::read(log_.get(), buffer.data(), buffer.size());
            if (got <= 0) return {};
            pending_.append(buffer.data(), static_cast<std::size_t>(got));
        }
    }

    [[nodiscard]] bool ready() { return !waitFor("server.ready").empty(); }
    void kill(int signal) const { ::kill(pid_, signal); }
    [[nodiscard]] pid_t pid() const noexcept { return pid_; }
    [[nodiscard]] const std::string& seen() const noexcept { return seen_; }

    /// Its exit status as waitpid(2) gives it.
    int wait() {
        EXPECT_TRUE(readable(pidfd_.get())) << "mergend did not end";
        int status = -1;
        ::waitpid(pid_, &status, 0);
        pid_ = 0;
        return status;
    }

private:
    pid_t pid_ = 0;
    UniqueFd pidfd_, log_;
    std::string pending_, seen_;
};

std::string get(const std::string& port, const std::string& path) {
    const UniqueFd client(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<std::uint16_t>(std::stoi(port)));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (::connect(client.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
        return "no connection";
    const std::string request =
        "GET " + path + " HTTP/1.1\r\nHost: 127.0.0.1:" + port + "\r\nConnection: close\r\n\r\n";
    if (::write(client.get(), request.data(), request.size()) < 0) return "no request";
    std::string reply;
    std::array<char, 4096> buffer{};
    while (readable(client.get())) {
        const ssize_t got = ::read(client.get(), buffer.data(), buffer.size());
        if (got <= 0) break;
        reply.append(buffer.data(), static_cast<std::size_t>(got));
    }
    return reply;
}

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
    for (const char* const option :
         {"--config", "--check-config", "--print-config", "--list-plugins", "--new-token", "--version", "--help"}) {
        EXPECT_THAT(result.output, HasSubstr(option));
    }
    for (const ConfigKey& key : configKeys()) {
        EXPECT_THAT(result.output, HasSubstr("  " + key.key + " = " + key.defaultValue + "  (" + key.type + ")"));
    }
}

TEST(Mergend, VersionNamesItselfAndThePluginSdk) {
    const RunResult result = runMergend({"--version"});
    EXPECT_EQ(exitOf(result), exitCode::success);
    EXPECT_THAT(result.output, testing::MatchesRegex("mergend [0-9.]+ \\(plugin SDK " MERGEN_STRINGIFY(
                                   MERGEN_SDK_MAJOR) "\\.[0-9]+, .*\\)\n"));
}

TEST(Mergend, RefusesAWrongCommandLine) {
    for (const char* const argument : {"--nonsense", "--daemon", "--pidfile=/x", "--config", "serve"}) {
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
    const RunResult result = runMergend({"--config", MERGEN_INI, "--check-config"});
    EXPECT_EQ(exitOf(result), exitCode::success) << result.errors;
}

TEST(Mergend, PrintConfigGivesAFileThatPrintsTheSame) {
    const Place place("[storage.memory]\nrecord_limit = 5\n");
    const RunResult first = runMergend({"--config", place.file().string(), "--print-config"});
    ASSERT_EQ(exitOf(first), exitCode::success) << first.errors;
    EXPECT_THAT(first.output, HasSubstr("[storage.memory]\nrecord_limit = 5\n"));
    const TempDir dir;
    const RunResult second = runMergend({"--config", dir.write("p.ini", first.output).string(), "--print-config"});
    EXPECT_EQ(first.output, second.output);
}

TEST(Mergend, ListPluginsShowsEveryBackendWithItsSettings) {
    const RunResult result = runMergend({"--config", MERGEN_INI, "--list-plugins"});
    ASSERT_EQ(exitOf(result), exitCode::success) << result.errors;
    for (const char* const words :
         {"KIND +NAME +VERSION +STATE +FILE", "storage +files +[0-9.]+ +available +/", "storage +memory ",
          "supervisor +process ", "network +linux ", "network +stub ", "vmm +qemu "}) {
        EXPECT_THAT(result.output, testing::ContainsRegex(words));
    }
    EXPECT_THAT(result.output, HasSubstr("[storage.memory]\n"));
    EXPECT_THAT(result.output, HasSubstr("  record_limit = 10000  (integer)\n"));
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
        EXPECT_NO_THROW(DataRootLock(place.dataRoot()));
    }
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

TEST_F(MergendServes, AHangupEndsNothing) {
    const Place place;
    Mergend server(place);
    ASSERT_TRUE(server.ready()) << server.seen();
    server.kill(SIGHUP);
    EXPECT_FALSE(server.waitFor("server.hangup").empty());
    server.kill(SIGTERM);
    EXPECT_EQ(server.wait(), 0);
}

TEST_F(MergendServes, ASigtermWhileItStartsEndsItWithoutServing) {
    const Place place;
    Mergend server(place);
    ASSERT_FALSE(server.waitFor("server.starting").empty());
    server.kill(SIGTERM);
    EXPECT_EQ(server.wait(), 0);
    EXPECT_FALSE(fs::exists(place.portFile()));
    EXPECT_NO_THROW(DataRootLock(place.dataRoot()));
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
    EXPECT_NO_THROW(DataRootLock(place.dataRoot()));
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
    const std::string path = (place.folder() / "notify").string();
    const UniqueFd socket(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof address.sun_path - 1);
    ASSERT_EQ(::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
    const auto waitForState = [&socket](const std::string& wanted) {
        std::array<char, 512> buffer{};
        while (readable(socket.get())) {
            const ssize_t got = ::recv(socket.get(), buffer.data(), buffer.size(), 0);
            if (got > 0 && std::string_view(buffer.data(), static_cast<std::size_t>(got)).starts_with(wanted))
                return true;
        }
        return false;
    };
    Mergend server(place, path);
    ASSERT_TRUE(server.ready()) << server.seen();
    EXPECT_TRUE(waitForState("READY=1\nSTATUS=Listening on http://127.0.0.1:"));
    server.kill(SIGTERM);
    EXPECT_TRUE(waitForState("STOPPING=1\n"));
    EXPECT_EQ(server.wait(), 0);
}

}  // namespace
}  // namespace mergen::server
