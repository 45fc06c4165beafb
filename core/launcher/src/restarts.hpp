#pragma once

#include <chrono>
#include <deque>
#include <filesystem>
#include <optional>
#include <string>

#include <mergen/base/process.hpp>
#include <mergen/launcher/command.hpp>
#include <mergen/sdk/supervisor.hpp>

namespace mergen::launcher {

/// How one run ended.
struct End {
    ExitStatus exit;
    std::optional<SentSignal> sent;
    std::string note;     // why it could not be executed; `exit` has code 127 then, as a shell says it
    std::string panic{};  // what the guest's kernel said of its panic, where the VMM ended with 0
};

/// What this run ended with, told by its status as of waitpid(2); `signals` in `directory` names what was sent to it.
[[nodiscard]] End describe(const std::filesystem::path& directory, const ProcessIdentity& run, int status,
                           SystemTime at);

/// Whether an ended VMM is followed by another one, and the history of those that were: policy, back-off, and the file
/// `runs`.
///
/// Stop wins over restart. The permission is a file, `restart`, that the server removes before it signals the VMM.
/// Whoever starts a VMM again first writes down which process it is (`vmm`), then looks for the permission, and only
/// then lets it execute. The server first takes the permission away, then reads which process to signal. Both are
/// single system calls on one folder, so they have an order: if the removal came before the look, nothing is executed;
/// if it came after, `vmm` had been written before, and the server's signal reaches the new process. Taking away needs
/// no room on the disk, unlike a file that would forbid. Threads: one.
class Restarts {
public:
    explicit Restarts(const Command& command);

    /// After a run of `ranFor`: how long to wait before the next, or nothing if there is none. In the first case the
    /// run is in the history.
    [[nodiscard]] std::optional<std::chrono::milliseconds> plan(const End& end, std::chrono::milliseconds ranFor);
    /// The next run has been executed.
    void begun(SystemTime at);
    /// There is no next run after all: the permission was taken away.
    void withdraw();

    [[nodiscard]] bool permitted() const noexcept;
    [[nodiscard]] unsigned count() const noexcept { return count_; }
    /// Whether plan() gave nothing for the only reason that there had been too many.
    [[nodiscard]] bool exhausted() const noexcept { return exhausted_; }

private:
    void write() const noexcept;

    const std::filesystem::path directory_;
    const RestartPlan& policy_;
    const Backoff backoff_;
    std::deque<PastRun> runs_;  // the newest
    unsigned run_ = 0;          // number of the last one that ended
    unsigned attempts_ = 0;     // restarts since a run that lasted
    unsigned count_ = 0;        // of restarts
    bool exhausted_ = false;
};

}  // namespace mergen::launcher
