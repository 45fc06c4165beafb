#include "cached_import.hpp"

#include <array>
#include <cerrno>
#include <fcntl.h>
#include <stdio.h>
#include <string>
#include <string_view>
#include <sys/stat.h>
#include <unistd.h>

#include <mergen/base/file.hpp>
#include <mergen/sdk/error.hpp>

#include "kernel_image.hpp"
#include "kernel_import.hpp"

namespace mergen::vmm {
namespace {

namespace fs = std::filesystem;

/// Whether the cache is of use for a kernel: one of lz4 is unpacked in less time than its digest is made in.
bool isWorthKeeping(int kernel) {
    const std::optional<Packing> packing = packingOfKernel(kernel);
    return packing && *packing != Packing::Lz4;
}

bool isElf(int file) {
    std::array<char, kernelHeadBytes> head{};
    const ssize_t got = ::pread(file, head.data(), head.size(), 0);
    return got > 0 && kernelForm({head.data(), static_cast<std::size_t>(got)}) == KernelForm::Elf;
}

/// Puts a copy of `elf` in the place of `kernel`, with its owner and mode.
void replaceByCopy(const UniqueFd& elf, const fs::path& kernel) {
    struct stat like {};
    if (::lstat(kernel.c_str(), &like) != 0) throw Error::fromErrno(errno, "cannot inspect the kernel");
    const fs::path aside = kernel.string() + ".cached";
    copySparse(elf.get(), aside, like.st_mode & 07777U, like.st_uid, like.st_gid);
    if (::rename(aside.c_str(), kernel.c_str()) != 0) {
        const int cause = errno;
        ::unlink(aside.c_str());
        throw Error::fromErrno(cause, "cannot rename the copy of a cached kernel");
    }
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
        replaceByCopy(*known, kernel);
        imported = true;
    });
    if (imported) return;
    importKernelImage(kernel, version);
    if (digest.empty()) return;
    spared(log, [&] {
        const UniqueFd unpacked = openFile(kernel, O_RDONLY | O_NOFOLLOW);
        // Whether a bzImage may stay depends on Firecracker's version.
        if (isElf(unpacked.get())) cache.keep(digest, unpacked.get());
    });
}

}  // namespace mergen::vmm
