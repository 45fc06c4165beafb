#pragma once

#include <filesystem>
#include <optional>

#include <mergen/sdk/log.hpp>

#include "kernel_cache.hpp"
#include "unpack_turns.hpp"
#include "version.hpp"

namespace mergen::vmm {

/// importKernelImage() of `kernel`, a VM's own copy, with the unpacking left out where the cache knows its result. Of
/// those of one content at once, one is unpacked and the others await it; if it cannot be kept, they are unpacked
/// then, each for itself, as far as there are places. What is compressed by lz4 is unpacked each time: its digest would
/// take longer. What goes wrong with the cache is logged and keeps no kernel from being imported.
void importKernelThrough(const KernelCache& cache, UnpackTurns& turns, const std::filesystem::path& kernel,
                         const std::optional<FirecrackerVersion>& version, Log& log);

}  // namespace mergen::vmm
