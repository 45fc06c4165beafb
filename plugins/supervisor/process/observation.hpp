#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <vector>

#include <mergen/base/fd.hpp>
#include <mergen/base/process.hpp>
#include <mergen/sdk/supervisor.hpp>

namespace mergen::supervisor {

/// What the folder of one VM and the kernel together say, at one moment. The folder is written by the server that
/// launched (`owner`, `parent.lock`) and by mergen-vm (`parent`, `vmm`, `failed`, `runs`, `exit`; the README has the
/// table); it is never trusted without asking the kernel whether the process that it names is still that process.
struct Observation {
    ProcessStatus status;  ///< Absent if there is no folder; the owner is then not set
    /// The process whose end changes the state next: the parent or, if that was killed, the VMM. A pidfd; none if the
    /// state is not Running, and while `starting`.
    UniqueFd next;
    UniqueFd vmm;  ///< the VMM if it lives. A pidfd
    std::optional<ProcessIdentity> parent;
    std::optional<ProcessIdentity> vmmIdentity;  ///< of the newest run, alive or not
    bool starting = false;                       ///< Running, but mergen-vm has not yet said which process the VMM is
    bool orphan = false;  ///< Running, but the parent is gone: the VMM is about to die, or has escaped that
    bool held = false;    ///< Exited, but somebody who cannot be identified still holds the lock
    std::uint64_t consoleDropped = 0;  ///< bytes of console output that could not be written, known at the end
};

/// Looks. Changes nothing. Throws if the folder cannot be read.
[[nodiscard]] Observation observe(const std::filesystem::path& folder);

/// The runs that another one follows, as `runs` has them; what cannot be read in it is left out.
[[nodiscard]] std::vector<PastRun> readPastRuns(const std::filesystem::path& folder);

/// Adds a line to `signals` before this signal is sent to this run.
void noteSignal(const std::filesystem::path& folder, const ProcessIdentity& run, const SentSignal& signal);

/// Looks when it is no longer `starting`, or at `deadline`.
[[nodiscard]] Observation observeStarted(const std::filesystem::path& folder,
                                         std::chrono::steady_clock::time_point deadline);

/// Whether the process behind this pidfd ended before `deadline`; waits for it.
[[nodiscard]] bool awaitEnd(const UniqueFd& pidfd, std::chrono::steady_clock::time_point deadline);

/// Sends a signal to exactly this process; false if it has ended. Throws InvalidArgument for a number that is none.
bool sendSignal(const UniqueFd& pidfd, int signal);

/// Takes the lock whose holder is a VM's life: exclusive, of the open file (F_OFD_SETLK, fcntl(2)), so that it passes
/// to a process that inherits the descriptor and ends with the last of them. Throws Conflict if it is held.
void lockLife(const UniqueFd& file);

}  // namespace mergen::supervisor
