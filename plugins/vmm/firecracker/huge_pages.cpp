#include "huge_pages.hpp"

#include <algorithm>
#include <charconv>
#include <limits>
#include <string>
#include <string_view>
#include <system_error>

#include <mergen/base/file.hpp>
#include <mergen/sdk/error.hpp>

namespace mergen::vmm {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view memoryFolder = "sys/kernel/mm";  // there wherever sysfs is
constexpr std::string_view poolFolder = "sys/kernel/mm/hugepages/hugepages-2048kB";
constexpr std::uint64_t mibPerPage = 2;

bool isFolder(const fs::path& path) {
    std::error_code ignored;
    return fs::is_directory(path, ignored);
}

std::optional<std::uint64_t> readCounter(const fs::path& file) {
    constexpr std::size_t limit = 1U << 16U;  // by stat(2), all files of sysfs are as long as a page of the host's
    std::optional<std::string> text;
    try {
        text = readFile(file, limit);
    } catch (const Error&) {
        return std::nullopt;
    }
    if (!text) return std::nullopt;
    const std::string_view digits = std::string_view(*text).substr(0, text->find('\n'));
    std::uint64_t value = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
    if (error != std::errc() || end != digits.data() + digits.size()) return std::nullopt;
    return value;
}

/// `a` - `b`, and no less than 0: the counters are read one after the other.
std::uint64_t beyond(std::uint64_t a, std::uint64_t b) {
    return a - std::min(a, b);
}

}  // namespace

std::uint64_t HugePagePool::available() const noexcept {
    const std::uint64_t pooled = beyond(free, promised);
    const std::uint64_t more = beyond(overcommit, surplus);  // the kernel takes any number for the limit
    return pooled + std::min(more, std::numeric_limits<std::uint64_t>::max() - pooled);
}

std::optional<HugePagePool> readHugePagePool(const fs::path& root) {
    const fs::path folder = root / poolFolder;
    const auto all = readCounter(folder / "nr_hugepages");
    const auto free = readCounter(folder / "free_hugepages");
    const auto promised = readCounter(folder / "resv_hugepages");
    const auto surplus = readCounter(folder / "surplus_hugepages");
    const auto overcommit = readCounter(folder / "nr_overcommit_hugepages");
    if (!all || !free || !promised || !surplus || !overcommit) return std::nullopt;
    return HugePagePool{*all, *free, *promised, *surplus, *overcommit};
}

void requireHugePages(const GuestSpec& guest, const fs::path& root) {
    if (guest.hugePages == HugePages::None || isFolder(root / poolFolder) || !isFolder(root / memoryFolder)) return;
    throw Error(ErrorKind::NotSupported,
                "this host's kernel has no huge pages of 2 MiB: there is no /" + std::string(poolFolder))
        .about("hugePages");
}

void requireFreeHugePages(const GuestSpec& guest, const fs::path& root) {
    if (guest.hugePages == HugePages::None) return;
    requireHugePages(guest, root);
    const std::optional<HugePagePool> pool = readHugePagePool(root);
    if (!pool) return;
    const std::uint64_t needed = guest.memory.count / mibPerPage + guest.memory.count % mibPerPage;
    const std::uint64_t available = pool->available();
    if (needed <= available) return;
    // What is written there is the size of the pool without the surplus. The sysctl vm.nr_hugepages is that of another
    // pool where the default size is another one.
    const std::uint64_t enough = beyond(pool->all, pool->surplus) + needed - available;
    throw Error(ErrorKind::FailedPrecondition, std::to_string(guest.memory.count) + " MiB of memory need " +
                                                   std::to_string(needed) + " huge pages of 2 MiB, and this host has " +
                                                   std::to_string(available) + " available; reserve more: echo " +
                                                   std::to_string(enough) + " >/" + std::string(poolFolder) +
                                                   "/nr_hugepages")
        .about("hugePages");
}

}  // namespace mergen::vmm
