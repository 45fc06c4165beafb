#include <array>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <fcntl.h>
#include <linux/close_range.h>
#include <memory>
#include <optional>
#include <poll.h>
#include <signal.h>
#include <string>
#include <string_view>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <utility>
#include <vector>

#include <mergen/base/file.hpp>
#include <mergen/base/panic.hpp>
#include <mergen/base/process.hpp>
#include <mergen/base/text.hpp>
#include <mergen/launcher/console_log.hpp>
#include <mergen/launcher/vm_parent.hpp>
#include <mergen/sdk/error.hpp>
#include <mergen/sdk/failpoint.hpp>

#include "child.hpp"
#include "output_tail.hpp"
#include "restarts.hpp"

namespace mergen::launcher {

namespace {

/// Root only, as the whole folder: the VM's user must not be able to invent an exit.
constexpr mode_t stateFileMode = 0600;

/// The server gives us the locked file as standard input, so that the lock has been held without a gap since before we
/// were started. Makes sure that it is so, and keeps it away from the VMM.
UniqueFd takeLock(const std::filesystem::path& directory) {
    const std::filesystem::path path = directory / "parent.lock";
    struct stat given {};
    struct stat expected {};
    if (::stat(path.c_str(), &expected) != 0) throw Error::fromErrno(errno, "cannot inspect " + path.string());
    if (::fstat(STDIN_FILENO, &given) != 0 || given.st_dev != expected.st_dev || given.st_ino != expected.st_ino) {
        throw Error(ErrorKind::FailedPrecondition,
                    "standard input is not " + path.string() + ": mergen-vm is started by mergend");
    }
    UniqueFd lock = takeStandard(STDIN_FILENO);
    struct flock request {};
    request.l_type = F_WRLCK;
    request.l_whence = SEEK_SET;
    if (::fcntl(lock.get(), F_OFD_SETLK, &request) != 0) throw Error::fromErrno(errno, "cannot lock " + path.string());
    return lock;
}

/// SIGCHLD as something to poll; it must have been blocked by becomeParent().
UniqueFd openChildEvents() {
    sigset_t signals;
    ::sigemptyset(&signals);
    ::sigaddset(&signals, SIGCHLD);
    UniqueFd fd(::signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK));
    if (!fd) throw Error::fromErrno(errno, "cannot watch children");
    return moveUp(std::move(fd), "the signals");
}

/// For so many milliseconds what the VMM prints is left to gather, where it prints little.
constexpr int consolePause = 5;

/// What became of a look at the console.
enum class Pumped : std::uint8_t { Little, Much, Closed };

/// Moves what is there to read into the log, and into the tail of this run.
Pumped pump(int console, ConsoleLog& log, OutputTail& tail) {
    constexpr ssize_t much = 4096;
    std::array<char, 65536> buffer;  // NOLINT: read fills it
    const ssize_t got = ::read(console, buffer.data(), buffer.size());
    if (got > 0) {
        const std::string_view printed(buffer.data(), static_cast<std::size_t>(got));
        log.write(printed);
        tail.add(printed);
    }
    if (got > 0) return got < much ? Pumped::Little : Pumped::Much;
    return got < 0 && (errno == EAGAIN || errno == EINTR) ? Pumped::Little : Pumped::Closed;
}

void drain(int console, ConsoleLog& log, OutputTail& tail) {
    // Bounded by what the pipe holds: nobody of ours can write any more, and a stranger who was passed the descriptor
    // cannot keep us here.
    const int capacity = ::fcntl(console, F_GETPIPE_SZ);
    for (int read = 0; read <= capacity;) {
        int waiting = 0;
        if (::ioctl(console, FIONREAD, &waiting) != 0 || waiting <= 0) return;
        if (pump(console, log, tail) == Pumped::Closed) return;
        read += waiting;
    }
}

/// Reaps every other child that has ended; true when the VMM has: it is left to be reaped, so that the number of its
/// process group stays taken.
bool reapUntil(pid_t vmm) {
    for (;;) {
        siginfo_t info{};
        if (::waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) != 0) {
            if (errno == EINTR) continue;
            throw Error::fromErrno(errno, "cannot wait for the VMM");
        }
        if (info.si_pid == 0) return false;
        if (info.si_pid == vmm) return true;
        ::waitpid(info.si_pid, nullptr, WNOHANG);
    }
}

/// Our children; proc(5), /proc/PID/task/TID/children.
std::vector<pid_t> children() {
    const std::string self = std::to_string(::getpid());
    const auto text = readFile("/proc/self/task/" + self + "/children", 1U << 20U);
    std::vector<pid_t> pids;
    for (const std::string& word : split(text.value_or(""), ' ')) {
        pid_t pid = 0;
        if (std::from_chars(word.data(), word.data() + word.size(), pid).ec == std::errc()) pids.push_back(pid);
    }
    return pids;
}

/// Ends what the VMM left behind: its process group, then whoever was re-parented to us. A pid of a child that we have
/// not reaped cannot be another's. Where the VMM had a process-id namespace, orphans went to its init instead, and end
/// with `space`. Returns the VMM's status as of waitpid(2) when there is none left.
int endLeftovers(pid_t vmm, std::unique_ptr<PidNamespace> space) {
    ::kill(-vmm, SIGKILL);
    int status = 0;
    ::waitpid(vmm, &status, 0);
    space.reset();  // waits for every process of the namespace to be reaped: the VMM has been
    for (;;) {
        const std::vector<pid_t> left = children();
        if (left.empty()) return status;
        for (const pid_t pid : left) ::kill(pid, SIGKILL);
        for (const pid_t pid : left) ::waitpid(pid, nullptr, 0);
    }
}

using Clock = std::chrono::steady_clock;

/// One run of the VMM, from exec(2) to its end.
struct Run {
    ProcessIdentity identity;
    std::unique_ptr<PidNamespace> space;  // none where it has ours
    UniqueFd console;
    Clock::time_point begin;
    OutputTail tail{};
};

/// One VM: what stays the same over the runs of its VMM.
class Parent {
public:
    /// Opens what every run needs, and enters the network namespace.
    explicit Parent(const Command& command);

    /// The first run. Throws if it cannot be executed.
    [[nodiscard]] Run start();
    /// Goes on from there, through restarts, to the end that nothing follows; that one is written down.
    void keep(Run run);

private:
    void identify(const Child& child) const;
    /// Another run; nothing if the permission for it was taken away.
    [[nodiscard]] std::optional<Run> startAgain();
    /// Lives with the VMM until it has ended and nothing of it is left.
    [[nodiscard]] End awaitEnd(Run& run);
    /// Waits before a restart; false if the permission for it was taken away.
    [[nodiscard]] bool waitOut(std::chrono::milliseconds delay);
    void emptyChildEvents() const;
    void writeDown(const End& end) const;

    const Command& command_;
    ProcessSpec again_;  // what startAgain() starts
    UniqueFd childEvents_;
    ConsoleLog log_;
    Restarts restarts_;
};

Parent::Parent(const Command& command)
    : command_(command),
      again_(command.spec),
      childEvents_(openChildEvents()),
      log_(command.spec.console, command.spec.consoleLimit.count),
      restarts_(command) {
    again_.arguments = command.spec.restart.arguments;
    if (command.spec.netns) enterNetworkNamespace(*command.spec.netns);
}

/// Who it is comes before what it does: whoever finds this folder after a crash can end exactly this process.
void Parent::identify(const Child& child) const {
    writeFileAtomically(command_.directory / "vmm", child.identity().str(), stateFileMode);
}

Run Parent::start() {
    Child child(command_.spec, openTaps(command_.spec.taps));
    MERGEN_FAILPOINT("launcher.after_fork");
    identify(child);
    MERGEN_FAILPOINT("launcher.after_vmm");
    child.execute();
    return {child.identity(), child.takeNamespace(), child.takeConsole(), Clock::now()};
}

std::optional<Run> Parent::startAgain() {
    for (const std::filesystem::path& stale : command_.spec.restart.stale) removeTree(stale);
    Child child(again_, openTaps(command_.spec.taps));
    MERGEN_FAILPOINT("launcher.again.after_fork");
    identify(child);
    MERGEN_FAILPOINT("launcher.again.after_vmm");
    if (!restarts_.permitted()) return std::nullopt;  // looked for only now, see Restarts
    MERGEN_FAILPOINT("launcher.again.after_look");
    child.execute();
    return Run{child.identity(), child.takeNamespace(), child.takeConsole(), Clock::now()};
}

void Parent::emptyChildEvents() const {
    signalfd_siginfo ignored{};  // one SIGCHLD may stand for many children: the children are asked
    static_cast<void>(!::read(childEvents_.get(), &ignored, sizeof ignored));
}

End Parent::awaitEnd(Run& run) {
    for (;;) {
        std::array<pollfd, 2> polled{pollfd{childEvents_.get(), POLLIN, 0}, pollfd{run.console.get(), POLLIN, 0}};
        if (::poll(polled.data(), polled.size(), -1) < 0 && errno != EINTR) {
            throw Error::fromErrno(errno, "cannot wait for the VMM");
        }
        if (polled[1].revents != 0) {
            const Pumped pumped = pump(run.console.get(), log_, run.tail);
            // It may close its output and live on; poll(2) passes over a descriptor that is gone.
            if (pumped == Pumped::Closed) run.console.reset();
            // A serial port writes byte by byte. To be woken by each, while the guest boots, costs the guest more than
            // it costs us: what comes within a moment is taken at once.
            if (pumped == Pumped::Little) ::poll(polled.data(), 1, consolePause);
        }
        if (polled[0].revents == 0) continue;
        emptyChildEvents();
        if (reapUntil(run.identity.pid)) break;
    }
    const SystemTime at = std::chrono::system_clock::now();
    const int status = endLeftovers(run.identity.pid, std::move(run.space));
    if (run.console) drain(run.console.get(), log_, run.tail);
    End end = describe(command_.directory, run.identity, status, at);
    // A VMM ends with 0 also when the guest's kernel panics: only the console tells the two apart.
    if (!end.exit.signalled && end.exit.code == 0) end.panic = panicOf(run.tail.str()).value_or("");
    return end;
}

bool Parent::waitOut(std::chrono::milliseconds delay) {
    // There are no children: SIGCHLD now comes from a server that has taken the permission away and wants it noticed.
    const Clock::time_point end = Clock::now() + delay;
    for (;;) {
        const auto left = std::chrono::ceil<std::chrono::milliseconds>(end - Clock::now());
        if (!restarts_.permitted() || left.count() <= 0) return restarts_.permitted();
        pollfd polled{childEvents_.get(), POLLIN, 0};
        if (::poll(&polled, 1, static_cast<int>(left.count())) > 0) emptyChildEvents();
    }
}

void Parent::keep(Run run) {
    End end = awaitEnd(run);
    auto ranFor = Clock::now() - run.begin;
    for (;;) {
        const auto delay = restarts_.plan(end, std::chrono::duration_cast<std::chrono::milliseconds>(ranFor));
        if (!delay) break;
        MERGEN_FAILPOINT("launcher.again.planned");
        std::optional<Run> next;
        try {
            if (waitOut(*delay)) next = startAgain();
        } catch (const Error& error) {
            // A restart that fails is a run that ended at once, unless it failed because it was to be stopped.
            if (restarts_.permitted()) {
                restarts_.begun(std::chrono::system_clock::now());
                end = End{{false, 127, std::chrono::system_clock::now()}, {}, printable(error.what(), 1000)};
                ranFor = {};
                continue;
            }
        }
        if (!next) {
            restarts_.withdraw();
            break;
        }
        restarts_.begun(std::chrono::system_clock::now());
        end = awaitEnd(*next);
        ranFor = Clock::now() - next->begin;
    }
    MERGEN_FAILPOINT("launcher.before_exit");
    writeDown(end);
}

void Parent::writeDown(const End& end) const {
    std::string text = (end.exit.signalled ? "signalled " : "exited ") + std::to_string(end.exit.code) + "\nat " +
                       rfc3339(end.exit.at) + "\ndropped " + std::to_string(log_.dropped()) + "\n";
    if (end.sent) text += "sent " + std::to_string(end.sent->signal) + " by " + end.sent->by + "\n";
    if (!end.note.empty()) text += "note " + end.note + "\n";
    if (!end.panic.empty()) text += "panic " + end.panic + "\n";
    if (restarts_.count() > 0) text += "restarts " + std::to_string(restarts_.count()) + "\n";
    if (restarts_.exhausted()) text += "exhausted yes\n";
    writeFileAtomically(command_.directory / "exit", text, stateFileMode);
}

void noteFailure(const std::filesystem::path& directory, const Error& error) noexcept {
    try {
        writeFileAtomically(directory / "failed", printable(error.what(), 1000) + "\n", stateFileMode);
    } catch (const Error&) {
        // The launching server hears the reason itself; the note is for its successor, if it dies just now.
    }
}

}  // namespace

void becomeParent() {
    ::setsid();  // fails only if we lead a session already
    ::prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
    for (const int signal :
         {SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGPIPE, SIGALRM, SIGUSR1, SIGUSR2, SIGTSTP, SIGTTIN, SIGTTOU}) {
        ::signal(signal, SIG_IGN);
    }
    sigset_t signals;
    ::sigemptyset(&signals);
    ::sigaddset(&signals, SIGCHLD);
    ::sigprocmask(SIG_SETMASK, &signals, nullptr);
    ::umask(077);
    if (::close_range(3, ~0U, 0) != 0 || ::chdir("/") != 0)
        throw Error::fromErrno(errno, "cannot leave the server's context");
}

void runParent(const Command& command, const std::function<void()>& executed) {
    const UniqueFd lock = takeLock(command.directory);
    std::optional<Parent> parent;
    Run run = [&] {
        try {
            MERGEN_FAILPOINT("launcher.after_lock");
            writeFileAtomically(command.directory / "parent", ProcessIdentity::self().str(), stateFileMode);
            MERGEN_FAILPOINT("launcher.after_parent");
            parent.emplace(command);
            return parent->start();
        } catch (const Error& error) {
            noteFailure(command.directory, error);
            throw;
        }
    }();
    executed();
    parent->keep(std::move(run));
}

}  // namespace mergen::launcher
