#pragma once

#include <chrono>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <sys/types.h>

#include <mergen/base/fd.hpp>

#include "worker.hpp"

/// How workers are started, listened to, and got rid of with all that they leave behind.
namespace mergen::check {

/// A folder for what workers leave (their TMPDIR), gone with the object. While one exists, SIGCHLD, SIGINT and SIGTERM
/// are blocked and orphans of the plugin come to this process. Threads: one, which must be the only one of the process.
class Nursery {
public:
    Nursery();
    Nursery(const Nursery&) = delete;
    Nursery& operator=(const Nursery&) = delete;
    ~Nursery();

    /// How a worker ended.
    struct End {
        int status = 0;         ///< as waitpid(2) gives it
        bool timedOut = false;  ///< it was killed because it said nothing for `patience`
        std::string words;      ///< the last lines that it printed; empty if those were passed on
    };

    /// Runs one worker to its end and gives each of its messages to `hear`. What it leaves running is killed. Throws
    /// Error(Unavailable) when the user wants to stop.
    End run(const Options& options, Task task, std::chrono::milliseconds patience,
            const std::function<void(const Message&)>& hear);

private:
    /// Reaps whatever child has ended; the status of `worker` if it is among them.
    static std::optional<int> reap(pid_t worker);
    /// Kills and reaps all children that are left.
    static void sweep();

    std::filesystem::path folder_;
    UniqueFd output_;  // what workers print
    UniqueFd signals_;
};

}  // namespace mergen::check
