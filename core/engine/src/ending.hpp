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
/// The line of `console`, the end of what a VM printed, with which the guest's kernel says that it panicked: printable
/// and bounded. Nothing if there is none, or if a kernel has begun to boot since. What a guest prints is the guest's
/// word: it can only speak of itself.
[[nodiscard]] std::optional<std::string> panicOf(std::string_view console);
/// `end`, or, if it is the guest's own and `console` ends with a panic, an end by that panic.
[[nodiscard]] VmEnd orPanic(VmEnd end, std::string_view console);
/// Of one that nobody saw; `why` as a sentence.
[[nodiscard]] VmEnd lostEnd(std::string why);
/// Which step of a stop ended this process, which ran when the stop began and is Exited, or gone.
[[nodiscard]] StoppedBy stoppedBy(const ProcessStatus& process) noexcept;
/// Of a guest that did what `operation` asked of it.
[[nodiscard]] VmEnd obeyed(VmEnd end, const std::string& operation);

}  // namespace mergen::engine
