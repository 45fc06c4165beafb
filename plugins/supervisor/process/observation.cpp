#include "observation.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string>
#include <string_view>
#include <sys/inotify.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <mergen/base/file.hpp>
#include <mergen/base/text.hpp>
#include <mergen/sdk/error.hpp>

namespace mergen::supervisor {

namespace {

using Clock = std::chrono::steady_clock;
constexpr std::size_t stateFileLimit = 4096;

struct EndRecord {
    ExitStatus exit;
    std::uint64_t dropped = 0;
};

template <typename Number>
std::optional<Number> number(std::string_view text) {
    Number value{};
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
    return value;
}

/// Reads `exit` as mergen-vm writes it; lines that we do not know are those of a newer one.
std::optional<EndRecord> readEnd(const std::filesystem::path& folder) {
    const auto text = readFile(folder / "exit", stateFileLimit);
    if (!text) return std::nullopt;
    EndRecord record;
    bool complete = false;
    for (const std::string& line : split(*text, '\n')) {
        const std::size_t blank = line.find(' ');
        if (blank == std::string::npos) continue;
        const std::string key = line.substr(0, blank);
        const std::string value = line.substr(blank + 1);
        if (key == "exited" || key == "signalled") {
            const auto code = number<int>(value);
            record.exit.signalled = key == "signalled";
            record.exit.code = code.value_or(0);
            complete = code.has_value();
        } else if (key == "at") {
            record.exit.at = parseRfc3339(value);
        } else if (key == "dropped") {
            record.dropped = number<std::uint64_t>(value).value_or(0);
        }
    }
    if (!complete)
        throw Error(ErrorKind::Internal, "cannot read " + (folder / "exit").string() + ": no exit status in it");
    return record;
}

std::optional<ProcessIdentity> readIdentity(const std::filesystem::path& file) {
    const auto text = readFile(file, stateFileLimit);
    return text ? ProcessIdentity::parse(*text) : std::nullopt;
}

UniqueFd openIfAlive(const std::optional<ProcessIdentity>& identity) {
    return identity ? openProcess(*identity) : UniqueFd();
}

bool isHeld(const std::filesystem::path& lock) {
    // Read-only, so that our closing it is no IN_CLOSE_WRITE to those who wait for its holder.
    const UniqueFd fd(::open(lock.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
    if (!fd) {
        if (errno == ENOENT) return false;
        throw Error::fromErrno(errno, "cannot open " + lock.string());
    }
    struct flock query {};
    query.l_type = F_WRLCK;
    query.l_whence = SEEK_SET;
    if (::fcntl(fd.get(), F_OFD_GETLK, &query) != 0) throw Error::fromErrno(errno, "cannot query " + lock.string());
    return query.l_type != F_UNLCK;
}

/// Why there is no exit status.
std::string explainLoss(const std::filesystem::path& folder, const std::optional<ProcessIdentity>& parent,
                        const std::optional<ProcessIdentity>& vmm) {
    if (parent && parent->bootId != bootId()) return "the host was restarted";
    if (const auto reason = readFile(folder / "failed", stateFileLimit)) {
        return "it could not be started: " + reason->substr(0, reason->find('\n'));
    }
    if (!parent || !vmm) return "its launch was interrupted before the program was executed";
    return "its parent was killed";
}

int toPollTimeout(Clock::time_point deadline) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
    return static_cast<int>(std::clamp<std::int64_t>(left, 0, 1 << 30));
}

}  // namespace

Observation observe(const std::filesystem::path& folder) {
    for (;;) {
        // The lock is asked first: once it is free, nobody changes these files any more.
        const bool locked = isHeld(folder / "parent.lock");
        Observation seen;
        const auto ownerText = readFile(folder / "owner", stateFileLimit);
        if (!ownerText) return seen;
        const auto owner = OwnerTag::parse(std::string_view(*ownerText).substr(0, ownerText->find('\n')));
        if (!owner) throw Error(ErrorKind::Internal, "cannot read " + (folder / "owner").string() + ": no owner in it");
        seen.status.owner = *owner;
        seen.parent = readIdentity(folder / "parent");
        const auto vmm = readIdentity(folder / "vmm");
        seen.vmm = openIfAlive(vmm);
        seen.next = openIfAlive(seen.parent);

        // A parent that has let go of the lock but is still there is in the midst of exit(2): it counts until it is
        // gone.
        if (seen.next || seen.vmm) {
            seen.status.state = ProcessState::Running;
            if (seen.vmm) seen.status.pid = vmm->pid;
            seen.starting = seen.next && !vmm;
            seen.orphan = !seen.next;
            if (seen.orphan) {
                seen.next = UniqueFd(::fcntl(seen.vmm.get(), F_DUPFD_CLOEXEC, 0));
                if (!seen.next) throw Error::fromErrno(errno, "cannot watch a process");
            }
            if (seen.starting) seen.next.reset();
            return seen;
        }
        // With a status there, the parent has done its last: who still holds the lock is a child of this server that
        // has not executed its program yet, and until then has a copy of every descriptor.
        if (locked && !readEnd(folder)) {
            if (!isHeld(folder / "parent.lock")) continue;  // it ended while we were looking
            if (!vmm) {
                // mergen-vm has just been started and has not written anything, or was killed and its child, which
                // waits to be let go, is about to see it.
                seen.status.state = ProcessState::Running;
                seen.starting = true;
                return seen;
            }
            seen.status.state = ProcessState::Exited;
            seen.held = true;
            seen.status.note =
                "its files name processes that are gone, yet something holds " + (folder / "parent.lock").string();
            return seen;
        }
        seen.status.state = ProcessState::Exited;
        if (const auto end = readEnd(folder)) {
            seen.status.exit = end->exit;
            seen.consoleDropped = end->dropped;
        } else {
            seen.status.note = explainLoss(folder, seen.parent, vmm);
        }
        return seen;
    }
}

Observation observeStarted(const std::filesystem::path& folder, Clock::time_point deadline) {
    const UniqueFd changes(::inotify_init1(IN_CLOEXEC | IN_NONBLOCK));
    if (!changes) throw Error::fromErrno(errno, "cannot watch " + folder.string());
    // mergen-vm renames its files into place, and lets go of the lock file when it ends.
    if (::inotify_add_watch(changes.get(), folder.c_str(), IN_MOVED_TO | IN_CLOSE_WRITE | IN_MOVE_SELF) < 0 &&
        errno != ENOENT) {
        throw Error::fromErrno(errno, "cannot watch " + folder.string());
    }
    for (;;) {
        Observation seen = observe(folder);
        if (!seen.starting || Clock::now() >= deadline) return seen;
        // The kernel tells of the close an instant before it drops the lock (__fput of fs/file_table.c): look again
        // soon even if nothing more is told.
        pollfd polled{changes.get(), POLLIN, 0};
        ::poll(&polled, 1, std::min(toPollTimeout(deadline), 20));
        std::array<char, 4096> events;  // NOLINT: only emptied
        while (::read(changes.get(), events.data(), events.size()) > 0) {
        }
    }
}

bool awaitEnd(const UniqueFd& pidfd, Clock::time_point deadline) {
    for (;;) {
        pollfd polled{pidfd.get(), POLLIN, 0};
        const int ready = ::poll(&polled, 1, toPollTimeout(deadline));
        if (ready > 0) return true;
        if (ready < 0 && errno != EINTR) throw Error::fromErrno(errno, "cannot wait for a process");
        if (ready == 0 && Clock::now() >= deadline) return false;
    }
}

bool sendSignal(const UniqueFd& pidfd, int signal) {
    if (::syscall(SYS_pidfd_send_signal, pidfd.get(), signal, nullptr, 0) == 0) return true;
    if (errno == ESRCH) return false;
    if (errno == EINVAL) throw Error(ErrorKind::InvalidArgument, std::to_string(signal) + " is no signal");
    throw Error::fromErrno(errno, "cannot send signal " + std::to_string(signal));
}

void lockLife(const UniqueFd& file) {
    struct flock request {};
    request.l_type = F_WRLCK;
    request.l_whence = SEEK_SET;
    if (::fcntl(file.get(), F_OFD_SETLK, &request) == 0) return;
    if (errno == EAGAIN || errno == EACCES) throw Error(ErrorKind::Conflict, "the lock of a VM's parent is held");
    throw Error::fromErrno(errno, "cannot lock a VM's parent.lock");
}

}  // namespace mergen::supervisor
