#pragma once

#include <filesystem>
#include <string>

#include <mergen/sdk/vmm.hpp>

/// Whether this host's processor is of the vendor that a static CPU template of Firecracker's is made for.
namespace mergen::vmm {

/// Who made the processor, as the first one of /proc/cpuinfo says: "GenuineIntel", "AuthenticAMD", …, or "aarch64
/// implementer 0x41". Empty if it does not say. `root`: where the host's "/" is, another folder only in tests. Throws
/// nothing.
[[nodiscard]] std::string readCpuVendor(const std::filesystem::path& root);

/// Throws NotSupported, about "cpuTemplate", if the guest's template is for another vendor than `vendor` for sure: not
/// if that is unknown, nor for a template without a known vendor. Which models of the vendor fit is Firecracker's own
/// to judge, and changes with its version.
void requireTemplateOfVendor(const GuestSpec& guest, const std::string& vendor);

}  // namespace mergen::vmm
