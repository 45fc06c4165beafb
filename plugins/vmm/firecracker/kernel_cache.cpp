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
#include <sys/statvfs.h>
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
    std::uint64_t occupied = 0;  ///< bytes of the medium: fewer where it has holes
    timespec used{};
};

std::uint64_t bytesOf(const struct stat& status) {
    return static_cast<std::uint64_t>(status.st_size);
}

std::uint64_t occupiedBy(const struct stat& status) {
    constexpr std::uint64_t unit = 512;  // of st_blocks, whatever the file system's (stat(3type))
    return static_cast<std::uint64_t>(status.st_blocks) * unit;
}

/// What of the file system that a folder lies on can be written to without a right of root's.
std::uint64_t freeBytes(const UniqueFd& folder) {
    struct statvfs status {};
    if (::fstatvfs(folder.get(), &status) != 0) throw Error::fromErrno(errno, "cannot see how much room there is");
    return std::uint64_t{status.f_bavail} * status.f_frsize;
}

/// The size that an entry's name says; nothing if it is no entry's name.
std::optional<std::uint64_t> sizeIn(std::string_view name) {
    if (name.size() <= digestLength + 1 || name[digestLength] != '-') return std::nullopt;
    std::uint64_t size = 0;
    const auto [end, error] = std::from_chars(name.data() + digestLength + 1, name.data() + name.size(), size);
    if (error != std::errc() || end != name.data() + name.size()) return std::nullopt;
    return size;
}

/// What has an entry's name, the one used least recently first. A folder is none of ours.
std::vector<Entry> entriesOf(const UniqueFd& folder) {
    std::vector<Entry> entries;
    for (std::string& name : listDirectory(magicLink(folder))) {
        struct stat status {};
        if (!sizeIn(name) || ::fstatat(folder.get(), name.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0) continue;
        if (!S_ISDIR(status.st_mode))
            entries.push_back({std::move(name), bytesOf(status), occupiedBy(status), status.st_mtim});
    }
    std::ranges::sort(entries, std::less{},
                      [](const Entry& entry) { return std::tuple(entry.used.tv_sec, entry.used.tv_nsec, entry.name); });
    return entries;
}

/// Removes files one after the other, whatever becomes of each; the first that could not be removed is what it throws.
class Removal {
public:
    explicit Removal(const UniqueFd& folder) : folder_(folder) {}

    bool remove(const std::string& name) {
        // Somebody else may have been faster.
        if (::unlinkat(folder_.get(), name.c_str(), 0) == 0 || errno == ENOENT) return true;
        if (!first_) first_ = Error::fromErrno(errno, "cannot remove " + name + " from the cache of kernels");
        return false;
    }
    void finish() const {
        if (first_) throw *first_;
    }

private:
    const UniqueFd& folder_;
    std::optional<Error> first_;
};

/// The sum of a member of all entries.
std::uint64_t total(const std::vector<Entry>& entries, std::uint64_t Entry::*member) {
    return std::accumulate(entries.begin(), entries.end(), std::uint64_t{0},
                           [&](std::uint64_t sum, const Entry& entry) { return sum + entry.*member; });
}

/// Removes what was used least recently until all is within the limits and what is gone occupied `wanted` bytes; false
/// if too much could not be removed. How much is free is not asked in between: what is open somewhere, or shared with
/// another file, frees nothing yet, and all would go in vain.
bool evict(const std::vector<Entry>& entries, const KernelCacheLimits& limits, std::uint64_t wanted, Removal& removal) {
    std::uint64_t bytes = total(entries, &Entry::bytes), gone = 0;
    std::size_t left = entries.size();
    const auto suffices = [&] { return left <= limits.entries && bytes <= limits.bytes && gone >= wanted; };
    for (const Entry& entry : entries) {
        if (suffices()) return true;
        if (!removal.remove(entry.name)) continue;
        bytes -= entry.bytes;
        gone += entry.occupied;
        --left;
    }
    return suffices();
}

/// Whether an entry may be used: it is a file of ours alone, and all of what was written.
bool isSound(const struct stat& status, std::uint64_t size) {
    return S_ISREG(status.st_mode) && status.st_uid == ::geteuid() && (status.st_mode & 07777U) == entryMode &&
           status.st_nlink == 1 && bytesOf(status) == size;
}

bool isSoundThere(const UniqueFd& folder, const std::string& name, std::uint64_t size) {
    struct stat status {};
    return ::fstatat(folder.get(), name.c_str(), &status, AT_SYMLINK_NOFOLLOW) == 0 && isSound(status, size);
}

/// Where it cannot be marked, as on a file system that is full or read-only, the entry is only evicted sooner.
void markUsed(const UniqueFd& entry, const struct stat& status) {
    const std::time_t now = std::time(nullptr);
    if (status.st_mtim.tv_sec <= now && now - status.st_mtim.tv_sec < usesAreCountedPer) return;
    const timespec times[] = {{.tv_sec = 0, .tv_nsec = UTIME_OMIT}, {.tv_sec = 0, .tv_nsec = UTIME_NOW}};
    static_cast<void>(::futimens(entry.get(), times));
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
    Removal removal(*folder);
    for (const std::string& name : listDirectory(magicLink(*folder))) {
        if (name.starts_with(asideMark)) removal.remove(name);
    }
    evict(entriesOf(*folder), limits_, 0, removal);
    removal.finish();
}

bool KernelCache::drop() const {
    const std::optional<UniqueFd> folder = cacheFolder(dataRoot_, false);
    if (!folder) return false;
    Removal removal(*folder);
    bool any = false;
    for (const Entry& entry : entriesOf(*folder)) {
        if (removal.remove(entry.name)) any = true;
    }
    if (!any) removal.finish();
    return any;
}

std::uint64_t KernelCache::missingRoom(const UniqueFd& folder, std::uint64_t bytes) const {
    std::uint64_t needed = limits_.bytes + bytes;
    for (const auto& [aside, size] : coming_) {
        struct stat status {};
        const bool begun = ::fstatat(folder.get(), aside.c_str(), &status, AT_SYMLINK_NOFOLLOW) == 0;
        // What is written is not free any more.
        needed += size - std::min(size, begun ? occupiedBy(status) : 0);
    }
    const std::uint64_t free = freeBytes(folder);
    return needed - std::min(needed, free);
}

bool KernelCache::takeRoom(const UniqueFd& folder, const std::string& aside, std::uint64_t bytes) const {
    const std::lock_guard lock(mutex_);
    const std::uint64_t coming = std::accumulate(coming_.begin(), coming_.end(), bytes,
                                                 [](std::uint64_t sum, const auto& each) { return sum + each.second; });
    if (coming > limits_.bytes || coming_.size() + 1 > limits_.entries) return false;
    const std::vector<Entry> entries = entriesOf(folder);
    const std::uint64_t missing = missingRoom(folder, bytes);
    if (missing > total(entries, &Entry::occupied)) return false;  // all of them would go in vain
    Removal removal(folder);
    if (!evict(entries, {limits_.bytes - coming, limits_.entries - coming_.size() - 1}, missing, removal))
        removal.finish();
    if (missingRoom(folder, bytes) != 0) return false;
    coming_.emplace(aside, bytes);
    return true;
}

void KernelCache::giveRoomBack(const std::string& aside) const {
    const std::lock_guard lock(mutex_);
    coming_.erase(aside);
}

void KernelCache::publish(const UniqueFd& folder, const std::string& aside, const std::string& name,
                          std::uint64_t size) const {
    // From here on the entry itself counts: at no moment both, or none.
    const std::lock_guard lock(mutex_);
    // A sound one that somebody else was faster to make stays as it is.
    if (::renameat2(folder.get(), aside.c_str(), folder.get(), name.c_str(), RENAME_NOREPLACE) != 0) {
        if (errno != EEXIST) throw Error::fromErrno(errno, "cannot rename a kernel of the cache");
        if (isSoundThere(folder, name, size)) return;
        if (::renameat(folder.get(), aside.c_str(), folder.get(), name.c_str()) != 0)
            throw Error::fromErrno(errno, "cannot rename a kernel of the cache");
    }
    coming_.erase(aside);
}

std::optional<UniqueFd> KernelCache::find(const std::string& digest) const {
    if (!enabled()) return std::nullopt;
    const std::optional<UniqueFd> folder = cacheFolder(dataRoot_, false);
    if (!folder) return std::nullopt;
    for (const std::string& name : listDirectory(magicLink(*folder))) {
        const std::optional<std::uint64_t> size = sizeIn(name);
        if (!size || !name.starts_with(digest)) continue;
        if (!isSoundThere(*folder, name, *size)) continue;
        UniqueFd entry(::openat(folder->get(), name.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
        if (!entry && (errno == ENOENT || errno == ELOOP)) continue;  // it was evicted, or replaced
        if (!entry) throw Error::fromErrno(errno, "cannot open a kernel of the cache");
        struct stat status {};
        if (::fstat(entry.get(), &status) != 0) throw Error::fromErrno(errno, "cannot inspect a kernel of the cache");
        if (!isSound(status, *size)) continue;
        markUsed(entry, status);
        return entry;
    }
    return std::nullopt;
}

void KernelCache::keep(const std::string& digest, int elf) const {
    struct stat status {};
    if (::fstat(elf, &status) != 0) throw Error::fromErrno(errno, "cannot inspect the unpacked kernel");
    const std::uint64_t size = bytesOf(status);
    if (size > limits_.bytes) return;
    const std::optional<UniqueFd> folder = cacheFolder(dataRoot_, true);
    if (!folder) throw Error(ErrorKind::Unavailable, "the folder of the cache is gone");
    const std::string name = digest + "-" + std::to_string(size);
    if (isSoundThere(*folder, name, size)) return;
    const std::string aside = std::string(asideMark) + std::to_string(::getpid()) + "-" + std::to_string(next_++);
    if (!takeRoom(*folder, aside, size)) return;
    Rollback undo;  // never committed: after the rename nothing of it is left to undo
    undo.add([&] { giveRoomBack(aside); });
    copySparse(elf, magicLink(*folder) / aside, entryMode, ::geteuid(), ::getegid());
    undo.add([&] { ::unlinkat(folder->get(), aside.c_str(), 0); });
    MERGEN_FAILPOINT("vmm.firecracker.kernel_cache.aside");
    publish(*folder, aside, name, size);
    syncDirectory(magicLink(*folder));
}

}  // namespace mergen::vmm
