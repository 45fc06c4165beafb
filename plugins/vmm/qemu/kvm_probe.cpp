#include "kvm_probe.hpp"

#include <cerrno>
#include <sys/stat.h>
#include <system_error>
#include <unistd.h>

#include <mergen/base/process.hpp>
#include <mergen/base/text.hpp>
#include <mergen/sdk/error.hpp>

namespace mergen::vmm {
namespace {

// A processor does them in a millisecond; a KVM that emulates has been seen to do 1.5 to 2.3 million a second.
constexpr auto guestInstructions = "2000000";
constexpr auto guestLimitMs = "250";

KvmFinding unusable(std::string reason) {
    return {.usable = false, .reason = std::move(reason), .group = {}};
}

}  // namespace

KvmFinding findKvm(const std::filesystem::path& program, const std::filesystem::path& device,
                   std::chrono::milliseconds deadline) {
    struct stat status {};
    if (::stat(device.c_str(), &status) != 0) return unusable(std::generic_category().message(errno));

    KvmFinding finding;
    if (::geteuid() == 0 && (status.st_mode & S_IWOTH) == 0) {
        // VMs run as users that own nothing and are in no group but those that they are given.
        if ((status.st_mode & S_IWGRP) == 0)
            return unusable("only its owner may open it (mode 0660 and group kvm would do)");
        finding.group = status.st_gid;
    } else if (::access(device.c_str(), R_OK | W_OK) != 0) {
        return unusable(std::generic_category().message(errno));
    }

    try {
        const RunResult result =
            run(SpawnOptions{.arguments = {program.string(), device.string(), guestInstructions, guestLimitMs},
                             .environment = {}},
                deadline, 4096);
        if (result.timedOut) return unusable("a guest in it did not come back");
        finding.reason = printable(trim(result.output));
        finding.usable = result.status == 0;
        if (!finding.usable && finding.reason.empty())
            finding.reason = program.string() + " ended with " + describeStatus(result.status);
    } catch (const Error& error) {
        return unusable(error.what());
    }
    return finding;
}

}  // namespace mergen::vmm
