#include "ending.hpp"

#include <algorithm>
#include <array>
#include <signal.h>
#include <string.h>
#include <utility>

namespace mergen::engine {

namespace {

/// What the kernel, libc or seccomp(2) sends a program for what it did itself.
bool isFault(int signal) {
    constexpr std::array faults{SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGSYS, SIGTRAP};
    return std::ranges::find(faults, signal) != faults.end();
}

/// Nobody obeys SIGKILL: what exits after it was ending already.
bool couldEnd(const SentSignal& sent, const ExitStatus& exit) {
    return exit.signalled || sent.signal != SIGKILL;
}

/// `end`, or, if it is the guest's own and its kernel panicked, an end by that.
VmEnd orPanic(VmEnd end, const std::string& panic) {
    if (end.by != EndedBy::Guest || panic.empty()) return end;
    end.by = EndedBy::Panic;
    end.detail = "the guest panicked: " + panic;
    return end;
}

}  // namespace

std::string describeExit(const ExitStatus& exit, const VmmBackend* vmm) {
    const std::string meaning = vmm == nullptr ? std::string() : vmm->exitMeaning(exit);
    const std::string inBrackets = meaning.empty() ? std::string() : " (" + meaning + ")";
    if (!exit.signalled) return "exit status " + std::to_string(exit.code) + inBrackets;
    const char* name = ::sigdescr_np(exit.code);
    return "signal " + std::to_string(exit.code) + (name != nullptr ? " (" + std::string(name) + ")" : "") + inBrackets;
}

VmEnd endOf(const ExitStatus& exit, const std::optional<SentSignal>& sent, const std::string& note,
            const VmmBackend* vmm) {
    VmEnd end;
    end.exit = exit;
    end.at = exit.at;
    const std::string how = "the VMM ended with " + describeExit(exit, vmm);
    if (!note.empty()) {
        end.by = EndedBy::Vmm;
        end.detail = "it could not be started again: " + note;
    } else if (sent && couldEnd(*sent, exit)) {
        end.by = EndedBy::Mergen;
        end.operation = sent->by;
        end.detail = how + ", after '" + sent->by + "' had sent it signal " + std::to_string(sent->signal);
        if (sent->by == probeOperation) end.detail += ": it had not answered any more";
    } else if (!exit.signalled && exit.code == 0) {
        end.by = EndedBy::Guest;
        end.detail = "the guest ended by itself";
    } else if (!exit.signalled || isFault(exit.code)) {
        end.by = EndedBy::Vmm;
        end.detail = how;
    } else {
        end.by = EndedBy::Other;
        end.detail = how + ", which Mergen did not send: another program did, or the kernel's OOM killer";
    }
    return end;
}

VmEnd endOf(const ProcessStatus& process, const VmmBackend* vmm) {
    if (!process.exit) return lostEnd(process.note);
    return orPanic(endOf(*process.exit, process.sent, process.note, vmm), process.panic);
}

VmEnd endOf(const PastRun& run, const VmmBackend* vmm) {
    return orPanic(endOf(run.exit, run.sent, run.note, vmm), run.panic);
}

VmEnd lostEnd(std::string why) {
    VmEnd end;
    end.at = std::chrono::system_clock::now();
    end.detail = std::move(why);
    return end;
}

StoppedBy stoppedBy(const ProcessStatus& process) noexcept {
    if (process.sent && process.exit && couldEnd(*process.sent, *process.exit)) {
        if (process.sent->signal == SIGTERM) return StoppedBy::Sigterm;
        if (process.sent->signal == SIGKILL) return StoppedBy::Sigkill;
    }
    const bool obeyed = process.exit && !process.exit->signalled && process.exit->code == 0;
    return obeyed ? StoppedBy::Guest : StoppedBy::Other;
}

VmEnd obeyed(VmEnd end, const std::string& operation) {
    end.by = EndedBy::Guest;
    end.operation = operation;
    end.detail = "the guest shut down, as '" + operation + "' had asked it to";
    return end;
}

}  // namespace mergen::engine
