#pragma once

#include <optional>
#include <string>
#include <string_view>

#include <mergen/engine/vm.hpp>
#include <mergen/sdk/supervisor.hpp>
#include <mergen/sdk/vmm.hpp>

/// What the end of a VMM means.
namespace mergen::engine {

/// "exit status 1", "signal 9 (Killed)"; with what `vmm`, if it is known, says that it means: "exit status 153 (it
/// refused its arguments)".
[[nodiscard]] std::string describeExit(const ExitStatus& exit, const VmmBackend* vmm);

/// Of a run whose exit status is known. `sent` as of ProcessStatus; `note` says why it could not be executed.
[[nodiscard]] VmEnd endOf(const ExitStatus& exit, const std::optional<SentSignal>& sent, const std::string& note,
                          const VmmBackend* vmm);
/// Of the last run of a process that is Exited.
[[nodiscard]] VmEnd endOf(const ProcessStatus& process, const VmmBackend* vmm);
/// Of a run that another one has followed, or is about to.
[[nodiscard]] VmEnd endOf(const PastRun& run, const VmmBackend* vmm);
/// Of one that nobody saw; `why` as a sentence.
[[nodiscard]] VmEnd lostEnd(std::string why);
/// Which step of a stop ended this process, which ran when the stop began and is Exited, or gone.
[[nodiscard]] StoppedBy stoppedBy(const ProcessStatus& process) noexcept;
/// What ends a VMM that does not answer calls itself.
inline constexpr std::string_view probeOperation = "probe";

/// Of a guest that did what `operation` asked of it.
[[nodiscard]] VmEnd obeyed(VmEnd end, const std::string& operation);

}  // namespace mergen::engine
