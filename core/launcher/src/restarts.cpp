#include "restarts.hpp"

#include <algorithm>
#include <signal.h>
#include <sstream>
#include <string_view>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <mergen/base/file.hpp>
#include <mergen/base/text.hpp>
#include <mergen/sdk/error.hpp>

namespace mergen::launcher {

namespace {

constexpr std::size_t keptRuns = 64;

/// The signals that the server sent to this run, oldest first.
std::vector<SentSignal> signalsOf(const std::filesystem::path& directory, const ProcessIdentity& run) {
    constexpr std::size_t limit = 65536;
    std::vector<SentSignal> sent;
    std::istringstream lines(readFile(directory / "signals", limit).value_or(""));
    for (std::string line; std::getline(lines, line);) {
        std::istringstream words(line);
        pid_t pid = 0;
        std::uint64_t startTime = 0;
        SentSignal one;
        if (words >> pid >> startTime >> one.signal >> one.by && pid == run.pid && startTime == run.startTime) {
            sent.push_back(std::move(one));
        }
    }
    return sent;
}

std::string render(const PastRun& run) {
    std::string line = "run " + std::to_string(run.number) + (run.exit.signalled ? " signalled " : " exited ") +
                       std::to_string(run.exit.code) + " at " + rfc3339(run.exit.at);
    if (run.sent) line += " sent " + std::to_string(run.sent->signal) + " by " + run.sent->by;
    line += " attempt " + std::to_string(run.attempt) + " delay " + std::to_string(run.delay.count());
    if (run.restartedAt) line += " restarted " + rfc3339(*run.restartedAt);
    if (!run.note.empty()) line += " note " + run.note;  // never with a panic: each takes the rest of the line
    if (!run.panic.empty()) line += " panic " + run.panic;
    return line + "\n";
}

}  // namespace

End describe(const std::filesystem::path& directory, const ProcessIdentity& run, int status, SystemTime at) {
    End end;
    end.exit.signalled = WIFSIGNALED(status);
    end.exit.code = end.exit.signalled ? WTERMSIG(status) : WEXITSTATUS(status);
    end.exit.at = at;
    try {
        const std::vector<SentSignal> sent = signalsOf(directory, run);
        // A program may answer a signal by exiting, as QEMU does, but not SIGKILL: that found it ending. Of several the
        // last one was the one too many.
        const auto cause = std::find_if(sent.rbegin(), sent.rend(), [&](const SentSignal& one) {
            return end.exit.signalled ? one.signal == end.exit.code : one.signal != SIGKILL;
        });
        if (cause != sent.rend()) end.sent = *cause;
    } catch (const Error&) {
        // What cannot be read is not known: the end itself must be told all the same.
    }
    return end;
}

Restarts::Restarts(const Command& command)
    : directory_(command.directory), policy_(command.spec.restart), backoff_(command.backoff) {}

bool Restarts::permitted() const noexcept {
    struct stat ignored {};
    return policy_.policy != RestartPolicy::No && ::lstat((directory_ / "restart").c_str(), &ignored) == 0;
}

std::optional<std::chrono::milliseconds> Restarts::plan(const End& end, std::chrono::milliseconds ranFor) {
    ++run_;
    const bool failed = end.exit.signalled || end.exit.code != 0 || !end.panic.empty();
    if (!permitted() || (policy_.policy == RestartPolicy::OnFailure && !failed)) return std::nullopt;
    if (ranFor >= backoff_.lasting) attempts_ = 0;
    exhausted_ = policy_.maxRestarts != 0 && attempts_ >= policy_.maxRestarts;
    if (exhausted_) return std::nullopt;
    std::chrono::milliseconds delay = backoff_.first;
    for (unsigned i = 0; i < attempts_ && delay < backoff_.most; ++i) delay *= 2;
    delay = std::min(delay, backoff_.most);
    ++attempts_;
    runs_.push_back(PastRun{run_, end.exit, end.sent, end.note, attempts_, delay, std::nullopt, end.panic});
    if (runs_.size() > keptRuns) runs_.pop_front();
    write();
    return delay;
}

void Restarts::begun(SystemTime at) {
    ++count_;
    runs_.back().restartedAt = at;
    write();
}

void Restarts::withdraw() {
    runs_.pop_back();
    write();
}

void Restarts::write() const noexcept {
    try {
        std::string text;
        for (const PastRun& run : runs_) text += render(run);
        writeFileAtomically(directory_ / "runs", text, 0600);
    } catch (const std::exception&) {
        // A full disk must not keep a VM from being started again; the next change writes all of it.
    }
}

}  // namespace mergen::launcher
