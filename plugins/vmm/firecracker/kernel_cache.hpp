#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>

#include <mergen/base/fd.hpp>

namespace mergen::vmm {

/// How much a KernelCache keeps. What was used least recently goes first.
struct KernelCacheLimits {
    std::uint64_t bytes = 0;  ///< of all entries; 0: nothing is kept, and nothing is used
    std::size_t entries = 32;
};

/// The SHA-256 of an open file's whole content, as 64 hexadecimal digits.
[[nodiscard]] std::string contentDigest(int file);

/// The ELF files that compressed kernels were unpacked to, each under the digest of what it was unpacked from:
///
///     <data root>/.cache/kernels/<digest>-<bytes>      an ELF file of that size, 0400
///                                .aside-<pid>-<n>      one that is being written
///
/// Folders and files are the server's user's and nobody else can write there: what is otherwise is not used, as its
/// content would be a guest's kernel. No VM has an entry itself, so one can go at any time: a VM gets a copy.
///
/// Threads: any. No lock is held: an entry appears by a rename, whole and durable, and whoever reads one has it open.
/// Errors: any method may throw Error if the medium fails; nothing half-made is left under an entry's name then.
class KernelCache {
public:
    KernelCache(std::filesystem::path dataRoot, KernelCacheLimits limits)
        : dataRoot_(std::move(dataRoot)), limits_(limits) {}

    [[nodiscard]] bool enabled() const noexcept { return limits_.bytes != 0; }

    /// Removes what a crash left half-made, and what is beyond the limits. Only while no other call runs: what another
    /// one is making would be taken for left.
    void sweep() const;

    /// What the file of this digest unpacks to, open for reading; nothing if that is not known, or must not be used.
    /// Counts as a use, to the minute.
    [[nodiscard]] std::optional<UniqueFd> find(const std::string& digest) const;

    /// Keeps a copy of the ELF file `elf`. Under this digest a sound entry stays, and another one is replaced. One that
    /// is larger than the limit is not kept.
    void keep(const std::string& digest, int elf) const;

private:
    const std::filesystem::path dataRoot_;
    const KernelCacheLimits limits_;
    mutable std::atomic<unsigned> next_{0};  ///< number of the next file aside
};

}  // namespace mergen::vmm
