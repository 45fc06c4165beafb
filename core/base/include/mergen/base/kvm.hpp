#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

namespace mergen {

/// What is known of a device on this host.
struct DeviceFinding {
    bool usable = false;
    std::string reason;                  ///< one clause about the device, such as "it emulates: …"
    std::optional<std::uint32_t> group;  ///< the group that may open the device, where not everybody may
};

/// How KVM is tried out.
struct KvmTrial {
    std::filesystem::path program;  ///< mergen-kvm-probe
    std::filesystem::path device = "/dev/kvm";
    std::chrono::milliseconds deadline = std::chrono::seconds(3);  ///< after it the program is killed
    /// File in which the program's verdict is remembered until the host boots anew, the program changes or another
    /// device is asked about; its folder belongs to us alone. Empty: nowhere.
    std::filesystem::path memory{};
};

/// Whether VMs that run as users of their own can open `device`, and which group they need for that; nothing is run.
[[nodiscard]] DeviceFinding findDeviceAccess(const std::filesystem::path& device);

/// Whether `device` is there, whoever may open it.
[[nodiscard]] DeviceFinding findDevice(const std::filesystem::path& device);

/// Whether the device, opened by us, runs a guest at the speed of a processor, which the program tries in a process of
/// its own: what counts for VMs that get a device of their own made. Never throws for what it finds on the host.
[[nodiscard]] DeviceFinding tryKvm(const KvmTrial& trial);

/// Whether VMs that run as users of their own can use the device: findDeviceAccess(), and then tryKvm().
[[nodiscard]] DeviceFinding findKvm(const KvmTrial& trial);

}  // namespace mergen
