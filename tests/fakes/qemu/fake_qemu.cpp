/// A stand-in for qemu-system-x86_64 that costs nothing, for tests with many VMs: takes its command line, listens on
/// the sockets that stand there, speaks as much QMP as Mergen does (query-status, cont, stop, send-key), and
/// prints to its console. There is no guest; a test plays it by signals:
///
///     SIGUSR1  the guest reboots: exit status 0
///     SIGUSR2  QEMU fails: exit status 3
///     SIGHUP   the guest prints a line
///
/// Ctrl-Alt-Del (send-key) ends it with 0. With SIGSTOP it is what it looks like: a VMM that runs and does not answer.
#include <array>
#include <cstdio>
#include <cstdlib>
#include <poll.h>
#include <signal.h>
#include <string>
#include <string_view>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <vector>

namespace {

void say(const std::string& line) {
    const std::string text = line + "\r\n";
    static_cast<void>(!::write(STDOUT_FILENO, text.data(), text.size()));
}

[[noreturn]] void end(int status, const std::string& why) {
    say("fake-qemu: " + why);
    std::_Exit(status);
}

/// The value of `path=` in the option of a socket; ",," there is a comma.
std::string socketPath(std::string_view option) {
    constexpr std::string_view key = "path=";
    std::string path;
    for (std::size_t at = option.find(key) + key.size(); at < option.size(); ++at) {
        if (option[at] == ',' && (at + 1 >= option.size() || option[++at] != ',')) break;
        path += option[at];
    }
    return path;
}

int listenOn(const std::string& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof address.sun_path - 1);
    const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || ::bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
        ::listen(fd, 8) != 0) {
        end(1, "cannot listen on " + path);
    }
    return fd;
}

/// The text or number after `"key":` in a line of QMP; Mergen's own are flat enough for that.
std::string valueOf(std::string_view line, const std::string& key) {
    std::size_t at = line.find('"' + key + "\":");
    if (at == std::string_view::npos) return {};
    at = line.find_first_not_of(" \"", at + key.size() + 3);
    return std::string(line.substr(at, line.find_first_of("\",}", at) - at));
}

class Qmp {
public:
    explicit Qmp(bool running) : running_(running) {}

    void greet(int client) const {
        send(client, R"({"QMP": {"version": {"qemu": {"micro": 0, "minor": 2, "major": 7}, "package": "fake"}, )"
                     R"("capabilities": []}})");
    }
    void answer(int client, std::string_view line) {
        const std::string command = valueOf(line, "execute");
        std::string result = "{}";
        if (command == "query-status") {
            const char* status = started_ || running_ ? (running_ ? "running" : "paused") : "prelaunch";
            result = std::string(R"({"status": ")") + status + R"(", "singlestep": false, "running": )" +
                     (running_ ? "true" : "false") + "}";
        } else if (command == "cont") {
            if (!started_ && !running_) say("fake-qemu: guest boots");
            running_ = started_ = true;
        } else if (command == "stop") {
            running_ = false;
            started_ = true;
        }
        const std::string id = valueOf(line, "id");
        send(client, "{\"return\": " + result + (id.empty() ? "" : ", \"id\": " + id) + "}");
        if (command == "send-key") end(0, "guest shuts down");
    }

private:
    static void send(int client, const std::string& text) {
        const std::string line = text + "\r\n";
        static_cast<void>(!::send(client, line.data(), line.size(), MSG_NOSIGNAL));
    }

    bool running_;
    bool started_ = false;
};

void onSignal(int signals) {
    signalfd_siginfo info{};
    if (::read(signals, &info, sizeof info) != static_cast<ssize_t>(sizeof info)) return;
    if (info.ssi_signo == SIGUSR1) end(0, "guest reboots");
    if (info.ssi_signo == SIGUSR2) end(3, "failed");
    say("fake-qemu: guest prints");
}

/// A socket and its client: one at a time, as QEMU.
struct Monitor {
    int listener = -1;
    int client = -1;
    std::string received{};

    [[nodiscard]] int awaited() const { return client < 0 ? listener : client; }

    /// Takes what there is: a client, something of it, or its end.
    void serve(Qmp& qmp) {
        if (client < 0) {
            client = ::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
            received.clear();
            if (client >= 0) qmp.greet(client);
            return;
        }
        std::array<char, 4096> chunk{};
        const ssize_t got = ::recv(client, chunk.data(), chunk.size(), 0);
        if (got <= 0) {
            ::close(client);
            client = -1;
            return;
        }
        received.append(chunk.data(), static_cast<std::size_t>(got));
        for (std::size_t eol = received.find('\n'); eol != std::string::npos; eol = received.find('\n')) {
            qmp.answer(client, received.substr(0, eol));
            received.erase(0, eol + 1);
        }
    }
};

}  // namespace

int main(int argc, char** argv) {
    sigset_t set;
    ::sigemptyset(&set);
    for (const int signal : {SIGUSR1, SIGUSR2, SIGHUP}) ::sigaddset(&set, signal);
    ::sigprocmask(SIG_BLOCK, &set, nullptr);
    const int signals = ::signalfd(-1, &set, SFD_CLOEXEC);
    std::vector<Monitor> monitors;
    bool waits = false;
    for (int i = 1; i < argc; ++i) {
        const std::string_view word = argv[i];
        if (word == "-S") waits = true;
        if (word.starts_with("socket,id=")) monitors.push_back({.listener = listenOn(socketPath(word))});
    }
    Qmp qmp(!waits);
    if (!waits) say("fake-qemu: guest boots");

    for (;;) {
        std::vector<pollfd> polled{pollfd{signals, POLLIN, 0}};
        for (const Monitor& monitor : monitors) polled.push_back({monitor.awaited(), POLLIN, 0});
        if (::poll(polled.data(), polled.size(), -1) < 0) continue;
        if (polled[0].revents != 0) onSignal(signals);
        for (std::size_t i = 0; i < monitors.size(); ++i) {
            if (polled[i + 1].revents != 0) monitors[i].serve(qmp);
        }
    }
}
