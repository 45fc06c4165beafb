/// Plays Firecracker for tests: see README.md.
#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <fcntl.h>
#include <limits.h>
#include <memory>
#include <optional>
#include <poll.h>
#include <signal.h>
#include <string>
#include <strings.h>
#include <sys/inotify.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "arguments.hpp"
#include "http_server.hpp"
#include "machine.hpp"
#include "misbehaviour.hpp"

namespace {

using namespace mergen::fake;

constexpr int exitGeneric = 1;
constexpr int exitAbort = 134;
constexpr int exitBadConfiguration = 152;
constexpr int exitArguments = 153;

/// As much console as `flood=console` prints.
constexpr std::size_t floodBytes = std::size_t{16} << 20U;

/// What nobody reads is lost, as there.
void print(const std::string& text) {
    static_cast<void>(!::write(STDOUT_FILENO, text.data(), text.size()));
}

/// A line of Firecracker's log.
void log(const std::string& id, const std::string& text) {
    timeval now{};
    ::gettimeofday(&now, nullptr);
    tm local{};
    ::localtime_r(&now.tv_sec, &local);
    std::array<char, 40> time{};
    const std::size_t length = ::strftime(time.data(), time.size(), "%Y-%m-%dT%H:%M:%S", &local);
    std::snprintf(time.data() + length, time.size() - length, ".%06ld000", static_cast<long>(now.tv_usec));
    print(std::string(time.data()) + " [" + id + ":main] " + text + "\n");
}

int fail(const std::string& id, const std::string& text, int status) {
    log(id, text);
    log(id, "Firecracker exiting with error. exit_code=" + std::to_string(status));
    return status;
}

std::optional<std::string> content(const std::string& path) {
    const mergen::UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
    if (!file) return std::nullopt;
    std::string text;
    std::array<char, 4096> chunk;
    for (ssize_t got = 0; (got = ::read(file.get(), chunk.data(), chunk.size())) > 0;)
        text.append(chunk.data(), static_cast<std::size_t>(got));
    return text;
}

std::string folderOf(const std::string& path) {
    const std::size_t slash = path.rfind('/');
    return slash == std::string::npos ? "." : path.substr(0, slash + 1);
}

/// What the process does beside its API once the guest has been started.
class Life {
public:
    explicit Life(const Misbehaviour& misbehaviour) : misbehaviour_(misbehaviour) {}

    /// At the start, when everybody who is to know has been told.
    void begin() {
        begun_ = true;
        if (misbehaviour_.dieAfterStart) ::raise(SIGKILL);
        if (misbehaviour_.freeze) ::raise(SIGSTOP);
        if (misbehaviour_.flood == "console") flood_ = floodBytes;
        if (misbehaviour_.exitOnFile.empty()) {
            if (misbehaviour_.exit >= 0) ::_exit(misbehaviour_.exit);
            return;
        }
        watch_.reset(::inotify_init1(IN_CLOEXEC | IN_NONBLOCK));
        ::inotify_add_watch(watch_.get(), folderOf(misbehaviour_.exitOnFile).c_str(), IN_CREATE | IN_MOVED_TO);
        look();
    }

    [[nodiscard]] bool begun() const { return begun_; }
    /// What wakes poll(2) for look(); -1: nothing.
    [[nodiscard]] int descriptor() const { return watch_.get(); }

    /// Whether flood() has more to print.
    [[nodiscard]] bool floods() const { return flood_ > 0; }
    void flood() {
        const std::string line = std::string(1023, 'f') + "\n";
        flood_ -= std::min(flood_, line.size());
        print(line);
    }

    /// Ends if the file is there that ends it.
    void look() {
        std::array<char, 4096> events;
        while (watch_ && ::read(watch_.get(), events.data(), events.size()) > 0) {
        }
        if (::access(misbehaviour_.exitOnFile.c_str(), F_OK) == 0)
            ::_exit(misbehaviour_.exit >= 0 ? misbehaviour_.exit : exitGeneric);
    }

private:
    const Misbehaviour& misbehaviour_;
    bool begun_ = false;
    std::size_t flood_ = 0;
    mergen::UniqueFd watch_;
};

bool knownLevel(const std::string& level) {
    for (const char* known : {"Off", "Trace", "Debug", "Info", "Warn", "Warning", "Error"}) {
        if (::strcasecmp(level.c_str(), known) == 0) return true;
    }
    return false;
}

int runMachine(const Arguments& arguments, Misbehaviour& misbehaviour) {
    log(arguments.id, "Running Firecracker v" + misbehaviour.version);
    std::optional<std::string> configuration;
    if (!arguments.configFile.empty()) {
        configuration = content(arguments.configFile);
        if (!configuration) {
            log(arguments.id, "Firecracker panicked: Unable to open or read from the configuration file");
            return exitAbort;
        }
    }
    std::unique_ptr<HttpServer> server;
    if (arguments.api) {
        try {
            server = std::make_unique<HttpServer>(arguments.apiSocket, arguments.maxBody, misbehaviour);
        } catch (const std::runtime_error& error) {
            return fail(arguments.id, std::string("RunWithApiError error: ") + error.what(), exitGeneric);
        }
        log(arguments.id, "Listening on API socket (\"" + arguments.apiSocket + "\").");
    }
    Machine machine(arguments.id, misbehaviour, print);
    if (configuration) {
        try {
            machine.startFrom(*configuration,
                              arguments.metadata.empty() ? "" : content(arguments.metadata).value_or(""));
        } catch (const std::runtime_error& error) {
            return fail(arguments.id,
                        std::string(arguments.api ? "RunWithApiError" : "RunWithoutApiError") +
                            " error: Failed to build MicroVM from Json: " + error.what(),
                        exitGeneric);
        }
    }
    Life life(misbehaviour);
    while (true) {
        if (!life.begun() && machine.state() != Machine::State::NotStarted) {
            if (server) server->flush();
            life.begin();
        }
        if (machine.ended()) {
            if (server) server->flush();
            log(arguments.id, "Vmm is stopping.");
            log(arguments.id, "Firecracker exiting successfully. exit_code=0");
            return 0;
        }
        std::array<pollfd, 3> entries{pollfd{server ? server->descriptor() : -1, POLLIN, 0},
                                      pollfd{life.descriptor(), POLLIN, 0},
                                      pollfd{life.floods() ? STDOUT_FILENO : -1, POLLOUT, 0}};
        if (::poll(entries.data(), entries.size(), -1) < 0 && errno != EINTR) return exitGeneric;
        if (entries[1].revents != 0) life.look();
        if (entries[2].revents != 0) life.flood();
        if (entries[0].revents != 0) server->step([&](const Request& request) { return machine.handle(request); });
    }
}

}  // namespace

int main(int argc, char** argv) {
    Misbehaviour misbehaviour;
    if (const char* words = std::getenv("MERGEN_FAKE")) misbehaviour.read(words, "");
    Arguments arguments;
    try {
        arguments = parseArguments(argc, argv);
    } catch (const BadArguments& error) {
        return fail(arguments.id,
                    std::string("Arguments parsing error: ") + error.what() + " \\n\\nFor more information try --help.",
                    exitArguments);
    }
    if (arguments.help || arguments.version) {
        print("Firecracker v" + misbehaviour.version + "\n\n");
        return 0;
    }
    if (arguments.snapshotVersion) {
        print("v11.0.0\n");
        return 0;
    }
    for (const char c : arguments.id) {
        if (c == '-' || std::isalnum(static_cast<unsigned char>(c)) != 0) continue;
        log(arguments.id, "Firecracker panicked: Invalid instance ID: InvalidChar");
        return exitAbort;
    }
    if (!arguments.level.empty() && !knownLevel(arguments.level)) {
        return fail(arguments.id,
                    "Invalid value for logger level: Failed to parse string to level filter: " + arguments.level +
                        ".Possible values: [Error, Warning, Info, Debug]",
                    exitBadConfiguration);
    }
    if (const auto words = content(folderOf(arguments.apiSocket) + "fake")) misbehaviour.read(*words, "");
    ::fcntl(STDOUT_FILENO, F_SETFL, ::fcntl(STDOUT_FILENO, F_GETFL) | O_NONBLOCK);
    return runMachine(arguments, misbehaviour);
}
