#pragma once

#include <filesystem>
#include <optional>

#include "unpack.hpp"
#include "version.hpp"

namespace mergen::vmm {

/// Replaces `kernel`, a VM's own copy, by the ELF file in it, with the same owner and mode: a file or a bzImage payload
/// compressed by gzip, xz, zstd or lz4 is unpacked, also a bzImage in such a file. An ELF file stays as it is; so does
/// a bzImage that cannot be unpacked, if `version` can load it or is not known. Throws Error(InvalidArgument or
/// NotSupported) about "kernel" for what is wrong with it, with a text that does not name the file, and other kinds
/// where reading or writing fails (ResourceExhausted without room or memory). Leaves nothing beside the file.
void importKernelImage(const std::filesystem::path& kernel, const std::optional<FirecrackerVersion>& version);

/// The compression that importKernelImage() undoes first of the open file `kernel`: the file's own, or that of a
/// bzImage's payload; none if there is none that it knows.
[[nodiscard]] std::optional<Packing> packingOfKernel(int kernel);

}  // namespace mergen::vmm
