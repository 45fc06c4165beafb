#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include <mergen/base/guest.hpp>
#include <mergen/sdk/supervisor.hpp>
#include <mergen/sdk/types.hpp>
#include <mergen/sdk/vmm.hpp>

/// Firecracker's command line and what a guest of its can be: pure functions of their arguments.
namespace mergen::vmm {

/// What a guest may ask for.
inline constexpr unsigned maxVcpus = 32;    ///< Firecracker's own limit
inline constexpr MiB minMemory{8};          ///< less and no kernel unpacks
inline constexpr MiB maxMemory{1U << 20U};  ///< 1 TiB
// Both together keep within the interrupts that virtio-mmio devices get.
inline constexpr std::size_t maxDisks = 8;
inline constexpr std::size_t maxNics = 8;
/// COMMAND_LINE_SIZE of x86 (arch/x86/include/asm/setup.h) is 2048 with the final NUL; Firecracker refuses more.
inline constexpr std::size_t maxKernelArguments = 2047;

/// Throws InvalidArgument about the GuestSpec member that no guest can have.
void checkGuest(const GuestSpec& guest);

/// The file in the run directory from which an unattended Firecracker without a jail configures itself.
[[nodiscard]] std::filesystem::path configurationFile(const VmmPlace& place);

/// The file beside it with the content of the metadata service.
[[nodiscard]] std::filesystem::path metadataFile(const VmmPlace& place);
/// The vsock's socket and the pipe of the metrics, without a jail.
[[nodiscard]] firecracker::DevicePaths devicePaths(const VmmPlace& place);

/// The whole plan without a jailer. `program`: absolute. `groups`: those that may open the devices that it needs, where
/// not everybody may. Throws as checkGuest(), and InvalidArgument for a control socket whose path is too long or not
/// absolute.
[[nodiscard]] LaunchPlan commandLine(const GuestSpec& guest, const VmmPlace& place,
                                     const std::filesystem::path& program, std::vector<std::uint32_t> groups);

/// What a jailer is told.
struct JailOrder {
    std::filesystem::path jailer, program;  ///< absolute
    std::filesystem::path base, root;       ///< --chroot-base-dir, and the jail in it that is Firecracker's "/"
    unsigned cgroupVersion = 0;             ///< 0: no control groups
    std::string parentCgroup;
    std::vector<std::string> cgroups;  ///< "file=value"
    Bytes fileSize{};                  ///< of the largest file that Firecracker may write; 0: no limit
    std::uint64_t openFiles = 2048;    ///< at once: disks, the API's connections, the tap, KVM are some dozens
};

/// The whole plan with a jailer; of `guest` nothing is in it, as its files have names of ours in the jail. Throws as
/// commandLine().
[[nodiscard]] LaunchPlan jailedCommandLine(const GuestSpec& guest, const VmmPlace& place, const JailOrder& order);

/// VmmBackend::exitMeaning() for Firecracker's exit codes (FcExitCode in its src/vmm/src/lib.rs).
[[nodiscard]] std::string exitMeaning(const ExitStatus& exit);

}  // namespace mergen::vmm
