#include "vmm_process.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <mergen/sdk/error.hpp>

namespace mergen::test {
namespace {

/// argv or envp over strings that outlive it.
std::vector<char*> pointers(std::vector<std::string>& words) {
    std::vector<char*> result;
    for (std::string& word : words) result.push_back(word.data());
    result.push_back(nullptr);
    return result;
}

}  // namespace

std::optional<GuestImages> GuestImages::find(std::filesystem::path folder) {
    if (folder.empty()) folder = MERGEN_GUEST_DIR;
    GuestImages images{folder / "vmlinuz", folder / "rootfs.ext4"};
    if (!std::filesystem::exists(images.kernel) || !std::filesystem::exists(images.rootDisk)) return std::nullopt;
    return images;
}

VmmProcess::VmmProcess(const LaunchPlan& plan, const std::vector<Tap>& taps, std::optional<Credentials> user) {
    std::vector<std::string> arguments;
    if (user) {
        arguments = {"/usr/bin/setpriv",        "--reuid",        std::to_string(user->uid), "--regid",
                     std::to_string(user->gid), "--clear-groups", "--no-new-privs"};
    }
    arguments.insert(arguments.end(), plan.arguments.begin(), plan.arguments.end());
    std::vector<std::string> environment = plan.environment;

    std::array<int, 2> ends{};
    if (::pipe2(ends.data(), O_CLOEXEC) != 0) throw Error::fromErrno(errno, "cannot make a pipe");
    output_.reset(ends[0]);
    const UniqueFd input(ends[1]);
    ::fcntl(output_.get(), F_SETFL, O_NONBLOCK);

    posix_spawn_file_actions_t actions;
    ::posix_spawn_file_actions_init(&actions);
    ::posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    ::posix_spawn_file_actions_adddup2(&actions, input.get(), 1);
    ::posix_spawn_file_actions_adddup2(&actions, input.get(), 2);
    int next = 3;
    for (const Tap& tap : taps) {
        ::posix_spawn_file_actions_adddup2(&actions, tap.from, tap.to);
        next = std::max(next, tap.to + 1);
    }
    ::posix_spawn_file_actions_addclosefrom_np(&actions, next);
    const int error = ::posix_spawn(&pid_, arguments.front().c_str(), &actions, nullptr, pointers(arguments).data(),
                                    pointers(environment).data());
    ::posix_spawn_file_actions_destroy(&actions);
    if (error != 0) throw Error::fromErrno(error, "cannot execute " + arguments.front());
    pidfd_.reset(static_cast<int>(::syscall(SYS_pidfd_open, pid_, 0)));
    if (!pidfd_) {
        const int cause = errno;
        kill();
        ::waitpid(pid_, nullptr, 0);
        throw Error::fromErrno(cause, "cannot watch " + arguments.front());
    }
}

VmmProcess::~VmmProcess() {
    if (status_) return;
    kill();
    ::waitpid(pid_, nullptr, 0);
}

bool VmmProcess::alive() const {
    if (status_) return false;
    pollfd entry{pidfd_.get(), POLLIN, 0};
    return ::poll(&entry, 1, 0) == 0;
}

void VmmProcess::kill() {
    if (!status_) ::kill(pid_, SIGKILL);
}

bool VmmProcess::awaitConsole(std::string_view text, std::chrono::milliseconds timeout) {
    return readUntil([&] { return console_.find(text) != std::string::npos; }, timeout);
}

std::optional<int> VmmProcess::awaitExit(std::chrono::milliseconds timeout) {
    if (status_) return status_;
    readUntil([] { return false; }, timeout);
    if (alive()) return std::nullopt;
    int status = 0;
    ::waitpid(pid_, &status, 0);
    drain();
    status_ = status;
    return status_;
}

bool VmmProcess::readUntil(const std::function<bool()>& done, std::chrono::milliseconds timeout) {
    const auto deadline = std::chrono::steady_clock::now() + timeout;
    bool open = true;
    while (true) {
        const bool living = alive();  // asked before the last look at the pipe
        if (open) open = drain();
        if (done()) return true;
        const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
        if (!living || left.count() <= 0) return false;
        std::array<pollfd, 2> entries{{{pidfd_.get(), POLLIN, 0}, {open ? output_.get() : -1, POLLIN, 0}}};
        ::poll(entries.data(), entries.size(), static_cast<int>(left.count()));
    }
}

bool VmmProcess::drain() {
    std::array<char, 16384> chunk;
    while (true) {
        const ssize_t count = ::read(output_.get(), chunk.data(), chunk.size());
        if (count > 0) {
            console_.append(chunk.data(), static_cast<std::size_t>(count));
        } else if (count == 0) {
            return false;
        } else if (errno != EINTR) {
            return errno == EAGAIN;
        }
    }
}

}  // namespace mergen::test
