#include "pid_namespace.hpp"

#include <array>
#include <cerrno>
#include <fcntl.h>
#include <linux/close_range.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <mergen/base/file.hpp>
#include <mergen/sdk/error.hpp>

#include "child.hpp"

namespace mergen::launcher {

namespace {

struct Pipe {
    UniqueFd readEnd, writeEnd;
};

Pipe makePipe() {
    std::array<int, 2> ends{};
    if (::pipe2(ends.data(), O_CLOEXEC) != 0) throw Error::fromErrno(errno, "cannot make a pipe");
    return {UniqueFd(ends[0]), UniqueFd(ends[1])};
}

/// Whether a byte came, and not the end of file.
bool awaitByte(int fd) {
    char byte = 0;
    ssize_t got = -1;
    while ((got = ::read(fd, &byte, 1)) < 0 && errno == EINTR) {
    }
    return got == 1;
}

/// Our children are born where we are ourselves.
void leave() {
    const UniqueFd own = openFile("/proc/self/ns/pid", O_RDONLY);
    if (::setns(own.get(), CLONE_NEWPID) != 0) throw Error::fromErrno(errno, "cannot leave a process-id namespace");
}

}  // namespace

PidNamespace::PidNamespace() {
    leave();  // that of an earlier run: a second unshare(2) from within one is refused
    if (::unshare(CLONE_NEWPID) != 0) throw Error::fromErrno(errno, "cannot make a process-id namespace");
    Pipe orders = makePipe();
    Pipe ready = makePipe();
    const pid_t pid = ::fork();
    if (pid < 0) throw Error::fromErrno(errno, "cannot make the init process of a process-id namespace");
    if (pid == 0) {
        orders.writeEnd.reset();  // or we would keep our own orders open when our parent dies
        becomeInit(orders.readEnd.get(), ready.writeEnd.get());
    }
    init_ = UniqueFd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
    if (!init_) {
        const int error = errno;
        ::kill(pid, SIGKILL);
        ::waitpid(pid, nullptr, 0);
        throw Error::fromErrno(error, "cannot watch the init process of a process-id namespace");
    }
    init_ = moveUp(std::move(init_), "a process");
    ready.writeEnd.reset();
    // Within the namespace getppid(2) is 0 whether we live or not: so it hears of us only after it has asked for
    // the signal of our death, and ends if it hears nothing.
    const bool up = awaitByte(ready.readEnd.get()) && ::write(orders.writeEnd.get(), "g", 1) == 1;
    if (!up) throw Error(ErrorKind::Unavailable, "the init process of a process-id namespace was killed");
}

PidNamespace::~PidNamespace() {
    if (!init_) return;
    ::syscall(SYS_pidfd_send_signal, init_.get(), SIGKILL, nullptr, 0);
    siginfo_t ignored{};
    while (::waitid(P_PIDFD, static_cast<id_t>(init_.get()), &ignored, WEXITED) != 0 && errno == EINTR) {
    }
}

void PidNamespace::becomeInit(int orders, int ready) {
    if (::prctl(PR_SET_PDEATHSIG, SIGKILL) != 0) ::_exit(127);
    if (::write(ready, "r", 1) != 1 || !awaitByte(orders)) ::_exit(127);
    // Nobody's descriptors, above all not the lock that says that our parent lives.
    if (::close_range(0, ~0U, 0) != 0) ::_exit(127);
    ::signal(SIGCHLD, SIG_IGN);  // orphans of the namespace are reaped by the kernel
    ::prctl(PR_SET_NAME, "mergen-vm-init");
    for (;;) ::pause();
}

}  // namespace mergen::launcher
