#pragma once

#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <fcntl.h>
#include <filesystem>
#include <netinet/in.h>
#include <poll.h>
#include <string>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

#include <gtest/gtest.h>

#include <mergen/base/fd.hpp>
#include <mergen/base/process.hpp>

#include "server_test_support.hpp"

// mergend itself, at MERGEND, with the plugins that touch nothing of the host: as an ordinary user, without KVM and
// namespaces.
namespace mergen::server {

namespace fs = std::filesystem;

/// How long anything may take before the test fails: far beyond what it takes, as nothing is timed.
inline constexpr std::chrono::seconds patience(120);

/// What mergend finds there: nothing but what it needs, and `more` ("NAME=value").
inline std::vector<std::string> environment(const std::vector<std::string>& more) {
    std::vector<std::string> result = {"PATH=/usr/sbin:/usr/bin:/sbin:/bin"};
    for (const char* const name : {"ASAN_OPTIONS", "UBSAN_OPTIONS", "LSAN_OPTIONS", "TSAN_OPTIONS"}) {
        if (const char* const value = std::getenv(name)) result.push_back(std::string(name) + "=" + value);
    }
    result.insert(result.end(), more.begin(), more.end());
    return result;
}

/// Waits until `fd` can be read; false after `patience`.
inline bool readable(int fd) {
    pollfd waiting{fd, POLLIN, 0};
    int result = 0;
    do {
        result = ::poll(&waiting, 1, static_cast<int>(std::chrono::milliseconds(patience).count()));
    } while (result < 0 && errno == EINTR);
    return result > 0;
}

inline RunResult runMergend(std::vector<std::string> arguments, const std::vector<std::string>& variables = {}) {
    arguments.insert(arguments.begin(), MERGEND);
    SpawnOptions options;
    options.arguments = std::move(arguments);
    options.environment = environment(variables);
    return run(options, patience, /*outputLimit=*/1U << 20U);
}

inline int exitOf(const RunResult& result) {
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
    explicit Mergend(const Place& place, const std::vector<std::string>& variables = {}) {
        int ends[2];
        if (::pipe2(ends, O_CLOEXEC) != 0) std::abort();
        log_ = UniqueFd(ends[0]);
        const UniqueFd writing(ends[1]);
        SpawnOptions options;
        options.arguments = {MERGEND, "--config", place.file().string()};
        options.environment = environment(variables);
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
    std::string waitFor(const std::string& event) { return waitForText("\"event\":\"" + event + "\""); }
    /// The next line that holds `text`, whatever the log's format.
    std::string waitForText(const std::string& text) {
        for (;;) {
            for (std::size_t end = pending_.find('\n'); end != std::string::npos; end = pending_.find('\n')) {
                const std::string line = pending_.substr(0, end);
                pending_.erase(0, end + 1);
                seen_ += line + "\n";
                if (line.find(text) != std::string::npos) return line;
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

/// Stands where systemd's socket for sd_notify(3) would.
class NotifySocket {
public:
    explicit NotifySocket(const fs::path& path)
        : path_(path), socket_(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0)) {
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        path_.native().copy(address.sun_path, sizeof address.sun_path - 1);
        if (::bind(socket_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) std::abort();
    }

    [[nodiscard]] std::string variable() const { return "NOTIFY_SOCKET=" + path_.string(); }

    /// The next state that begins with `wanted`, or empty if none comes.
    std::string waitFor(const std::string& wanted) {
        std::array<char, 512> buffer{};
        while (readable(socket_.get())) {
            const ssize_t got = ::recv(socket_.get(), buffer.data(), buffer.size(), 0);
            if (got <= 0) break;
            const std::string state(buffer.data(), static_cast<std::size_t>(got));
            if (state.starts_with(wanted)) return state;
        }
        return {};
    }

private:
    fs::path path_;
    UniqueFd socket_;
};

/// The whole reply to one request.
inline std::string ask(const std::string& port, const std::string& method, const std::string& path,
                       const std::string& body = {}) {
    const UniqueFd client(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<std::uint16_t>(std::stoi(port)));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (::connect(client.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
        return "no connection";
    const std::string request =
        method + " " + path + " HTTP/1.1\r\nHost: 127.0.0.1:" + port +
        "\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: " + std::to_string(body.size()) +
        "\r\n\r\n" + body;
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

inline std::string get(const std::string& port, const std::string& path) {
    return ask(port, "GET", path);
}

}  // namespace mergen::server
