#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include <mergen/sdk/types.hpp>
#include <mergen/sdk/vmm.hpp>

/// QEMU's command line for one guest: pure functions of their arguments.
namespace mergen::vmm {

enum class Accelerator : std::uint8_t {
    Tcg,  ///< plain emulation: runs everywhere, some ten times slower
    Kvm,
};

enum class Machine : std::uint8_t {
    Q35,      ///< a whole PC; has the timers that a guest needs where no KVM gives it a clock
    Microvm,  ///< without legacy devices, firmware probing and half of the boot time
};

[[nodiscard]] std::string_view toString(Accelerator accelerator) noexcept;
[[nodiscard]] std::string_view toString(Machine machine) noexcept;

/// What a guest may ask for. The API's limits lie within.
inline constexpr unsigned maxVcpus = 32;
inline constexpr MiB minMemory{32};         ///< less and a kernel does not unpack
inline constexpr MiB maxMemory{1U << 20U};  ///< 1 TiB
inline constexpr std::size_t maxDisks = 8;
inline constexpr std::size_t maxNics = 8;
/// COMMAND_LINE_SIZE of x86 (arch/x86/include/asm/setup.h) is 2048 with the final NUL; a longer line is cut silently.
inline constexpr std::size_t maxKernelArguments = 2047;

/// How QEMU is run on this host.
struct Platform {
    std::filesystem::path program;
    Accelerator accelerator = Accelerator::Tcg;
    Machine machine = Machine::Q35;
    std::optional<std::uint32_t> kvmGroup;  ///< the group that may open /dev/kvm, where not everybody may
};

/// Throws InvalidArgument about the GuestSpec member that no guest can have.
void checkGuest(const GuestSpec& guest);

/// The kernel's command line: what the guest asks for after what this VMM must add. Throws InvalidArgument about
/// "bootArguments".
[[nodiscard]] std::string kernelArguments(const GuestSpec& guest, Accelerator accelerator);

/// `text` within an option that QEMU splits at commas ("key=value,…"): there a comma is written twice.
[[nodiscard]] std::string optionValue(std::string_view text);

/// Where the server itself talks to QEMU: beside the control socket, which is told to clients of the server. QEMU
/// serves one client of a socket at a time, and whoever stays connected there must not be in the server's way.
[[nodiscard]] std::filesystem::path serverSocket(const VmmPlace& place);

/// The whole plan. The guest does not run until it is told to over one of the two sockets. Throws as checkGuest(), and
/// InvalidArgument for a socket whose path is too long or not absolute.
[[nodiscard]] LaunchPlan commandLine(const GuestSpec& guest, const VmmPlace& place, const Platform& platform);

}  // namespace mergen::vmm
