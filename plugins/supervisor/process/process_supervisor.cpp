#include "process_supervisor.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <fcntl.h>
#include <poll.h>
#include <set>
#include <signal.h>
#include <string_view>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/select.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <utility>

#include <mergen/base/file.hpp>
#include <mergen/base/rollback.hpp>
#include <mergen/base/text.hpp>
#include <mergen/sdk/error.hpp>
#include <mergen/sdk/failpoint.hpp>

namespace mergen::supervisor {

namespace {

using Clock = std::chrono::steady_clock;
using namespace std::chrono_literals;

/// How long a process that has got SIGKILL may take. It is gone in microseconds, unless a device keeps it.
constexpr auto killGrace = 5s;
// No watch has these ids.
constexpr std::uint64_t stopMark = 0;
constexpr std::uint64_t changesMark = ~std::uint64_t{0};

Clock::time_point deadlineAfter(std::chrono::milliseconds time) {
    // A caller may say "for ever" by a number that the clock cannot add.
    return Clock::now() + std::clamp<std::chrono::milliseconds>(time, 0ms, 24h * 365);
}

[[noreturn]] void refuse(const std::string& why) {
    throw Error(ErrorKind::InvalidArgument, why);
}

void checkWord(const std::string& what, const std::string& word) {
    if (word.find('\0') != std::string::npos) refuse(what + " '" + printable(word) + "' has a NUL in it");
}

void checkAbsolute(const std::string& what, const std::filesystem::path& path) {
    checkWord(what, path.native());
    if (!path.is_absolute()) refuse(what + " '" + printable(path.native()) + "' is no absolute path");
}

/// mergen-vm takes nothing from the environment; in test builds the failpoints, so that it can be made to fail as well.
std::vector<std::string> parentEnvironment() {
    std::vector<std::string> environment;
#ifdef MERGEN_WITH_FAILPOINTS
    if (const char* armed = std::getenv("MERGEN_FAILPOINTS")) {
        environment.push_back(std::string("MERGEN_FAILPOINTS=") + armed);
    }
#endif
    return environment;
}

/// One line from mergen-vm, or what came before it closed the pipe; nothing at the deadline.
std::optional<std::string> readReport(const UniqueFd& pipe, Clock::time_point deadline) {
    std::string line;
    for (;;) {
        if (!awaitEnd(pipe, deadline)) return std::nullopt;
        std::array<char, 2048> buffer{};
        const ssize_t got = ::read(pipe.get(), buffer.data(), buffer.size());
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) throw Error::fromErrno(errno, "cannot hear from mergen-vm");
        line.append(buffer.data(), static_cast<std::size_t>(got));
        const std::size_t end = line.find('\n');
        if (end != std::string::npos || got == 0) return line.substr(0, end);
    }
}

/// "failed KIND TEXT" as the error that it was.
Error toError(std::string_view report) {
    constexpr std::string_view prefix = "failed ";
    if (report.starts_with(prefix)) {
        report.remove_prefix(prefix.size());
        const std::string_view word = report.substr(0, report.find(' '));
        for (int value = 0; value <= static_cast<int>(ErrorKind::Internal); ++value) {
            const auto kind = static_cast<ErrorKind>(value);
            if (toString(kind) == word && report.size() > word.size()) {
                return {kind, std::string(report.substr(word.size() + 1))};
            }
        }
    }
    return {ErrorKind::Unavailable,
            report.empty() ? "mergen-vm ended without a word" : "mergen-vm said '" + printable(report) + "'"};
}

/// Takes the exit status of our own child; nothing if it runs or was launched by an earlier server.
std::optional<int> reap(const UniqueFd& pidfd) noexcept {
    siginfo_t info{};
    int result = -1;
    while ((result = ::waitid(P_PIDFD, static_cast<id_t>(pidfd.get()), &info, WEXITED | WNOHANG)) != 0 &&
           errno == EINTR) {
    }
    if (result != 0 || info.si_pid == 0) return std::nullopt;
    return info.si_status;
}

}  // namespace

const mergen_key ProcessSupervisor::keys[] = {
    {"launcher", MERGEN_KEY_PATH, "",
     "Absolute path of mergen-vm, the parent of each VM. Empty: the one in Mergen's libexec folder."},
    {"launch_timeout", MERGEN_KEY_DURATION, "10s",
     "How long mergen-vm may take to execute a VMM before the launch is given up; 100ms to 10m."},
    {"restart_delay", MERGEN_KEY_DURATION, "100ms",
     "How long a VMM that ended is waited with before its restart policy starts it again, the first time; each time "
     "after that twice as long; 1ms to 1h."},
    {"restart_delay_max", MERGEN_KEY_DURATION, "30s", "The longest that this may become; 1ms to 24h."},
    {"restart_reset", MERGEN_KEY_DURATION, "60s",
     "After a run that lasted so long the delay is restart_delay again, and restarts are counted anew; 1ms to 24h."},
    {nullptr, MERGEN_KEY_STRING, nullptr, nullptr}};

ProcessSupervisor::~ProcessSupervisor() {
    stop();
}

void ProcessSupervisor::configure(Host& host) {
    launcher_ = host.settings().path("launcher");
    if (launcher_.empty()) launcher_ = host.paths().libexec / "mergen-vm";
    checkAbsolute("launcher", launcher_);
    launchTimeout_ = host.settings().duration("launch_timeout");
    if (launchTimeout_ < 100ms || launchTimeout_ > 10min) refuse("launch_timeout must be from 100ms to 10m");
    const auto within = [&](const std::string& key, std::chrono::milliseconds most, const std::string& bounds) {
        const std::chrono::milliseconds time = host.settings().duration(key);
        if (time < 1ms || time > most) refuse(key + " must be from " + bounds);
        return time;
    };
    restartDelay_ = within("restart_delay", 1h, "1ms to 1h");
    restartDelayMax_ = within("restart_delay_max", 24h, "1ms to 24h");
    restartReset_ = within("restart_reset", 24h, "1ms to 24h");
    if (restartDelayMax_ < restartDelay_) refuse("restart_delay_max is less than restart_delay");
    root_ = host.paths().runRoot / "supervisor";
    host_ = &host;
}

void ProcessSupervisor::start() {
    if (!UniqueFd(static_cast<int>(::syscall(SYS_pidfd_open, ::getpid(), 0)))) {
        throw Error(ErrorKind::NotSupported, "this kernel has no pidfd_open(2): Linux 5.10 or newer is needed");
    }
    if (::access(launcher_.c_str(), X_OK) != 0)
        throw Error::fromErrno(errno, "cannot use the launcher " + launcher_.string());
    makeDirectories(root_, 0700);
    struct stat status {};
    if (::lstat(root_.c_str(), &status) != 0) throw Error::fromErrno(errno, "cannot inspect " + root_.string());
    if (!S_ISDIR(status.st_mode) || status.st_uid != ::geteuid() || (status.st_mode & 077) != 0) {
        throw Error(ErrorKind::PermissionDenied,
                    "cannot use " + root_.string() + ": it must be a folder of this user with mode 0700");
    }
    // What begins with our mark was being made or removed when a server was killed; no process belongs to it.
    const std::string mark = "." + host_->instance() + ".";
    for (const std::string& name : listDirectory(root_)) {
        if (name.starts_with(mark)) removeTree(root_ / name);
    }

    Rollback undo;
    undo.add([this] { stop(); });
    epoll_.reset(::epoll_create1(EPOLL_CLOEXEC));
    if (!epoll_) throw Error::fromErrno(errno, "cannot watch processes");
    stopEvent_.reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.u64 = stopMark;
    if (!stopEvent_ || ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, stopEvent_.get(), &event) != 0) {
        throw Error::fromErrno(errno, "cannot watch processes");
    }
    changes_.reset(::inotify_init1(IN_CLOEXEC | IN_NONBLOCK));
    event.data.u64 = changesMark;
    if (!changes_ || ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, changes_.get(), &event) != 0) {
        throw Error::fromErrno(errno, "cannot watch " + root_.string());
    }
    adopt();
    thread_ = std::jthread([this](const std::stop_token& stop) { run(stop); });
    undo.commit();
}

void ProcessSupervisor::stop() noexcept {
    thread_ = {};  // asks it to stop and waits
    const std::lock_guard lock(mutex_);
    watches_.clear();
    epoll_.reset();
    stopEvent_.reset();
    changes_.reset();
}

Health ProcessSupervisor::health() const {
    if (::access(launcher_.c_str(), X_OK) == 0) return {};
    return {false, Error::fromErrno(errno, "cannot use the launcher " + launcher_.string()).what()};
}

SupervisorTraits ProcessSupervisor::traits() const noexcept {
    return {.survivesServer = true, .systemd = false};
}

void ProcessSupervisor::setExitListener(ExitListener* listener) noexcept {
    const std::lock_guard lock(listenerMutex_);
    listener_ = listener;
}

std::filesystem::path ProcessSupervisor::folderOf(const OwnerTag& owner) const {
    return root_ / owner.vm.str();
}

std::filesystem::path ProcessSupervisor::hidden(const OwnerTag& owner) const {
    return root_ / ("." + owner.instance + "." + owner.vm.str());
}

void ProcessSupervisor::validate(const ProcessSpec& spec) const {
    if (spec.owner.instance != host_->instance()) {
        refuse("owner '" + spec.owner.str() + "' is not of this instance, " + host_->instance());
    }
    if (spec.arguments.empty()) refuse("arguments are empty: there is no program");
    checkAbsolute("program", spec.arguments.front());
    for (const std::string& argument : spec.arguments) checkWord("argument", argument);
    for (const std::string& variable : spec.environment) {
        checkWord("environment variable", variable);
        if (variable.find('=') == std::string::npos || variable.starts_with('=')) {
            refuse("environment variable '" + printable(variable) + "' is not KEY=value");
        }
    }
    checkAbsolute("working directory", spec.workingDirectory);
    checkAbsolute("console", spec.console);
    if (!spec.console.has_filename()) refuse("console '" + spec.console.string() + "' is no file");
    if (spec.consoleLimit.count == 0) refuse("the console limit is 0 bytes");
    if (spec.netns) checkAbsolute("network namespace", *spec.netns);
    if (spec.restart.policy != RestartPolicy::No) {
        if (spec.restart.arguments.empty()) refuse("there is no command line for a restart");
        checkAbsolute("program of a restart", spec.restart.arguments.front());
        for (const std::string& argument : spec.restart.arguments) checkWord("argument of a restart", argument);
        for (const std::filesystem::path& stale : spec.restart.stale) checkAbsolute("stale file", stale);
    }
    constexpr std::uint32_t noId = ~0U;  // "leave as it is" to setresuid(2)
    if (spec.credentials.uid == noId || spec.credentials.gid == noId) refuse("4294967295 is no user or group id");
    std::set<int> descriptors;
    for (const InheritedTap& tap : spec.taps) {
        if (tap.fd < 3 || tap.fd > 63 || !descriptors.insert(tap.fd).second) {
            refuse("tap " + tap.name.str() + ": descriptor " + std::to_string(tap.fd) +
                   " is not from 3 to 63 or given twice");
        }
    }
}

void ProcessSupervisor::removeQuietly(const std::filesystem::path& folder) const noexcept {
    try {
        removeTree(folder);
    } catch (const Error& error) {
        host_->log().warning("supervisor.process.undo_failed", {{"folder", folder.string()}, {"error", error.what()}});
    }
}

/// The intent: once the folder has its name, list() knows of the launch. Gives the file whose lock is the VM's life.
UniqueFd ProcessSupervisor::makeFolder(const ProcessSpec& spec) const {
    const std::filesystem::path aside = hidden(spec.owner);
    removeTree(aside);
    makeDirectories(aside, 0700);
    Rollback undo;
    undo.add([&] { removeQuietly(aside); });
    MERGEN_FAILPOINT("supervisor.process.after_folder");
    UniqueFd lock = openFile(aside / "parent.lock", O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, 0600);
    lockLife(lock);
    writeFileAtomically(aside / "owner", spec.owner.str() + "\n", 0600);
    MERGEN_FAILPOINT("supervisor.process.before_intent");
    if (::rename(aside.c_str(), folderOf(spec.owner).c_str()) != 0) {
        if (errno == ENOTEMPTY || errno == EEXIST) {
            throw Error(ErrorKind::AlreadyExists, "VM " + spec.owner.vm.str() + " has a process that is not forgotten");
        }
        throw Error::fromErrno(errno, "cannot make " + folderOf(spec.owner).string());
    }
    undo.commit();
    return lock;
}

void ProcessSupervisor::discardFolder(const OwnerTag& owner) const {
    // Out of sight at once, then piece by piece: a crash in between leaves nothing that looks like a VM.
    const std::filesystem::path aside = hidden(owner);
    removeTree(aside);
    if (::rename(folderOf(owner).c_str(), aside.c_str()) != 0) {
        if (errno == ENOENT) return;
        throw Error::fromErrno(errno, "cannot remove " + folderOf(owner).string());
    }
    MERGEN_FAILPOINT("supervisor.process.mid_forget");
    removeTree(aside);
}

std::vector<std::string> ProcessSupervisor::commandLine(const ProcessSpec& spec) const {
    std::vector<std::string> words{launcher_.native(),
                                   "--dir",
                                   folderOf(spec.owner).native(),
                                   "--owner",
                                   spec.owner.str(),
                                   "--uid",
                                   std::to_string(spec.credentials.uid),
                                   "--gid",
                                   std::to_string(spec.credentials.gid),
                                   "--console",
                                   spec.console.native(),
                                   "--console-limit",
                                   std::to_string(spec.consoleLimit.count),
                                   "--cwd",
                                   spec.workingDirectory.native()};
    const auto add = [&words](std::string option, std::string value) {
        words.push_back(std::move(option));
        words.push_back(std::move(value));
    };
    if (spec.netns) add("--netns", spec.netns->native());
    if (spec.pidNamespace) add("--pid-namespace", "new");
    if (!spec.groups.empty()) {
        std::string groups;
        for (const std::uint32_t group : spec.groups) groups += (groups.empty() ? "" : ",") + std::to_string(group);
        add("--groups", groups);
    }
    for (const InheritedTap& tap : spec.taps) add("--tap", tap.name.str() + "=" + std::to_string(tap.fd));
    for (const std::string& variable : spec.environment) add("--env", variable);
    if (const RestartPlan& restart = spec.restart; restart.policy != RestartPolicy::No) {
        add("--restart", std::string(toString(restart.policy)));
        add("--max-restarts", std::to_string(restart.maxRestarts));
        add("--restart-delay", std::to_string(restartDelay_.count()));
        add("--restart-delay-max", std::to_string(restartDelayMax_.count()));
        add("--restart-reset", std::to_string(restartReset_.count()));
        for (const std::string& word : restart.arguments) add("--again", word);
        for (const std::filesystem::path& stale : restart.stale) add("--stale", stale.native());
    }
    words.emplace_back("--");
    words.insert(words.end(), spec.arguments.begin(), spec.arguments.end());
    return words;
}

pid_t ProcessSupervisor::spawnParent(const ProcessSpec& spec, const UniqueFd& lock, const UniqueFd& report) const {
    SpawnOptions options;
    options.arguments = commandLine(spec);
    options.environment = parentEnvironment();
    options.standardInput = lock.get();
    options.standardOutput = report.get();
    options.newSession = true;
    return spawn(options);
}

ProcessStatus ProcessSupervisor::launch(const ProcessSpec& spec) {
    validate(spec);
    const Clock::time_point deadline = deadlineAfter(launchTimeout_);
    std::array<int, 2> ends{};
    if (::pipe2(ends.data(), O_CLOEXEC) != 0) throw Error::fromErrno(errno, "cannot make a pipe");
    const UniqueFd report(ends[0]);
    UniqueFd reportEnd(ends[1]);

    UniqueFd lock = makeFolder(spec);
    UniqueFd parent;
    Parent state = Parent::Works;
    bool nothingRuns = true;
    Rollback undo;  // after what its undos use
    undo.add([&] {
        if (nothingRuns) removeQuietly(folderOf(spec.owner));
    });
    MERGEN_FAILPOINT("supervisor.process.after_intent");

    const pid_t pid = spawnParent(spec, lock, reportEnd);
    parent.reset(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));  // ours and not reaped: no other can have it
    if (!parent) {
        const int error = errno;
        ::kill(pid, SIGKILL);
        while (::waitpid(pid, nullptr, 0) < 0 && errno == EINTR) {
        }
        throw Error::fromErrno(error, "cannot watch mergen-vm");
    }
    // From here on the lock is the parent's alone, and the end of the report is that of everyone who has not executed.
    lock.reset();
    reportEnd.reset();
    undo.add([&] { nothingRuns = abandon(spec.owner, parent, report, state); });
    MERGEN_FAILPOINT("supervisor.process.after_spawn");

    const std::optional<std::string> said = readReport(report, deadline);
    if (!said) {
        state = Parent::Hangs;
        throw Error(ErrorKind::Timeout, "mergen-vm has not executed " + spec.arguments.front() + " within " +
                                            std::to_string(launchTimeout_.count()) + " ms");
    }
    if (*said != "executed") {
        state = Parent::Ends;
        throw toError(*said);
    }
    MERGEN_FAILPOINT("supervisor.process.after_report");

    Observation seen = observe(folderOf(spec.owner));
    UniqueFd watched(::fcntl(parent.get(), F_DUPFD_CLOEXEC, 0));
    if (!watched) throw Error::fromErrno(errno, "cannot watch mergen-vm");
    watch(spec.owner, std::move(seen.parent), std::move(watched));
    undo.add([&] { static_cast<void>(unwatch(spec.owner.vm)); });
    MERGEN_FAILPOINT("supervisor.process.after_watch");
    undo.commit();
    return std::move(seen.status);
}

/// Ends a launch that failed; true when there is neither parent nor VMM. If not, the folder must stay, so that list()
/// knows of what is left.
bool ProcessSupervisor::abandon(const OwnerTag& owner, const UniqueFd& parent, const UniqueFd& report,
                                Parent state) const noexcept {
    try {
        // A parent that has said why it failed ends by itself. If there is a VMM, its parent cleans up after it as
        // always, also after what the VMM has started. If there is none yet, or if the parent hangs, it is killed.
        bool orderly = false;
        const Observation before = observe(folderOf(owner));
        if (before.vmm && state != Parent::Hangs) sendSignal(before.vmm, SIGKILL);
        if (state == Parent::Ends || (before.vmm && state != Parent::Hangs))
            orderly = awaitEnd(parent, deadlineAfter(killGrace));
        if (!orderly) sendSignal(parent, SIGKILL);
        if (!awaitEnd(parent, deadlineAfter(killGrace))) throw Error(ErrorKind::Timeout, "mergen-vm does not end");
        static_cast<void>(reap(parent));
        // The child of a killed parent holds the report until it has seen that nobody lets it go on, or has executed.
        for (auto rest = readReport(report, deadlineAfter(killGrace)); rest && !rest->empty();) {
            rest = readReport(report, deadlineAfter(killGrace));
        }
        if (const Observation seen = observe(folderOf(owner)); seen.vmm) {
            sendSignal(seen.vmm, SIGKILL);
            if (!awaitEnd(seen.vmm, deadlineAfter(killGrace))) throw Error(ErrorKind::Timeout, "the VMM does not end");
        }
        return true;
    } catch (const Error& error) {
        host_->log().error("supervisor.process.undo_failed", {{"vm", owner.vm.str()}, {"error", error.what()}});
        return false;
    }
}

ProcessStatus ProcessSupervisor::status(const OwnerTag& owner) const {
    Observation seen = observe(folderOf(owner));
    if (seen.status.owner != owner)
        return {.owner = owner, .state = ProcessState::Absent, .pid = 0, .exit = {}, .note = {}};
    return std::move(seen.status);
}

std::vector<ProcessStatus> ProcessSupervisor::list() const {
    std::vector<ProcessStatus> all;
    for (const std::string& name : listDirectory(root_)) {
        if (name.starts_with('.')) continue;
        Observation seen = observe(root_ / name);
        // Another instance that shares the run folder has its own; a folder that was forgotten while we looked is
        // Absent.
        if (seen.status.state == ProcessState::Absent || seen.status.owner.instance != host_->instance()) continue;
        all.push_back(std::move(seen.status));
    }
    return all;
}

void ProcessSupervisor::permitRestarts(const OwnerTag& owner, bool permitted) {
    const std::filesystem::path file = folderOf(owner) / "restart";
    const Observation seen = observe(folderOf(owner));
    if (seen.status.owner != owner) return;
    if (permitted) {
        if (seen.status.state == ProcessState::Running) writeFileAtomically(file, "", 0600);
        return;
    }
    // Why this order, removal first and whoever signals after it, stops every restart: see Restarts of core/launcher.
    if (::unlink(file.c_str()) != 0 && errno != ENOENT) throw Error::fromErrno(errno, "cannot remove " + file.string());
    MERGEN_FAILPOINT("supervisor.process.after_forbid");
    // A parent that waits to start it again looks at once; to any other one this is a SIGCHLD without a child.
    if (const UniqueFd parent = seen.parent ? openProcess(*seen.parent) : UniqueFd()) sendSignal(parent, SIGCHLD);
}

std::vector<PastRun> ProcessSupervisor::pastRuns(const OwnerTag& owner) const {
    if (status(owner).state == ProcessState::Absent) return {};
    return readPastRuns(folderOf(owner));
}

bool ProcessSupervisor::signal(const OwnerTag& owner, int signal, std::string_view by) {
    const bool word = !by.empty() && by.size() <= 40 &&
                      std::ranges::all_of(by, [](char c) { return (c >= 'a' && c <= 'z') || c == '-'; });
    if (!word) refuse("'" + printable(by) + "' is no word to say who sends a signal");
    const Observation seen = observeStarted(folderOf(owner), deadlineAfter(launchTimeout_));
    if (seen.status.owner != owner || !seen.vmm) return false;
    try {
        noteSignal(folderOf(owner), *seen.vmmIdentity, SentSignal{signal, std::string(by)});
    } catch (const Error& error) {
        // What gives room back must not need room: it is ended all the same, and later nobody knows by whom.
        if (error.kind() != ErrorKind::ResourceExhausted) throw;
        host_->log().warning("supervisor.process.signal_not_noted", {{"vm", owner.vm.str()}, {"error", error.what()}});
    }
    return sendSignal(seen.vmm, signal);
}

ProcessStatus ProcessSupervisor::waitExit(const OwnerTag& owner, std::chrono::milliseconds timeout) const {
    const Clock::time_point deadline = deadlineAfter(timeout);
    for (;;) {
        const Observation seen = observeStarted(folderOf(owner), deadline);
        if (seen.status.owner != owner || seen.status.state != ProcessState::Running || !seen.next ||
            !awaitEnd(seen.next, deadline)) {
            return status(owner);
        }
    }
}

void ProcessSupervisor::forget(const OwnerTag& owner) {
    const Observation seen = observe(folderOf(owner));
    if (seen.status.owner != owner) return;
    if (seen.status.state == ProcessState::Running || seen.held) {
        throw Error(ErrorKind::FailedPrecondition, "cannot forget the process of VM " + owner.vm.str() +
                                                       (seen.held ? ": " + seen.status.note : " while it is running"));
    }
    if (const std::optional<Watch> watch = unwatch(owner.vm)) static_cast<void>(reap(watch->pidfd));
    discardFolder(owner);
}

void ProcessSupervisor::adopt() {
    const Clock::time_point deadline = deadlineAfter(launchTimeout_);
    std::int64_t running = 0;
    std::int64_t ended = 0;
    for (const std::string& name : listDirectory(root_)) {
        if (name.starts_with('.')) continue;
        // A launch that our predecessor did not live to see the end of: mergen-vm is done with it in milliseconds.
        Observation seen = observeStarted(root_ / name, deadline);
        const OwnerTag owner = seen.status.owner;
        if (seen.status.state == ProcessState::Absent || owner.instance != host_->instance()) continue;
        if (seen.starting && seen.parent) {
            if (const UniqueFd parent = openProcess(*seen.parent)) {
                host_->log().warning("supervisor.process.launch_given_up", {{"vm", owner.vm.str()}});
                sendSignal(parent, SIGKILL);
                static_cast<void>(awaitEnd(parent, deadlineAfter(killGrace)));
            }
            seen = observeStarted(root_ / name, deadlineAfter(killGrace));
        }
        ++(seen.status.state == ProcessState::Running ? running : ended);
        if (seen.orphan) sendSignal(seen.next, SIGKILL);
        if (seen.next) watch(owner, std::move(seen.parent), std::move(seen.next));
    }
    host_->log().info("supervisor.process.adopted", {{"running", running}, {"ended", ended}});
}

void ProcessSupervisor::watch(const OwnerTag& owner, std::optional<ProcessIdentity> parent, UniqueFd pidfd) {
    // One per VM and kept for long: out of the way of libraries that wait by select(2), which takes none above 1023.
    if (UniqueFd high(::fcntl(pidfd.get(), F_DUPFD_CLOEXEC, FD_SETSIZE)); high) pidfd = std::move(high);
    const std::lock_guard lock(mutex_);
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.u64 = ++lastWatch_;
    if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, pidfd.get(), &event) != 0) {
        throw Error::fromErrno(errno, "cannot watch the process of VM " + owner.vm.str());
    }
    // If the folder cannot be watched, restarts are told late: with the end, or by the next server.
    const int folder =
        ::inotify_add_watch(changes_.get(), folderOf(owner).c_str(), IN_MOVED_TO | IN_ONLYDIR | IN_DONT_FOLLOW);
    if (folder < 0) {
        host_->log().warning("supervisor.process.restarts_told_late", {{"vm", owner.vm.str()}, {"errno", errno}});
    }
    watches_.insert_or_assign(owner.vm, Watch{lastWatch_, std::move(parent), std::move(pidfd), folder});
}

std::optional<ProcessSupervisor::Watch> ProcessSupervisor::unwatch(const Uuid& vm) {
    const std::lock_guard lock(mutex_);
    const auto at = watches_.find(vm);
    if (at == watches_.end()) return std::nullopt;
    Watch watch = std::move(at->second);
    watches_.erase(at);
    // By hand: a process that is being spawned has a copy of the descriptor for a moment, so closing ours is not
    // enough.
    ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, watch.pidfd.get(), nullptr);
    if (watch.folder >= 0) ::inotify_rm_watch(changes_.get(), watch.folder);
    return watch;
}

void ProcessSupervisor::run(const std::stop_token& stop) {
    const std::stop_callback wake(stop, [this] { ::eventfd_write(stopEvent_.get(), 1); });
    std::array<epoll_event, 64> events{};
    while (!stop.stop_requested()) {
        const int count = ::epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), -1);
        for (int i = 0; i < count; ++i) {
            const std::uint64_t id = events[static_cast<std::size_t>(i)].data.u64;
            if (id == stopMark) return;
            try {
                id == changesMark ? onChanges() : onEnd(id);
            } catch (const Error& error) {
                host_->log().error("supervisor.process.exit_not_told", {{"error", error.what()}});
            }
        }
    }
}

/// mergen-vm has renamed something into a VM's folder; if that is `runs`, a restart was planned or made.
void ProcessSupervisor::onChanges() {
    alignas(inotify_event) std::array<char, 16384> buffer;  // NOLINT: read fills it
    const ssize_t got = ::read(changes_.get(), buffer.data(), buffer.size());
    std::set<int> folders;
    bool overflowed = false;
    for (ssize_t at = 0; at < got;) {
        const auto* event = reinterpret_cast<const inotify_event*>(buffer.data() + at);
        at += static_cast<ssize_t>(sizeof(inotify_event) + event->len);
        overflowed = overflowed || (event->mask & IN_Q_OVERFLOW) != 0;
        if (event->len > 0 && std::string_view(event->name) == "runs") folders.insert(event->wd);
    }
    std::vector<OwnerTag> changed;
    {
        const std::lock_guard lock(mutex_);
        for (const auto& [vm, watch] : watches_) {
            if (overflowed || folders.contains(watch.folder)) changed.push_back({host_->instance(), vm});
        }
    }
    const std::lock_guard lock(listenerMutex_);
    for (const OwnerTag& owner : changed) {
        if (listener_ != nullptr) listener_->onRestart(owner);
    }
}

void ProcessSupervisor::onEnd(std::uint64_t id) {
    Uuid vm;
    {
        const std::lock_guard lock(mutex_);
        const auto at = std::ranges::find_if(watches_, [id](const auto& entry) { return entry.second.id == id; });
        if (at == watches_.end()) return;  // forgotten meanwhile
        vm = at->first;
    }
    const OwnerTag owner{host_->instance(), vm};
    std::optional<Watch> ended = unwatch(vm);
    if (!ended) return;
    if (const auto code = reap(ended->pidfd); code && *code != 0) {
        host_->log().warning("supervisor.process.parent_failed", {{"vm", vm.str()}, {"status", *code}});
    }

    Observation seen = observeStarted(folderOf(owner), deadlineAfter(killGrace));
    if (seen.status.owner != owner || seen.parent != ended->parent) return;  // forgotten, perhaps launched again
    if (seen.orphan) {
        // The kernel kills it with its parent, unless the program changed its ids after execve (prctl(2)).
        host_->log().warning("supervisor.process.orphan_killed", {{"vm", vm.str()}, {"pid", seen.status.pid}});
        sendSignal(seen.next, SIGKILL);
        watch(owner, std::move(seen.parent), std::move(seen.next));
        return;
    }
    if (seen.status.state != ProcessState::Exited) return;
    if (seen.consoleDropped > 0) {
        host_->log().warning("supervisor.process.console_dropped",
                             {{"vm", vm.str()}, {"bytes", seen.consoleDropped}, {"then", "the console has gaps"}});
    }
    const std::lock_guard lock(listenerMutex_);
    if (listener_ != nullptr) listener_->onExit(seen.status);
}

}  // namespace mergen::supervisor
