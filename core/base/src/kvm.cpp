#include <cerrno>
#include <string_view>
#include <sys/stat.h>
#include <system_error>
#include <unistd.h>

#include <mergen/base/file.hpp>
#include <mergen/base/kvm.hpp>
#include <mergen/base/process.hpp>
#include <mergen/base/text.hpp>
#include <mergen/sdk/error.hpp>

namespace mergen {

namespace {

// A processor does them in a millisecond; a KVM that emulates has been seen to do 1.5 to 2.3 million a second.
constexpr auto guestInstructions = "2000000";
constexpr auto guestLimitMs = "250";

constexpr std::size_t memoryLimit = 8192;
constexpr std::string_view usableWord = "usable ";
constexpr std::string_view unusableWord = "unusable ";

DeviceFinding unusable(std::string reason) {
    return {.usable = false, .reason = std::move(reason), .group = {}};
}

/// What a verdict is about: it holds for no other boot, device or program. Empty if that cannot be told.
std::string subjectOf(const KvmTrial& trial) {
    struct stat device {};
    struct stat program {};
    if (::stat(trial.device.c_str(), &device) != 0 || ::stat(trial.program.c_str(), &program) != 0) return {};
    const timespec& changed = program.st_mtim;
    return "boot " + bootId() + "\ndevice " + printable(trial.device.string()) + " " + std::to_string(device.st_rdev) +
           "\nprogram " + printable(trial.program.string()) + " " + std::to_string(changed.tv_sec) + "." +
           std::to_string(changed.tv_nsec) + "\n";
}

/// Fills in what is remembered of this subject; false if nothing is.
bool recall(const KvmTrial& trial, const std::string& subject, DeviceFinding& finding) {
    if (trial.memory.empty() || subject.empty()) return false;
    try {
        struct stat status {};
        if (::lstat(trial.memory.c_str(), &status) != 0 || status.st_uid != ::geteuid()) return false;
        const auto text = readFile(trial.memory, memoryLimit);
        if (!text || !text->starts_with(subject)) return false;
        std::string_view verdict = std::string_view(*text).substr(subject.size());
        verdict = verdict.substr(0, verdict.find('\n'));
        finding.usable = verdict.starts_with(usableWord);
        if (!finding.usable && !verdict.starts_with(unusableWord)) return false;
        finding.reason = verdict.substr((finding.usable ? usableWord : unusableWord).size());
        return true;
    } catch (const Error&) {
        return false;  // it is only a memory: then KVM is tried out again
    }
}

void remember(const KvmTrial& trial, const std::string& subject, const DeviceFinding& finding) {
    if (trial.memory.empty() || subject.empty()) return;
    try {
        writeFileAtomically(
            trial.memory,
            subject + std::string(finding.usable ? usableWord : unusableWord) + printable(finding.reason) + "\n", 0600);
    } catch (const Error&) {
        return;  // the next server tries it out again
    }
}

/// Runs the program; true if it came to a verdict of its own, which is worth being remembered.
bool tryOut(const KvmTrial& trial, DeviceFinding& finding) {
    finding.usable = false;
    try {
        const RunResult result = run(
            SpawnOptions{.arguments = {trial.program.string(), trial.device.string(), guestInstructions, guestLimitMs},
                         .environment = {}},
            trial.deadline, 4096);
        if (result.timedOut) {
            finding.reason = "a guest in it did not come back";
            return false;  // on a host that is busy enough
        }
        finding.reason = printable(trim(std::string_view(result.output).substr(0, result.output.find('\n'))));
        finding.usable = result.status == 0;
        const bool shown = WIFEXITED(result.status) && WEXITSTATUS(result.status) <= 1;
        if (!finding.reason.empty()) return shown;
        if (!finding.usable) finding.reason = trial.program.string() + " ended with " + describeStatus(result.status);
    } catch (const Error& error) {
        finding.reason = error.what();
    }
    return false;
}

}  // namespace

DeviceFinding findDevice(const std::filesystem::path& device) {
    struct stat status {};
    if (::stat(device.c_str(), &status) != 0) return unusable(std::generic_category().message(errno));
    return {.usable = true, .reason = "it is there", .group = {}};
}

DeviceFinding findDeviceAccess(const std::filesystem::path& device) {
    struct stat status {};
    if (::stat(device.c_str(), &status) != 0) return unusable(std::generic_category().message(errno));

    DeviceFinding finding;
    if (::geteuid() == 0 && (status.st_mode & S_IWOTH) == 0) {
        // VMs run as users that own nothing and are in no group but those that they are given.
        if ((status.st_mode & S_IWGRP) == 0)
            return unusable("only its owner may open it (mode 0660, with a group, would do)");
        if (status.st_gid == 0)
            return unusable("its group is root's, which no VM's user must be in: give it a group of its own (chgrp)");
        finding.group = status.st_gid;
    } else if (::access(device.c_str(), R_OK | W_OK) != 0) {
        return unusable(std::generic_category().message(errno));
    }
    finding.usable = true;
    finding.reason = "it can be opened";
    return finding;
}

DeviceFinding tryKvm(const KvmTrial& trial) {
    DeviceFinding finding = findDevice(trial.device);
    if (!finding.usable) return finding;
    const std::string subject = subjectOf(trial);
    if (!recall(trial, subject, finding) && tryOut(trial, finding)) remember(trial, subject, finding);
    return finding;
}

DeviceFinding findKvm(const KvmTrial& trial) {
    const DeviceFinding access = findDeviceAccess(trial.device);
    if (!access.usable) return access;
    DeviceFinding finding = tryKvm(trial);
    finding.group = access.group;
    return finding;
}

}  // namespace mergen
