#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

namespace mergen::engine {

/// Numbers from `first` to `first + count - 1` that are each given out once: host numbers, ports, uids. The lowest free
/// one is found in time that does not grow with how many are taken. Threads: the owner locks.
class NumberPool {
public:
    NumberPool(std::uint32_t first, std::uint32_t count);

    /// The lowest free number, now taken; nothing if there is none.
    [[nodiscard]] std::optional<std::uint32_t> takeLowest();
    /// The lowest free number at or above `from`, now taken.
    [[nodiscard]] std::optional<std::uint32_t> takeLowest(std::uint32_t from);
    /// False if it is taken already or no number of this pool.
    bool take(std::uint32_t number);
    /// Does nothing if it is not taken.
    void release(std::uint32_t number);
    [[nodiscard]] bool contains(std::uint32_t number) const noexcept;

private:
    std::uint32_t first_;
    std::uint32_t count_;
    std::vector<std::uint64_t> taken_;  // one bit per number; bits beyond count_ are set
    std::size_t lowest_ = 0;            // no word below this one has a free number
};

}  // namespace mergen::engine
