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

constexpr std::size_t historyLimit = 256U << 10U;
/// A VMM gets two or three signals in its life; more of them are those of an operator's script.
constexpr std::size_t keptSignals = 16;

struct EndRecord {
    ExitStatus exit;
    std::uint64_t dropped = 0;
    std::optional<SentSignal> sent;
    std::string note;
    unsigned restarts = 0;
    bool exhausted = false;
    std::string panic;
};

template <typename Number>
std::optional<Number> number(std::string_view text) {
    Number value{};
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
    return value;
}

/// "SIGNAL by WHO".
std::optional<SentSignal> readSignal(std::string_view text) {
    constexpr std::string_view by = " by ";
    const std::size_t at = text.find(by);
    const auto signal = number<int>(text.substr(0, at));
    if (at == std::string_view::npos || !signal) return std::nullopt;
    return SentSignal{*signal, std::string(text.substr(at + by.size()))};
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
        } else if (key == "sent") {
            record.sent = readSignal(value);
        } else if (key == "note") {
            record.note = value;
        } else if (key == "panic") {
            record.panic = value;
        } else if (key == "restarts") {
            record.restarts = number<unsigned>(value).value_or(0);
        } else if (key == "exhausted") {
            record.exhausted = true;
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

/// One line of `runs`: pairs of a word and its value; `note` and `panic` take the rest.
std::optional<PastRun> readPastRun(std::string_view line) {
    PastRun run;
    bool complete = false;
    while (!line.empty()) {
        const auto next = [&line] {
            const std::size_t blank = std::min(line.find(' '), line.size());
            const std::string_view word = line.substr(0, blank);
            line.remove_prefix(std::min(blank + 1, line.size()));
            return word;
        };
        const std::string_view key = next();
        if (key == "note") {
            run.note = line;
            break;
        }
        if (key == "panic") {
            run.panic = line;
            break;
        }
        const std::string_view value = next();
        if (key == "run") {
            run.number = number<unsigned>(value).value_or(0);
        } else if (key == "exited" || key == "signalled") {
            const auto code = number<int>(value);
            run.exit.signalled = key == "signalled";
            run.exit.code = code.value_or(0);
            complete = code.has_value();
        } else if (key == "at") {
            run.exit.at = parseRfc3339(value);
        } else if (key == "sent") {
            run.sent = SentSignal{number<int>(value).value_or(0), {}};
        } else if (key == "by" && run.sent) {
            run.sent->by = value;
        } else if (key == "attempt") {
            run.attempt = number<unsigned>(value).value_or(0);
        } else if (key == "delay") {
            run.delay = std::chrono::milliseconds(number<std::int64_t>(value).value_or(0));
        } else if (key == "restarted") {
            run.restartedAt = parseRfc3339(value);
        }
    }
    return complete && run.number > 0 ? std::optional(std::move(run)) : std::nullopt;
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

/// Of a process that has not ended for good; `runs` may have lost its oldest lines.
unsigned countRestarts(const std::vector<PastRun>& runs) {
    if (runs.empty()) return 0;
    return runs.back().restartedAt ? runs.back().number : runs.back().number - 1;
}

int toPollTimeout(Clock::time_point deadline) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
    return static_cast<int>(std::clamp<std::int64_t>(left, 0, 1 << 30));
}

}  // namespace

std::vector<PastRun> readPastRuns(const std::filesystem::path& folder) {
    std::vector<PastRun> runs;
    const auto text = readFile(folder / "runs", historyLimit);
    if (!text) return runs;
    for (const std::string& line : split(*text, '\n')) {
        try {
            if (auto run = readPastRun(line)) runs.push_back(*std::move(run));
        } catch (const Error&) {
            continue;  // a damaged line must not hide the process
        }
    }
    return runs;
}

void noteSignal(const std::filesystem::path& folder, const ProcessIdentity& run, const SentSignal& signal) {
    const std::string line = std::to_string(run.pid) + " " + std::to_string(run.startTime) + " " +
                             std::to_string(signal.signal) + " " + signal.by;
    std::vector<std::string> lines = split(readFile(folder / "signals", historyLimit).value_or(""), '\n');
    std::erase_if(lines, [&](const std::string& other) { return other.empty() || other == line; });
    lines.push_back(line);
    std::string text;
    for (std::size_t i = lines.size() > keptSignals ? lines.size() - keptSignals : 0; i < lines.size(); ++i) {
        text += lines[i] + "\n";
    }
    writeFileAtomically(folder / "signals", text, 0600);
}

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
        seen.vmmIdentity = vmm;
        seen.vmm = openIfAlive(vmm);
        seen.next = openIfAlive(seen.parent);

        // A parent that has let go of the lock but is still there is in the midst of exit(2): it counts until it is
        // gone.
        if (seen.next || seen.vmm) {
            seen.status.state = ProcessState::Running;
            if (seen.vmm) seen.status.pid = vmm->pid;
            seen.status.restarts = countRestarts(readPastRuns(folder));
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
            seen.status.sent = end->sent;
            seen.status.note = end->note;
            seen.status.restarts = end->restarts;
            seen.status.exhausted = end->exhausted;
            seen.status.panic = end->panic;
            seen.consoleDropped = end->dropped;
        } else {
            seen.status.note = explainLoss(folder, seen.parent, vmm);
            seen.status.restarts = countRestarts(readPastRuns(folder));
        }
        return seen;
    }
}

Observation observeStarted(const std::filesystem::path& folder, Clock::time_point deadline) {
    // Nearly always; and to close what the waiting below needs costs many milliseconds (see FolderWatches).
    if (Observation seen = observe(folder); !seen.starting) return seen;
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
