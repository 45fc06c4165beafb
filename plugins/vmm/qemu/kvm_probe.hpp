#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

namespace mergen::vmm {

/// What is known of KVM on this host.
struct KvmFinding {
    bool usable = false;
    std::string reason;                  ///< one clause about the device, such as "it emulates: …"
    std::optional<std::uint32_t> group;  ///< the group that may open the device, where not everybody may
};

/// Whether VMs that run as users of their own can use `device`: somebody else than its owner must be able to open it,
/// and a guest in it must run at the speed of a processor, which `program` (mergen-kvm-probe) tries in a process of its
/// own and kills after `deadline`. Never throws for what it finds on the host.
[[nodiscard]] KvmFinding findKvm(const std::filesystem::path& program, const std::filesystem::path& device,
                                 std::chrono::milliseconds deadline = std::chrono::seconds(3));

}  // namespace mergen::vmm
