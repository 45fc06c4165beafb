#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include "version.hpp"

namespace mergen::vmm {

/// What a kernel begins with, as far as it says what the file is.
enum class KernelForm : std::uint8_t {
    Elf,      ///< vmlinux: what Firecracker loads
    BzImage,  ///< vmlinuz of x86 (Documentation/arch/x86/boot.rst)
    Packed,   ///< gzip, xz, zstd or lz4 around one of them
    Other,
};

/// Bytes of a kernel's beginning that kernelForm() looks at.
constexpr std::size_t kernelHeadBytes = 0x250;

/// Up to `length` bytes from `offset` of an open kernel, fewer where it ends. Throws Error about "kernel" if it cannot
/// be read; `shown` is what the text calls it.
[[nodiscard]] std::string readHead(int kernel, std::uint64_t offset = 0, std::size_t length = kernelHeadBytes,
                                   const std::string& shown = "the kernel");

[[nodiscard]] KernelForm kernelForm(std::string_view head) noexcept;

/// What begins with `head`, if it is of KernelForm::Other, as the end of a sentence: "compressed by bzip2", or
/// "of an unknown kind".
[[nodiscard]] std::string_view describeOther(std::string_view head) noexcept;

/// What keeps an ELF file that begins with `head` from being a kernel of this machine, which Firecracker itself does
/// not look at, as the end of a sentence: "an ELF file for aarch64, not for x86_64"; empty if nothing does.
[[nodiscard]] std::string elfFlaw(std::string_view head);

/// Which kernel is looked at.
enum class KernelUse : std::uint8_t {
    Given,   ///< by the request: may have any form that importKernelImage() can turn into an ELF file
    Loaded,  ///< by Firecracker: ELF of this machine, or from 1.17 on a bzImage
};

/// Throws Error about "kernel", naming it and what it is, unless its form serves the use. `version`: none where it is
/// not known yet; then a bzImage is taken. Does nothing if there is no such file.
void checkKernel(const std::filesystem::path& kernel, KernelUse use, const std::optional<FirecrackerVersion>& version);

}  // namespace mergen::vmm
