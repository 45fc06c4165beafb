#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <sys/types.h>
#include <vector>

#include <mergen/base/fd.hpp>

/// Child processes and the identity of processes that are not our children.
namespace mergen {

/// Which process a pid meant when it was written down: a pid alone is given out again. Start time is field 22 of
/// /proc/PID/stat (clock ticks since boot), boot is /proc/sys/kernel/random/boot_id.
struct ProcessIdentity {
    pid_t pid = 0;
    std::uint64_t startTime = 0;
    std::string bootId;
    auto operator<=>(const ProcessIdentity&) const = default;

    /// Of a living process; nothing if there is none. A zombie counts as gone.
    [[nodiscard]] static std::optional<ProcessIdentity> of(pid_t pid);
    [[nodiscard]] static ProcessIdentity self();

    /// How an identity stands in a file: the lines "pid N", "start N" and "boot ID".
    [[nodiscard]] std::string str() const;
    /// Reads what str() writes; nothing if one of the three is missing or malformed. Other lines are passed over, so
    /// that a newer writer may add some.
    [[nodiscard]] static std::optional<ProcessIdentity> parse(std::string_view text);
};

/// A pidfd of exactly this process, or nothing if it has ended (also when its pid now belongs to another).
[[nodiscard]] UniqueFd openProcess(const ProcessIdentity& identity);

/// This boot's id.
[[nodiscard]] const std::string& bootId();

struct SpawnOptions {
    std::vector<std::string> arguments;    ///< [0] absolute path
    std::vector<std::string> environment;  ///< whole
    int standardInput = -1;                ///< -1: /dev/null
    int standardOutput = -1;
    int standardError = -1;
    bool newSession = false;  ///< setsid(2)
};

/// Starts a program by posix_spawn with default signals and an empty signal mask, and no descriptor but 0, 1, 2. The
/// caller reaps it. Throws Error with the program's name if it cannot be executed.
[[nodiscard]] pid_t spawn(const SpawnOptions& options);

/// The result of a short-lived program.
struct RunResult {
    bool timedOut = false;
    int status = 0;      ///< as waitpid(2) gives it
    std::string output;  ///< standard output, at most `outputLimit` bytes
    std::string errors;  ///< standard error, likewise
};

/// Runs a program to its end; kills it after `timeout`.
[[nodiscard]] RunResult run(const SpawnOptions& options, std::chrono::milliseconds timeout,
                            std::size_t outputLimit = 64U << 10U);

/// "exit status 3", "signal 9 (Killed)".
[[nodiscard]] std::string describeStatus(int status);

}  // namespace mergen
