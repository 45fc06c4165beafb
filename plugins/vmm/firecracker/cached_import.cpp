#include "cached_import.hpp"

#include <fcntl.h>
#include <string>

#include <mergen/base/file.hpp>
#include <mergen/sdk/error.hpp>

#include "kernel_image.hpp"
#include "kernel_import.hpp"
#include "replacement.hpp"

namespace mergen::vmm {
namespace {

namespace fs = std::filesystem;

/// Whether the cache is of use for a kernel: one of lz4 is unpacked in less time than its digest is made in.
bool isWorthKeeping(int kernel) {
    const std::optional<Packing> packing = packingOfKernel(kernel);
    return packing && *packing != Packing::Lz4;
}

/// Puts a copy of the entry `elf` in the place of `kernel`, whose file is `given`. Others may find, mark and evict the
/// entry meanwhile; its content is never written to.
void replaceByCopy(int elf, const fs::path& kernel, int given) {
    Replacement replacement(kernel, given);
    copyContent(elf, replacement.fd(), "the unpacked kernel");
    replacement.commit();
}

/// Does `what` with the cache, which a VM does without.
template <typename What>
void spared(Log& log, const What& what) {
    try {
        what();
    } catch (const Error& error) {
        log.warning("vmm.firecracker.kernel_cache.unused",
                    {{"error", error.what()}, {"effect", "the VM's kernel is unpacked for it alone"}});
    }
}

}  // namespace

void importKernelThrough(const KernelCache& cache, const fs::path& kernel,
                         const std::optional<FirecrackerVersion>& version, Log& log) {
    std::string digest;  // empty: the cache is of no use
    bool imported = false;
    spared(log, [&] {
        const UniqueFd given = openFile(kernel, O_RDONLY | O_NOFOLLOW);
        if (!cache.enabled() || !isWorthKeeping(given.get())) return;
        digest = contentDigest(given.get());
        const std::optional<UniqueFd> known = cache.find(digest);
        if (!known) return;
        replaceByCopy(known->get(), kernel, given.get());
        imported = true;
    });
    if (imported) return;
    importKernelImage(kernel, version);
    if (digest.empty()) return;
    spared(log, [&] {
        const UniqueFd unpacked = openFile(kernel, O_RDONLY | O_NOFOLLOW);
        // Whether a bzImage may stay depends on Firecracker's version.
        if (kernelForm(readHead(unpacked.get())) == KernelForm::Elf) cache.keep(digest, unpacked.get());
    });
}

}  // namespace mergen::vmm
