#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>

#include <mergen/sdk/vmm.hpp>

/// Whether this host has the pages of 2 MiB that back a guest's memory if it asks for them. `root`: where the host's
/// "/" is, another folder only in tests.
namespace mergen::vmm {

/// The kernel's pages of 2 MiB, by its own counters (Documentation/admin-guide/mm/hugetlbpage.rst).
struct HugePagePool {
    std::uint64_t all = 0;         ///< nr_hugepages; those that are surplus are among them
    std::uint64_t free = 0;        ///< free_hugepages
    std::uint64_t promised = 0;    ///< resv_hugepages: free ones that a mapping has been promised
    std::uint64_t surplus = 0;     ///< surplus_hugepages: made of ordinary memory when the pool was empty
    std::uint64_t overcommit = 0;  ///< nr_overcommit_hugepages: how many may be so

    /// How many Firecracker can get: it maps without a promise, so it is given free ones that nobody else was promised,
    /// then surplus ones, if there is ordinary memory for them.
    [[nodiscard]] std::uint64_t available() const noexcept;
};

/// Nothing if the kernel does not say.
[[nodiscard]] std::optional<HugePagePool> readHugePagePool(const std::filesystem::path& root);

/// Throws NotSupported, about "hugePages", if the guest asks for pages of 2 MiB and this host's kernel knows none: no
/// setting of the host brings them then.
void requireHugePages(const GuestSpec& guest, const std::filesystem::path& root);

/// As requireHugePages(), and FailedPrecondition about "hugePages", with how many are needed, how many there are and
/// how to get more, if too few are available now. With none at all Firecracker would say that it cannot read the kernel
/// image; with some it would fail, or be killed by SIGBUS, at the first touch of one that is not there. Pages that
/// guests which run have not touched yet count as available.
void requireFreeHugePages(const GuestSpec& guest, const std::filesystem::path& root);

}  // namespace mergen::vmm
