#include "number_pool.hpp"

#include <algorithm>
#include <bit>

namespace mergen::engine {

namespace {
constexpr std::uint32_t wordBits = 64;
constexpr std::uint64_t full = ~std::uint64_t{0};
}  // namespace

NumberPool::NumberPool(std::uint32_t first, std::uint32_t count)
    : first_(first), count_(count), taken_((count + wordBits - 1) / wordBits, 0) {
    if (count_ % wordBits != 0) taken_.back() = full << (count_ % wordBits);
}

bool NumberPool::contains(std::uint32_t number) const noexcept {
    return number >= first_ && number - first_ < count_;
}

std::optional<std::uint32_t> NumberPool::takeLowest() {
    while (lowest_ < taken_.size() && taken_[lowest_] == full) ++lowest_;
    return takeLowest(first_ + static_cast<std::uint32_t>(lowest_) * wordBits);
}

std::optional<std::uint32_t> NumberPool::takeLowest(std::uint32_t from) {
    const std::uint32_t offset = from > first_ ? from - first_ : 0;
    for (std::size_t word = std::max<std::size_t>(offset / wordBits, lowest_); word < taken_.size(); ++word) {
        const std::uint64_t below = word == offset / wordBits ? ~(full << (offset % wordBits)) : 0;
        const std::uint64_t busy = taken_[word] | below;
        if (busy == full) continue;
        const auto bit = static_cast<std::uint32_t>(std::countr_one(busy));
        taken_[word] |= std::uint64_t{1} << bit;
        return first_ + static_cast<std::uint32_t>(word) * wordBits + bit;
    }
    return std::nullopt;
}

bool NumberPool::take(std::uint32_t number) {
    if (!contains(number)) return false;
    const std::uint32_t offset = number - first_;
    std::uint64_t& word = taken_[offset / wordBits];
    const std::uint64_t bit = std::uint64_t{1} << (offset % wordBits);
    if ((word & bit) != 0) return false;
    word |= bit;
    return true;
}

void NumberPool::release(std::uint32_t number) {
    if (!contains(number)) return;
    const std::uint32_t offset = number - first_;
    taken_[offset / wordBits] &= ~(std::uint64_t{1} << (offset % wordBits));
    lowest_ = std::min<std::size_t>(lowest_, offset / wordBits);
}

}  // namespace mergen::engine
