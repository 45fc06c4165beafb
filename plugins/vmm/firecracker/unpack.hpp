#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace mergen::vmm {

/// A compression that a kernel may come in.
enum class Packing : std::uint8_t {
    Gzip,
    Xz,
    Zstd,
    Lz4,  ///< the legacy frame, which the kernel's own build makes (`lz4 -l`)
};

/// The compression that a file or payload which begins with `head` (6 bytes suffice) has; none if it has none of these.
[[nodiscard]] std::optional<Packing> packingOf(std::string_view head) noexcept;

/// What an unpacked kernel may have at most: a distribution's largest, with its symbols, is below a tenth of it.
constexpr std::uint64_t unpackedKernelLimit = std::uint64_t{512} << 20U;

/// Writes what the `length` bytes from `offset` of `source` unpack to at the position of `target`, and gives its size.
/// The bytes must be one whole stream and nothing more; memory is bounded, whatever they are (80 MiB for xz, 128 MiB
/// for zstd, 17 MiB for lz4). That a stream of lz4 is cut off between two blocks of 8 MiB cannot be seen: it has no end
/// mark. Throws Error(InvalidArgument) if they are not, or if more than `limit` bytes come out: then not all is
/// written, and what is, is of no use. Throws other kinds if reading or writing fails. The text begins with "its
/// content".
std::uint64_t unpack(Packing packing, int source, std::uint64_t offset, std::uint64_t length, int target,
                     std::uint64_t limit = unpackedKernelLimit);

}  // namespace mergen::vmm
