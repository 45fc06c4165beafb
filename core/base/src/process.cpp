#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <string_view>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <mergen/base/file.hpp>
#include <mergen/base/process.hpp>
#include <mergen/base/text.hpp>
#include <mergen/sdk/error.hpp>

namespace mergen {

namespace {

using Clock = std::chrono::steady_clock;

template <typename Number>
std::optional<Number> number(std::string_view text) noexcept {
    Number value{};
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
    return value;
}

UniqueFd openPidFd(pid_t pid) noexcept {
    return UniqueFd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
}

void setNonBlocking(int fd) {
    const int flags = ::fcntl(fd, F_GETFL);
    if (flags < 0 || ::fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0) {
        throw Error::fromErrno(errno, "cannot make a pipe non-blocking");
    }
}

/// The attributes and file actions of one posix_spawn(3).
class SpawnPlan {
public:
    SpawnPlan() {
        check(::posix_spawn_file_actions_init(&actions_));
        if (const int error = ::posix_spawnattr_init(&attributes_); error != 0) {
            ::posix_spawn_file_actions_destroy(&actions_);
            check(error);
        }
    }
    SpawnPlan(const SpawnPlan&) = delete;
    SpawnPlan& operator=(const SpawnPlan&) = delete;
    ~SpawnPlan() {
        ::posix_spawnattr_destroy(&attributes_);
        ::posix_spawn_file_actions_destroy(&actions_);
    }

    /// Gives the program `source` as descriptor `target`; -1 is /dev/null.
    void pass(int source, int target, UniqueFd& keep) {
        if (source < 0) {
            check(::posix_spawn_file_actions_addopen(&actions_, target, "/dev/null", O_RDWR, 0));
            return;
        }
        // A source that is itself 0, 1 or 2 would be overwritten by an earlier action: work from a copy above them.
        keep.reset(::fcntl(source, F_DUPFD_CLOEXEC, 3));
        if (!keep) check(errno);
        check(::posix_spawn_file_actions_adddup2(&actions_, keep.get(), target));
    }

    void closeOthers() { check(::posix_spawn_file_actions_addclosefrom_np(&actions_, 3)); }

    /// Signals that a parent ignores or blocks stay so across exec(2), and Poco blocks SIGPIPE: give none of it on.
    void resetSignals(bool newSession) {
        sigset_t signals;
        ::sigemptyset(&signals);
        check(::posix_spawnattr_setsigmask(&attributes_, &signals));
        ::sigfillset(&signals);
        check(::posix_spawnattr_setsigdefault(&attributes_, &signals));
        unsigned flags = POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF;
        if (newSession) flags |= POSIX_SPAWN_SETSID;
        check(::posix_spawnattr_setflags(&attributes_, static_cast<short>(flags)));
    }

    [[nodiscard]] const posix_spawn_file_actions_t* actions() const noexcept { return &actions_; }
    [[nodiscard]] const posix_spawnattr_t* attributes() const noexcept { return &attributes_; }

private:
    static void check(int error) {
        if (error != 0) throw Error::fromErrno(error, "cannot prepare a new process");
    }

    posix_spawn_file_actions_t actions_{};
    posix_spawnattr_t attributes_{};
};

std::vector<char*> pointers(const std::vector<std::string>& texts) {
    std::vector<char*> result;
    result.reserve(texts.size() + 1);
    // posix_spawn(3) takes char* for C's sake and changes nothing.
    for (const std::string& text : texts) result.push_back(const_cast<char*>(text.c_str()));
    result.push_back(nullptr);
    return result;
}

/// One end of a pipe that is read until the writer is gone; what goes beyond the limit is read and dropped, so that the
/// writer is never stopped by us.
class Collector {
public:
    Collector(UniqueFd fd, std::string& into, std::size_t limit) : fd_(std::move(fd)), into_(into), limit_(limit) {
        if (fd_) setNonBlocking(fd_.get());
    }

    [[nodiscard]] int fd() const noexcept { return fd_.get(); }

    void drain() {
        std::array<char, 16384> buffer{};
        while (fd_) {
            const ssize_t got = ::read(fd_.get(), buffer.data(), buffer.size());
            if (got > 0) {
                into_.append(buffer.data(), std::min(static_cast<std::size_t>(got), limit_ - into_.size()));
            } else if (got == 0) {
                fd_.reset();
            } else if (errno == EAGAIN) {
                return;
            } else if (errno != EINTR) {
                throw Error::fromErrno(errno, "cannot read from a pipe");
            }
        }
    }

private:
    UniqueFd fd_;
    std::string& into_;
    std::size_t limit_;
};

struct Pipe {
    UniqueFd readEnd;
    UniqueFd writeEnd;
};

Pipe makePipe() {
    std::array<int, 2> ends{};
    if (::pipe2(ends.data(), O_CLOEXEC) != 0) throw Error::fromErrno(errno, "cannot make a pipe");
    return {UniqueFd(ends[0]), UniqueFd(ends[1])};
}

int reap(pid_t pid) {
    int status = 0;
    while (::waitpid(pid, &status, 0) < 0) {
        if (errno != EINTR) throw Error::fromErrno(errno, "cannot wait for process " + std::to_string(pid));
    }
    return status;
}

/// A child that is killed and reaped if its owner throws before it has reaped it.
class Child {
public:
    Child(pid_t pid, bool leadsSession) : pid_(pid), leadsSession_(leadsSession) {}
    Child(const Child&) = delete;
    Child& operator=(const Child&) = delete;
    ~Child() {
        if (pid_ <= 0) return;
        kill();
        while (::waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
        }
    }

    void kill() const noexcept { ::kill(leadsSession_ ? -pid_ : pid_, SIGKILL); }

    [[nodiscard]] int wait() {
        const int status = reap(pid_);
        pid_ = -1;
        return status;
    }

private:
    pid_t pid_;
    bool leadsSession_;
};

}  // namespace

std::optional<ProcessIdentity> ProcessIdentity::of(pid_t pid) {
    if (pid <= 0) return std::nullopt;
    const std::string path = "/proc/" + std::to_string(pid) + "/stat";
    std::optional<std::string> stat;
    try {
        stat = readFile(path, 16384);
    } catch (const Error& error) {
        if (error.errnum() != ESRCH) throw;  // it ended between open and read
    }
    if (!stat) return std::nullopt;

    // proc(5): "pid (comm) state ppid ...". The name may hold blanks and parentheses: the last ')' ends it.
    const std::size_t nameEnd = stat->rfind(')');
    if (nameEnd == std::string::npos || nameEnd + 2 > stat->size()) {
        throw Error(ErrorKind::Internal, "cannot read " + path + ": no process name in it");
    }
    const std::vector<std::string> fields = split(std::string_view(*stat).substr(nameEnd + 2), ' ');
    constexpr std::size_t stateField = 0;   // field 3 of proc(5), the first after the name
    constexpr std::size_t startField = 19;  // field 22
    if (fields.size() <= startField) throw Error(ErrorKind::Internal, "cannot read " + path + ": too few fields");
    if (fields[stateField] == "Z" || fields[stateField] == "X") return std::nullopt;

    ProcessIdentity identity;
    identity.pid = pid;
    const auto start = number<std::uint64_t>(fields[startField]);
    if (!start) throw Error(ErrorKind::Internal, "cannot read " + path + ": the start time is no number");
    identity.startTime = *start;
    identity.bootId = mergen::bootId();
    return identity;
}

ProcessIdentity ProcessIdentity::self() {
    auto identity = of(::getpid());
    if (!identity) throw Error(ErrorKind::Unavailable, "cannot find this process in /proc");
    return *identity;
}

std::string ProcessIdentity::str() const {
    return "pid " + std::to_string(pid) + "\nstart " + std::to_string(startTime) + "\nboot " + bootId + "\n";
}

std::optional<ProcessIdentity> ProcessIdentity::parse(std::string_view text) {
    std::optional<pid_t> pid;
    std::optional<std::uint64_t> start;
    std::string boot;
    for (const std::string& line : split(text, '\n')) {
        const std::size_t blank = line.find(' ');
        if (blank == std::string::npos) continue;
        const std::string_view key = std::string_view(line).substr(0, blank);
        const std::string_view value = std::string_view(line).substr(blank + 1);
        if (key == "pid") pid = number<pid_t>(value);
        if (key == "start") start = number<std::uint64_t>(value);
        if (key == "boot") boot = value;
    }
    if (!pid || *pid <= 0 || !start || boot.empty()) return std::nullopt;
    return ProcessIdentity{*pid, *start, boot};
}

UniqueFd openProcess(const ProcessIdentity& identity) {
    if (identity.pid <= 0 || identity.bootId != bootId()) return {};
    UniqueFd fd = openPidFd(identity.pid);
    if (!fd) {
        if (errno == ESRCH || errno == EINVAL) return {};  // EINVAL: the number belongs to a thread now
        throw Error::fromErrno(errno, "cannot open process " + std::to_string(identity.pid));
    }
    // Compared after opening: if the number was given out again before we opened, the start time shows it; if after,
    // the descriptor is of the one that has ended, and the comparison fails all the same.
    if (ProcessIdentity::of(identity.pid) != identity) return {};
    return fd;
}

const std::string& bootId() {
    static const std::string id = [] {
        const auto text = readFile("/proc/sys/kernel/random/boot_id", 64);
        if (!text)
            throw Error(ErrorKind::NotSupported, "there is no /proc/sys/kernel/random/boot_id: is /proc mounted?");
        return std::string(trim(std::string_view(*text).substr(0, text->find('\n'))));
    }();
    return id;
}

pid_t spawn(const SpawnOptions& options) {
    if (options.arguments.empty() || !options.arguments.front().starts_with('/')) {
        throw Error(ErrorKind::InvalidArgument, "cannot start a program without its absolute path");
    }
    std::array<UniqueFd, 3> copies;
    SpawnPlan plan;
    plan.pass(options.standardInput, STDIN_FILENO, copies[0]);
    plan.pass(options.standardOutput, STDOUT_FILENO, copies[1]);
    plan.pass(options.standardError, STDERR_FILENO, copies[2]);
    plan.closeOthers();
    plan.resetSignals(options.newSession);

    const std::string& program = options.arguments.front();
    pid_t pid = -1;
    const int error = ::posix_spawn(&pid, program.c_str(), plan.actions(), plan.attributes(),
                                    pointers(options.arguments).data(), pointers(options.environment).data());
    if (error != 0) throw Error::fromErrno(error, "cannot execute " + program);
    return pid;
}

RunResult run(const SpawnOptions& options, std::chrono::milliseconds timeout, std::size_t outputLimit) {
    SpawnOptions actual = options;
    Pipe output;
    Pipe errors;
    if (actual.standardOutput < 0) {
        output = makePipe();
        actual.standardOutput = output.writeEnd.get();
    }
    if (actual.standardError < 0) {
        errors = makePipe();
        actual.standardError = errors.writeEnd.get();
    }
    RunResult result;
    Collector outputs(std::move(output.readEnd), result.output, outputLimit);
    Collector errorOutputs(std::move(errors.readEnd), result.errors, outputLimit);

    const Clock::time_point deadline = Clock::now() + timeout;
    const pid_t pid = spawn(actual);
    Child child(pid, actual.newSession);
    output.writeEnd.reset();
    errors.writeEnd.reset();
    const UniqueFd pidfd = openPidFd(pid);  // cannot be another's: we have not reaped it
    if (!pidfd) throw Error::fromErrno(errno, "cannot watch " + options.arguments.front());

    // Its end counts, not that of its pipes: a child that it left behind may hold those for ever.
    for (bool ended = false; !ended;) {
        std::array<pollfd, 3> polled{pollfd{pidfd.get(), POLLIN, 0}, pollfd{outputs.fd(), POLLIN, 0},
                                     pollfd{errorOutputs.fd(), POLLIN, 0}};
        const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now());
        const int ready =
            ::poll(polled.data(), polled.size(),
                   result.timedOut ? -1 : static_cast<int>(std::clamp<std::int64_t>(left.count(), 0, 1 << 30)));
        if (ready < 0 && errno != EINTR) throw Error::fromErrno(errno, "cannot wait for " + options.arguments.front());
        if (ready == 0 && Clock::now() >= deadline) {
            result.timedOut = true;
            child.kill();
        }
        ended = ready > 0 && polled[0].revents != 0;
        outputs.drain();
        errorOutputs.drain();
    }
    result.status = child.wait();
    return result;
}

std::string describeStatus(int status) {
    if (WIFEXITED(status)) return "exit status " + std::to_string(WEXITSTATUS(status));
    const int signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    const char* description = ::sigdescr_np(signal);
    return "signal " + std::to_string(signal) + (description != nullptr ? " (" + std::string(description) + ")" : "");
}

}  // namespace mergen
