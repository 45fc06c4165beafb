#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "version.hpp"

namespace mergen::vmm {

/// Throws InvalidArgument about "kernel", naming it and what it is, unless Firecracker can load it: an uncompressed ELF
/// file (vmlinux), or from 1.17 on a bzImage (vmlinuz). `version`: none where it is not known yet; then a bzImage is
/// taken. Does nothing if there is no such file.
void checkKernel(const std::filesystem::path& kernel, const std::optional<FirecrackerVersion>& version);

}  // namespace mergen::vmm
