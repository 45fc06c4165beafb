#include "kernel_cache.hpp"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <ctime>
#include <fcntl.h>
#include <numeric>
#include <stdio.h>
#include <string_view>
#include <sys/stat.h>
#include <system_error>
#include <tuple>
#include <unistd.h>
#include <vector>

#include <Poco/DigestEngine.h>
#include <Poco/SHA2Engine.h>

#include <mergen/base/file.hpp>
#include <mergen/base/rollback.hpp>
#include <mergen/sdk/error.hpp>
#include <mergen/sdk/failpoint.hpp>

namespace mergen::vmm {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view asideMark = ".aside-";
constexpr std::size_t digestLength = 64;
constexpr mode_t entryMode = 0400;
/// Each mark of a use is a write to the disk.
constexpr std::time_t usesAreCountedPer = 60;

/// The folder `name` in `parent`, made if `make` and it is not there; nothing if it is not there. Throws
/// PermissionDenied for what somebody else could change.
std::optional<UniqueFd> ownFolder(int parent, const char* name, bool make) {
    if (make && ::mkdirat(parent, name, 0700) != 0 && errno != EEXIST)
        throw Error::fromErrno(errno, std::string("cannot make the folder ") + name);
    UniqueFd folder(::openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (!folder && errno == ENOENT) return std::nullopt;
    if (!folder) throw Error::fromErrno(errno, std::string("cannot open the folder ") + name);
    struct stat status {};
    if (::fstat(folder.get(), &status) != 0)
        throw Error::fromErrno(errno, std::string("cannot inspect the folder ") + name);
    if (status.st_uid != ::geteuid() || (status.st_mode & (S_IWGRP | S_IWOTH)) != 0) {
        throw Error(
            ErrorKind::PermissionDenied,
            std::string("the folder ") + name + " must belong to the server's user and be writable by nobody else");
    }
    return folder;
}

std::optional<UniqueFd> cacheFolder(const fs::path& dataRoot, bool make) {
    const UniqueFd root = openFile(dataRoot, O_RDONLY | O_DIRECTORY);
    const auto caches = ownFolder(root.get(), ".cache", make);
    return caches ? ownFolder(caches->get(), "kernels", make) : std::nullopt;
}

fs::path magicLink(const UniqueFd& folder) {
    return "/proc/self/fd/" + std::to_string(folder.get());
}

struct Entry {
    std::string name;
    std::uint64_t bytes = 0;
    timespec used{};
};

/// The size that an entry's name says; nothing if it is no entry's name.
std::optional<std::uint64_t> sizeIn(std::string_view name) {
    if (name.size() <= digestLength + 1 || name[digestLength] != '-') return std::nullopt;
    std::uint64_t size = 0;
    const auto [end, error] = std::from_chars(name.data() + digestLength + 1, name.data() + name.size(), size);
    if (error != std::errc() || end != name.data() + name.size()) return std::nullopt;
    return size;
}

std::vector<Entry> entriesOf(const UniqueFd& folder) {
    std::vector<Entry> entries;
    for (std::string& name : listDirectory(magicLink(folder))) {
        struct stat status {};
        if (!sizeIn(name) || ::fstatat(folder.get(), name.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0) continue;
        entries.push_back({std::move(name), static_cast<std::uint64_t>(status.st_size), status.st_mtim});
    }
    return entries;
}

void evict(const UniqueFd& folder, const KernelCacheLimits& limits) {
    std::vector<Entry> entries = entriesOf(folder);
    std::ranges::sort(entries, std::less{},
                      [](const Entry& entry) { return std::tuple(entry.used.tv_sec, entry.used.tv_nsec, entry.name); });
    std::uint64_t bytes = std::accumulate(entries.begin(), entries.end(), std::uint64_t{0},
                                          [](std::uint64_t sum, const Entry& entry) { return sum + entry.bytes; });
    std::size_t left = entries.size();
    for (const Entry& entry : entries) {
        if (left <= limits.entries && bytes <= limits.bytes) return;
        // Somebody else may have been faster.
        if (::unlinkat(folder.get(), entry.name.c_str(), 0) != 0 && errno != ENOENT)
            throw Error::fromErrno(errno, "cannot remove a kernel from the cache");
        bytes -= entry.bytes;
        --left;
    }
}

/// Whether an entry may be used: it is a file of ours alone, and all of what was written.
bool isSound(const struct stat& status, std::uint64_t size) {
    return S_ISREG(status.st_mode) && status.st_uid == ::geteuid() && (status.st_mode & 07777U) == entryMode &&
           status.st_nlink == 1 && static_cast<std::uint64_t>(status.st_size) == size;
}

bool isSoundThere(const UniqueFd& folder, const std::string& name, std::uint64_t size) {
    struct stat status {};
    return ::fstatat(folder.get(), name.c_str(), &status, AT_SYMLINK_NOFOLLOW) == 0 && isSound(status, size);
}

void markUsed(const UniqueFd& entry, const struct stat& status) {
    const std::time_t now = std::time(nullptr);
    if (status.st_mtim.tv_sec <= now && now - status.st_mtim.tv_sec < usesAreCountedPer) return;
    const timespec times[] = {{.tv_sec = 0, .tv_nsec = UTIME_OMIT}, {.tv_sec = 0, .tv_nsec = UTIME_NOW}};
    if (::futimens(entry.get(), times) != 0) throw Error::fromErrno(errno, "cannot mark a kernel of the cache as used");
}

}  // namespace

std::string contentDigest(int file) {
    Poco::SHA2Engine engine(Poco::SHA2Engine::SHA_256);
    std::vector<char> buffer(std::size_t{64} << 10U);
    off_t at = 0;
    for (;;) {
        const ssize_t got = ::pread(file, buffer.data(), buffer.size(), at);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) throw Error::fromErrno(errno, "cannot read the kernel").about("kernel");
        if (got == 0) break;
        engine.update(buffer.data(), static_cast<std::size_t>(got));
        at += got;
    }
    return Poco::DigestEngine::digestToHex(engine.digest());
}

void KernelCache::sweep() const {
    const std::optional<UniqueFd> folder = cacheFolder(dataRoot_, false);
    if (!folder) return;
    for (const std::string& name : listDirectory(magicLink(*folder))) {
        if (!name.starts_with(asideMark)) continue;
        if (::unlinkat(folder->get(), name.c_str(), 0) != 0)
            throw Error::fromErrno(errno, "cannot remove an unfinished kernel from the cache");
    }
    evict(*folder, limits_);
}

std::optional<UniqueFd> KernelCache::find(const std::string& digest) const {
    if (!enabled()) return std::nullopt;
    const std::optional<UniqueFd> folder = cacheFolder(dataRoot_, false);
    if (!folder) return std::nullopt;
    for (const std::string& name : listDirectory(magicLink(*folder))) {
        const std::optional<std::uint64_t> size = sizeIn(name);
        if (!size || !name.starts_with(digest)) continue;
        UniqueFd entry(::openat(folder->get(), name.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
        struct stat status {};
        if (!entry || ::fstat(entry.get(), &status) != 0 || !isSound(status, *size)) continue;
        markUsed(entry, status);
        return entry;
    }
    return std::nullopt;
}

void KernelCache::keep(const std::string& digest, int elf) const {
    struct stat status {};
    if (::fstat(elf, &status) != 0) throw Error::fromErrno(errno, "cannot inspect the unpacked kernel");
    const auto size = static_cast<std::uint64_t>(status.st_size);
    if (size > limits_.bytes) return;
    const std::optional<UniqueFd> folder = cacheFolder(dataRoot_, true);
    if (!folder) throw Error(ErrorKind::Unavailable, "the folder of the cache is gone");
    const std::string name = digest + "-" + std::to_string(size);
    if (isSoundThere(*folder, name, size)) return;
    const std::string aside = std::string(asideMark) + std::to_string(::getpid()) + "-" + std::to_string(next_++);
    copySparse(elf, magicLink(*folder) / aside, entryMode, ::geteuid(), ::getegid());
    Rollback undo;
    undo.add([&] { ::unlinkat(folder->get(), aside.c_str(), 0); });
    MERGEN_FAILPOINT("vmm.firecracker.kernel_cache.aside");
    // A sound one that somebody else was faster to make stays as it is.
    if (::renameat2(folder->get(), aside.c_str(), folder->get(), name.c_str(), RENAME_NOREPLACE) != 0) {
        if (errno != EEXIST) throw Error::fromErrno(errno, "cannot rename a kernel of the cache");
        if (isSoundThere(*folder, name, size)) return;
        if (::renameat(folder->get(), aside.c_str(), folder->get(), name.c_str()) != 0)
            throw Error::fromErrno(errno, "cannot rename a kernel of the cache");
    }
    undo.commit();
    syncDirectory(magicLink(*folder));
    evict(*folder, limits_);
}

}  // namespace mergen::vmm
