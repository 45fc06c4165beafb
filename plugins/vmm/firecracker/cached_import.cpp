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

/// importKernelImage() in its turn.
void unpackInTurn(UnpackTurns& turns, const fs::path& kernel, const std::optional<FirecrackerVersion>& version) {
    const UnpackTurns::Place place(turns);
    importKernelImage(kernel, version);
}

}  // namespace

void importKernelThrough(const KernelCache& cache, UnpackTurns& turns, const fs::path& kernel,
                         const std::optional<FirecrackerVersion>& version, Log& log) {
    const UniqueFd given = openFile(kernel, O_RDONLY | O_NOFOLLOW);
    const std::optional<Packing> packing = packingOfKernel(given.get());
    if (!packing) return importKernelImage(kernel, version);  // there is nothing to unpack
    // One of lz4 is unpacked in less time than its digest is made in.
    if (!cache.enabled() || *packing == Packing::Lz4) return unpackInTurn(turns, kernel, version);

    const std::string digest = contentDigest(given.get());
    const auto copied = [&] {
        bool done = false;
        spared(log, [&] {
            const std::optional<UniqueFd> known = cache.find(digest);
            if (known) replaceByCopy(known->get(), kernel, given.get());
            done = known.has_value();
        });
        return done;
    };
    if (copied()) return;
    const UnpackTurns::OfKernel turn(turns, digest);
    if (copied()) return;  // whoever was the first has kept it
    unpackInTurn(turns, kernel, version);
    if (!turn.isFirst()) return;  // nothing could be kept a moment ago
    spared(log, [&] {
        const UniqueFd unpacked = openFile(kernel, O_RDONLY | O_NOFOLLOW);
        // Whether a bzImage may stay depends on Firecracker's version.
        if (kernelForm(readHead(unpacked.get())) == KernelForm::Elf) cache.keep(digest, unpacked.get());
    });
}

}  // namespace mergen::vmm
