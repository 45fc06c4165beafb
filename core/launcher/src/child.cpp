#include "child.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <fcntl.h>
#include <grp.h>
#include <linux/close_range.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

#include <mergen/base/file.hpp>
#include <mergen/sdk/error.hpp>

namespace mergen::launcher {

namespace {

/// What the child was doing when it failed.
enum class Stage : int { Descriptors, Groups, Group, User, Privileges, Directory, Execute };

struct Failure {
    Stage stage;
    int errnum;
};

struct Pipe {
    UniqueFd readEnd;
    UniqueFd writeEnd;
};

Pipe makePipe() {
    std::array<int, 2> ends{};
    if (::pipe2(ends.data(), O_CLOEXEC) != 0) throw Error::fromErrno(errno, "cannot make a pipe");
    Pipe raw{UniqueFd(ends[0]), UniqueFd(ends[1])};
    return {moveUp(std::move(raw.readEnd), "a pipe"), moveUp(std::move(raw.writeEnd), "a pipe")};
}

std::vector<char*> pointers(const std::vector<std::string>& texts) {
    std::vector<char*> result;
    result.reserve(texts.size() + 1);
    for (const std::string& text : texts) result.push_back(const_cast<char*>(text.c_str()));  // execve changes nothing
    result.push_back(nullptr);
    return result;
}

[[noreturn]] void report(int fd, Stage stage) {
    const Failure failure{stage, errno};
    // Smaller than PIPE_BUF, so whole or not at all; if the parent is gone, nobody wants to know.
    static_cast<void>(!::write(fd, &failure, sizeof failure));
    ::_exit(127);
}

/// What the new process needs, made before fork(2).
struct Preparation {
    const ProcessSpec& spec;
    const std::vector<OpenTap>& taps;
    std::vector<char*> arguments;
    std::vector<char*> environment;
    std::vector<gid_t> groups;
    pid_t parent;  // as getppid(2) gives it
    int null;
    int console;
    int gate;
    int failure;
};

/// The rest of the new process's life until it is the program.
[[noreturn]] void becomeProgram(const Preparation& with) {
    // A gate that is closed unopened: the parent has ended or given up.
    char go = 0;
    ssize_t got = -1;
    while ((got = ::read(with.gate, &go, 1)) < 0 && errno == EINTR) {
    }
    if (got != 1) ::_exit(127);

    // A group of its own, so that what the VMM makes ends with it.
    if (::setpgid(0, 0) != 0) report(with.failure, Stage::Descriptors);
    if (::dup2(with.null, STDIN_FILENO) < 0 || ::dup2(with.console, STDOUT_FILENO) < 0 ||
        ::dup2(with.console, STDERR_FILENO) < 0) {
        report(with.failure, Stage::Descriptors);
    }
    if (::close_range(3, ~0U, CLOSE_RANGE_CLOEXEC) != 0) report(with.failure, Stage::Descriptors);
    for (const OpenTap& tap : with.taps) {
        if (::dup2(tap.fd.get(), tap.target) < 0) report(with.failure, Stage::Descriptors);
    }

    // Ids in this order: each step needs the right that the last one gives up. Ordinary users have nothing to drop, and
    // were refused if they ask for another identity than their own.
    const Credentials& credentials = with.spec.credentials;
    if (::geteuid() == 0) {
        if (::setgroups(with.groups.size(), with.groups.data()) != 0) report(with.failure, Stage::Groups);
        if (::setresgid(credentials.gid, credentials.gid, credentials.gid) != 0) report(with.failure, Stage::Group);
        if (::setresuid(credentials.uid, credentials.uid, credentials.uid) != 0) report(with.failure, Stage::User);
    }

    // After the change of ids, which clears it (prctl(2)); a parent that died before is seen by getppid.
    if (::prctl(PR_SET_PDEATHSIG, SIGKILL) != 0) report(with.failure, Stage::Privileges);
    if (::getppid() != with.parent) ::_exit(127);
    if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) report(with.failure, Stage::Privileges);

    // Entered with the rights that it will have.
    if (::chdir(with.spec.workingDirectory.c_str()) != 0) report(with.failure, Stage::Directory);

    // Signals that we ignore would stay ignored across exec(2). By system call: glibc keeps 32 and 33 to itself, and
    // its posix_spawn(3), which started us, leaves those ignored. SIGKILL and SIGSTOP refuse, which is right.
    constexpr std::array<unsigned long, 16> defaultAction{};  // struct kernel_sigaction, all zero: SIG_DFL
    constexpr std::size_t kernelSignalSetSize = 8;
    for (int signal = 1; signal <= 64; ++signal) {
        ::syscall(SYS_rt_sigaction, signal, defaultAction.data(), nullptr, kernelSignalSetSize);
    }
    sigset_t none;
    ::sigemptyset(&none);
    ::sigprocmask(SIG_SETMASK, &none, nullptr);
    ::execve(with.arguments.front(), with.arguments.data(), with.environment.data());
    report(with.failure, Stage::Execute);
}

Error explain(const Failure& failure, const ProcessSpec& spec) {
    const std::string& program = spec.arguments.front();
    const std::string user = std::to_string(spec.credentials.uid);
    switch (failure.stage) {
        case Stage::Descriptors:
            return Error::fromErrno(failure.errnum, "cannot give " + program + " its descriptors");
        case Stage::Groups:
            return Error::fromErrno(failure.errnum, "cannot set the groups of " + program);
        case Stage::Group:
            return Error::fromErrno(
                failure.errnum, "cannot become group " + std::to_string(spec.credentials.gid) + " to run " + program);
        case Stage::User:
            return Error::fromErrno(failure.errnum, "cannot become user " + user + " to run " + program);
        case Stage::Privileges:
            return Error::fromErrno(failure.errnum, "cannot confine " + program);
        case Stage::Directory:
            return Error::fromErrno(failure.errnum, "cannot enter the folder " + spec.workingDirectory.string() +
                                                        " as user " + user + " to run " + program);
        case Stage::Execute:
            break;
    }
    return Error::fromErrno(failure.errnum, "cannot execute " + program + " as user " + user);
}

/// Ordinary users cannot change their ids: refuse what would silently stay as it is.
void checkCredentials(const ProcessSpec& spec) {
    if (::geteuid() == 0) return;
    if (spec.credentials.uid != ::geteuid() || spec.credentials.gid != ::getegid()) {
        throw Error(ErrorKind::PermissionDenied, "cannot run " + spec.arguments.front() + " as user " +
                                                     std::to_string(spec.credentials.uid) + ": only root can");
    }
    std::array<gid_t, 65536> own{};
    const int count = ::getgroups(static_cast<int>(own.size()), own.data());
    const auto end = own.begin() + std::max(count, 0);
    for (const std::uint32_t group : spec.groups) {
        if (group != ::getegid() && std::find(own.begin(), end, group) == end) {
            throw Error(ErrorKind::PermissionDenied, "cannot run " + spec.arguments.front() + " with group " +
                                                         std::to_string(group) + ": only root can");
        }
    }
}

}  // namespace

UniqueFd moveUp(UniqueFd fd, const char* what) {
    UniqueFd moved(::fcntl(fd.get(), F_DUPFD_CLOEXEC, firstPrivateDescriptor));
    if (!moved) throw Error::fromErrno(errno, std::string("cannot keep ") + what + " open");
    return moved;
}

UniqueFd takeStandard(int number) {
    UniqueFd taken(::fcntl(number, F_DUPFD_CLOEXEC, firstPrivateDescriptor));
    const UniqueFd null = openFile("/dev/null", O_RDWR);
    if (!taken || ::dup2(null.get(), number) < 0)
        throw Error::fromErrno(errno, "cannot take over a standard descriptor");
    return taken;
}

void enterNetworkNamespace(const std::filesystem::path& handle) {
    const UniqueFd fd = openFile(handle, O_RDONLY);
    if (::setns(fd.get(), CLONE_NEWNET) != 0) {
        if (errno == EINVAL) {
            throw Error(ErrorKind::InvalidArgument, "cannot enter " + handle.string() + ": it is no network namespace");
        }
        throw Error::fromErrno(errno, "cannot enter the network namespace " + handle.string());
    }
}

namespace {

/// Attaches `fd` to a tap. A tap has one owner at a time, and whoever made it may have it for a moment longer than it
/// seems: a child that the server starts meanwhile has a copy of every descriptor until it executes its program. Of a
/// hundred VMs that start at once one or two met that.
bool attach(int fd, ifreq& request) {
    constexpr std::chrono::milliseconds pause{2}, limit{2000};
    const auto deadline = std::chrono::steady_clock::now() + limit;
    while (::ioctl(fd, TUNSETIFF, &request) != 0) {
        if (errno != EBUSY || std::chrono::steady_clock::now() > deadline) return false;
        std::this_thread::sleep_for(pause);
    }
    return true;
}

}  // namespace

std::vector<OpenTap> openTaps(const std::vector<InheritedTap>& taps) {
    std::vector<OpenTap> opened;
    for (const InheritedTap& tap : taps) {
        const std::string& name = tap.name.str();
        if (::if_nametoindex(name.c_str()) == 0) throw Error::fromErrno(errno, "cannot open the tap " + name);
        UniqueFd fd = moveUp(openFile("/dev/net/tun", O_RDWR), "a tap");
        ifreq request{};
        name.copy(static_cast<char*>(request.ifr_name), IFNAMSIZ - 1);
        request.ifr_flags = static_cast<short>(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR);
        if (!attach(fd.get(), request)) throw Error::fromErrno(errno, "cannot open the tap " + name);
        opened.push_back({tap.fd, std::move(fd)});
    }
    return opened;
}

Child::Child(const ProcessSpec& spec, std::vector<OpenTap> taps) : spec_(spec) {
    checkCredentials(spec);
    if (spec.pidNamespace) namespace_ = std::make_unique<PidNamespace>();
    Pipe console = makePipe();
    Pipe gate = makePipe();
    Pipe failure = makePipe();
    const UniqueFd null = moveUp(openFile("/dev/null", O_RDONLY), "/dev/null");
    // Only our end: the VMM's must stay as it is, or a program that does not expect EAGAIN would lose output.
    if (::fcntl(console.readEnd.get(), F_SETFL, O_NONBLOCK) != 0)
        throw Error::fromErrno(errno, "cannot prepare a pipe");

    const Preparation with{spec,
                           taps,
                           pointers(spec.arguments),
                           pointers(spec.environment),
                           {spec.groups.begin(), spec.groups.end()},
                           // Seen from another namespace we are nobody; there, init's death stands for ours.
                           spec.pidNamespace ? 0 : ::getpid(),
                           null.get(),
                           console.writeEnd.get(),
                           gate.readEnd.get(),
                           failure.writeEnd.get()};
    pid_ = ::fork();
    if (pid_ < 0) throw Error::fromErrno(errno, "cannot make a process for " + spec.arguments.front());
    if (pid_ == 0) {
        // Or it would hold its own gate open when we die.
        gate.writeEnd.reset();
        becomeProgram(with);
    }
    console_ = std::move(console.readEnd);
    gate_ = std::move(gate.writeEnd);
    failure_ = std::move(failure.readEnd);
    try {
        const auto identity = ProcessIdentity::of(pid_);
        if (!identity) throw Error(ErrorKind::Unavailable, "the process for " + spec.arguments.front() + " was killed");
        identity_ = *identity;
    } catch (const Error&) {
        end();
        throw;
    }
}

Child::~Child() {
    end();
}

void Child::end() noexcept {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    while (::waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
    }
    pid_ = -1;
}

void Child::execute() {
    writeAll(gate_.get(), "g", "cannot start " + spec_.arguments.front());
    gate_.reset();
    Failure failure{};
    ssize_t got = -1;
    while ((got = ::read(failure_.get(), &failure, sizeof failure)) < 0 && errno == EINTR) {
    }
    if (got == static_cast<ssize_t>(sizeof failure)) throw explain(failure, spec_);  // the destructor reaps it
    // End of file: executed, or killed a moment before, which is then seen as its end like any other.
    pid_ = -1;
}

}  // namespace mergen::launcher
