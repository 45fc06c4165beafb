#include <array>
#include <cerrno>
#include <csignal>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <mergen/sdk/error.hpp>
#include <mergen/server/exit_code.hpp>
#include <mergen/server/signals.hpp>

namespace mergen::server {

namespace {

sigset_t steering() noexcept {
    sigset_t set;
    sigemptyset(&set);
    for (const int number : {SIGTERM, SIGINT, SIGHUP}) sigaddset(&set, number);
    return set;
}

}  // namespace

void Signals::block() noexcept {
    const sigset_t set = steering();
    ::pthread_sigmask(SIG_BLOCK, &set, nullptr);
    std::signal(SIGPIPE, SIG_IGN);
}

void Signals::unblock() noexcept {
    const sigset_t set = steering();
    ::pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
}

Signals::Signals() {
    const sigset_t set = steering();
    signals_ = UniqueFd(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
    if (!signals_) throw Error::fromErrno(errno, "cannot make a signalfd");
    wake_ = UniqueFd(::eventfd(0, EFD_CLOEXEC));
    if (!wake_) throw Error::fromErrno(errno, "cannot make an eventfd");
    thread_ = std::thread([this] { run(); });
}

Signals::~Signals() {
    // Eight bytes into an empty eventfd cannot fail.
    static_cast<void>(::eventfd_write(wake_.get(), 1));
    thread_.join();
}

void Signals::run() {
    std::array<pollfd, 2> waiting{{{signals_.get(), POLLIN, 0}, {wake_.get(), POLLIN, 0}}};
    for (;;) {
        if (::poll(waiting.data(), waiting.size(), /*timeout=*/-1) < 0) continue;  // EINTR, the only way to fail here
        if (waiting[1].revents != 0) return;
        signalfd_siginfo info{};
        if (::read(signals_.get(), &info, sizeof info) != sizeof info) continue;
        const std::lock_guard lock(mutex_);
        if (info.ssi_signo == SIGHUP) {
            hangup_ = true;
        } else {
            if (stop_) ::_exit(exitCode::interrupted);
            stop_ = true;
        }
        changed_.notify_all();
    }
}

Signals::Event Signals::wait() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return stop_ || hangup_; });
    if (stop_) return Event::Stop;
    hangup_ = false;
    return Event::Hangup;
}

bool Signals::stopRequested() const {
    const std::lock_guard lock(mutex_);
    return stop_;
}

}  // namespace mergen::server
