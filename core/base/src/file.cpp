#include <algorithm>
#include <array>
#include <cerrno>
#include <dirent.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/openat2.h>
#include <memory>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <mergen/base/file.hpp>
#include <mergen/base/rollback.hpp>
#include <mergen/base/text.hpp>
#include <mergen/sdk/error.hpp>
#include <mergen/sdk/types.hpp>

namespace mergen {

namespace fs = std::filesystem;

namespace {

[[noreturn]] void fail(std::string_view operation, const fs::path& path) {
    throw Error::fromErrno(errno, std::string(operation) + " " + path.string());
}

struct DirectoryCloser {
    void operator()(DIR* directory) const noexcept { ::closedir(directory); }
};
using Directory = std::unique_ptr<DIR, DirectoryCloser>;

/// Names in an open folder; takes the descriptor.
std::vector<std::string> namesIn(UniqueFd fd, const fs::path& path) {
    const Directory directory(::fdopendir(fd.get()));
    if (!directory) fail("cannot read the folder", path);
    static_cast<void>(fd.release());
    std::vector<std::string> names;
    for (;;) {
        errno = 0;
        const dirent* entry = ::readdir(directory.get());
        if (entry == nullptr) {
            if (errno != 0) fail("cannot read the folder", path);
            break;
        }
        const std::string_view name = entry->d_name;
        if (name != "." && name != "..") names.emplace_back(name);
    }
    std::ranges::sort(names);
    return names;
}

void syncFd(int fd, const fs::path& path) {
    if (::fsync(fd) != 0) fail("cannot sync", path);
}

void replaceFile(const fs::path& path, std::string_view data, mode_t mode, bool durable,
                 const std::optional<Credentials>& owner = {}) {
    // Beside the target, so that the rename stays within one file system; random, so that two writers do not meet.
    const fs::path temporary = path.parent_path() / ("." + path.filename().string() + "." + Uuid::random().short8());
    UniqueFd fd = openFile(temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, mode);
    Rollback undo;
    undo.add([&] { ::unlink(temporary.c_str()); });
    if (::fchmod(fd.get(), mode) != 0) fail("cannot set the mode of", temporary);
    if (owner && (owner->uid != ::geteuid() || owner->gid != ::getegid()) &&
        ::fchown(fd.get(), owner->uid, owner->gid) != 0) {
        fail("cannot give away", temporary);
    }
    writeAll(fd.get(), data, "cannot write " + path.string());
    if (durable) syncFd(fd.get(), path);
    fd.reset();
    if (::rename(temporary.c_str(), path.c_str()) != 0) fail("cannot replace", path);
    undo.commit();
    if (durable) syncDirectory(path.parent_path());
}

}  // namespace

UniqueFd openFile(const fs::path& path, int flags, mode_t mode) {
    UniqueFd fd(::open(path.c_str(), flags | O_CLOEXEC, mode));
    if (!fd) fail("cannot open", path);
    return fd;
}

std::string readOpenFile(int fd, const fs::path& path, std::size_t limit) {
    struct stat status {};
    if (::fstat(fd, &status) != 0) fail("cannot inspect", path);
    if (!S_ISREG(status.st_mode)) {
        throw Error(ErrorKind::InvalidArgument, "cannot read " + path.string() + ": it is not a regular file");
    }
    const auto tooLarge = [&] {
        return Error(ErrorKind::ResourceExhausted,
                     "cannot read " + path.string() + ": it is larger than " + std::to_string(limit) + " bytes");
    };
    if (static_cast<std::uint64_t>(status.st_size) > limit) throw tooLarge();
    std::string content;
    std::array<char, 16384> buffer{};
    for (;;) {
        const ssize_t got = ::read(fd, buffer.data(), buffer.size());
        if (got < 0) {
            if (errno == EINTR) continue;
            fail("cannot read", path);
        }
        if (got == 0) return content;
        content.append(buffer.data(), static_cast<std::size_t>(got));
        if (content.size() > limit) throw tooLarge();  // it grew while we read
    }
}

std::optional<std::string> readFileAt(int directory, const std::string& name, std::size_t limit) {
    // O_NONBLOCK: opening a FIFO must not wait for a writer; it is then refused as no regular file.
    const UniqueFd fd(::openat(directory, name.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY));
    if (!fd) {
        if (errno == ENOENT) return std::nullopt;
        fail("cannot open", name);
    }
    return readOpenFile(fd.get(), name, limit);
}

std::optional<std::string> readFile(const fs::path& path, std::size_t limit) {
    return readFileAt(AT_FDCWD, path.string(), limit);
}

void writeAll(int fd, std::string_view data, std::string_view what) {
    while (!data.empty()) {
        const ssize_t wrote = ::write(fd, data.data(), data.size());
        if (wrote < 0) {
            if (errno == EINTR) continue;
            throw Error::fromErrno(errno, what);
        }
        if (wrote == 0) throw Error(ErrorKind::Unavailable, std::string(what) + ": nothing was written");
        data.remove_prefix(static_cast<std::size_t>(wrote));
    }
}

void writeFileDurably(const fs::path& path, std::string_view data, mode_t mode) {
    replaceFile(path, data, mode, /*durable=*/true);
}

void writeFileAtomically(const fs::path& path, std::string_view data, mode_t mode,
                         const std::optional<Credentials>& owner) {
    replaceFile(path, data, mode, /*durable=*/false, owner);
}

void syncDirectory(const fs::path& path) {
    syncFd(openFile(path, O_RDONLY | O_DIRECTORY).get(), path);
}

void makeDirectories(const fs::path& path, mode_t mode) {
    const auto isDirectory = [](const fs::path& at) {
        struct stat status {};
        return ::stat(at.c_str(), &status) == 0 && S_ISDIR(status.st_mode);
    };
    if (isDirectory(path)) return;
    if (path.has_parent_path() && path.parent_path() != path) makeDirectories(path.parent_path(), 0755);
    if (::mkdir(path.c_str(), mode) != 0) {
        if (errno == EEXIST && isDirectory(path)) return;  // somebody else was faster
        fail("cannot make the folder", path);
    }
    if (::chmod(path.c_str(), mode) != 0) fail("cannot set the mode of", path);
}

namespace {

/// Folders within folders that are taken apart where they are. Each level costs a descriptor.
constexpr unsigned maxDepth = 64;

/// Moves a folder into the tree's own first folder, to be taken apart from there: who filled the tree may have nested
/// folders as deep as the file system takes.
void moveUp(int parent, const std::string& name, int top, const fs::path& shown) {
    const std::string aside = "." + Uuid::random().str();
    if (::renameat(parent, name.c_str(), top, aside.c_str()) != 0 && errno != ENOENT) fail("cannot remove", shown);
}

/// `top`: the tree's first folder, below depth 0. `shown`: the tree, for error texts.
void removeBelow(int parent, const std::string& name, dev_t device, const fs::path& shown, int top = -1,
                 unsigned depth = 0) {
    if (::unlinkat(parent, name.c_str(), 0) == 0 || errno == ENOENT) return;
    if (errno != EISDIR && errno != EPERM) fail("cannot remove", shown);
    UniqueFd directory(::openat(parent, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (!directory) fail("cannot remove", shown);
    struct stat status {};
    if (::fstat(directory.get(), &status) != 0) fail("cannot inspect", shown);
    if (status.st_dev != device) {
        throw Error(ErrorKind::FailedPrecondition, "cannot remove " + shown.string() + ": something is mounted there");
    }
    for (bool moved = true; std::exchange(moved, false);) {
        UniqueFd again(::openat(directory.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
        if (!again) fail("cannot remove", shown);
        for (const std::string& entry : namesIn(std::move(again), shown)) {
            if (depth < maxDepth) {
                removeBelow(directory.get(), entry, device, shown, depth == 0 ? directory.get() : top, depth + 1);
            } else if (::unlinkat(directory.get(), entry.c_str(), 0) != 0 && errno != ENOENT) {
                moveUp(directory.get(), entry, top, shown);
            }
            moved = depth == 0;  // something may have been moved up here: looked at once more
        }
    }
    if (::unlinkat(parent, name.c_str(), AT_REMOVEDIR) != 0 && errno != ENOENT) fail("cannot remove", shown);
}

}  // namespace

bool removeTree(const fs::path& path) {
    const UniqueFd parent(::open(path.parent_path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!parent) {
        if (errno == ENOENT) return false;
        fail("cannot open", path.parent_path());
    }
    struct stat status {};
    if (::fstatat(parent.get(), path.filename().c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0) {
        if (errno == ENOENT) return false;
        fail("cannot inspect", path);
    }
    removeBelow(parent.get(), path.filename().string(), status.st_dev, path);
    return true;
}

std::vector<std::string> listDirectory(const fs::path& path) {
    UniqueFd fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!fd) {
        if (errno == ENOENT) return {};
        fail("cannot open the folder", path);
    }
    return namesIn(std::move(fd), path);
}

namespace {

/// Whether `path` lies below `folder`, by their names alone.
bool isBelow(const fs::path& folder, const fs::path& path) {
    const auto [folderEnd, rest] = std::mismatch(folder.begin(), folder.end(), path.begin(), path.end());
    return folderEnd == folder.end() && rest != path.end();
}

}  // namespace

UniqueFd openBeneath(const std::vector<fs::path>& roots, const fs::path& path, int flags) {
    const auto outside = [&](std::string_view why) {
        std::string text = "cannot use " + path.string() + ": " + std::string(why) + "; allowed are files below";
        for (const fs::path& root : roots) text += " " + root.string();
        return Error(ErrorKind::PermissionDenied, text);
    };
    if (path.native().find('\0') != std::string::npos) {
        throw Error(ErrorKind::InvalidArgument, "cannot use " + printable(path.native()) + ": a NUL is in the path");
    }
    if (!path.is_absolute()) throw outside("the path is not absolute");
    const fs::path* nearest = nullptr;
    for (const fs::path& root : roots) {
        if (isBelow(root, path) && (nearest == nullptr || isBelow(*nearest, root))) nearest = &root;
    }
    if (nearest == nullptr) throw outside("it is not below an allowed folder");
    const fs::path relative = path.lexically_relative(*nearest);
    if (std::ranges::find(path, "..") != path.end()) throw outside("'..' is in the path");

    const UniqueFd rootFd = openFile(*nearest, O_PATH | O_DIRECTORY);
    open_how how{};
    how.flags = O_PATH | O_CLOEXEC;
    how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV;
    const UniqueFd place(static_cast<int>(::syscall(SYS_openat2, rootFd.get(), relative.c_str(), &how, sizeof how)));
    if (!place) {
        if (errno == ELOOP) throw outside("there is a link on the way");
        if (errno == EXDEV) throw outside("it leads out of the folder, or to something that is mounted in it");
        fail("cannot open", path);
    }
    struct stat status {};
    if (::fstat(place.get(), &status) != 0) fail("cannot inspect", path);
    if (!S_ISREG(status.st_mode)) {
        throw Error(ErrorKind::InvalidArgument, "cannot use " + path.string() + ": it is " +
                                                    (S_ISDIR(status.st_mode) ? "a folder" : "no regular file"));
    }
    // The very file that was looked at, whatever its name says by now.
    const std::string same = "/proc/self/fd/" + std::to_string(place.get());
    UniqueFd fd(::open(same.c_str(), flags | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
    if (!fd) fail("cannot open", path);
    return fd;
}

bool isOpenForWriting(int fd) {
    // Whoever opens the file for writing while the lease is ours waits until it is given back, and we are told by a
    // signal. The usual one, SIGIO, would end us; SIGURG is ignored.
    if (::fcntl(fd, F_SETSIG, SIGURG) != 0) return false;
    if (::fcntl(fd, F_SETLEASE, F_RDLCK) != 0) return errno == EAGAIN;
    ::fcntl(fd, F_SETLEASE, F_UNLCK);
    return false;
}

namespace {

Error changedMeanwhile(const fs::path& target) {
    return {ErrorKind::Conflict, "cannot copy to " + target.string() + ": the source was changed meanwhile"};
}

bool sameTime(const timespec& a, const timespec& b) noexcept {
    return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

/// Copies the byte ranges that hold data.
void copyData(int source, int target, off_t size, const fs::path& shown) {
    off_t at = 0;
    while (at < size) {
        off_t data = ::lseek(source, at, SEEK_DATA);
        if (data < 0) {
            if (errno == ENXIO) break;  // a hole to the end
            if (errno != EINVAL) fail("cannot read the source of", shown);
            data = at;  // no holes known here: all of it is data
        }
        off_t end = ::lseek(source, data, SEEK_HOLE);
        if (end < 0) end = size;
        off_t from = data;
        off_t to = data;
        while (from < end) {
            const ssize_t copied =
                ::copy_file_range(source, &from, target, &to, static_cast<std::size_t>(end - from), 0);
            if (copied > 0) continue;
            if (copied < 0 && errno == EINTR) continue;
            if (copied == 0) throw changedMeanwhile(shown);
            if (errno != EXDEV && errno != EINVAL && errno != EOPNOTSUPP && errno != ENOSYS)
                fail("cannot copy to", shown);
            // Another kind of file system on the other side: by hand.
            std::array<char, 65536> buffer{};
            const auto wanted =
                static_cast<std::size_t>(std::min<off_t>(end - from, static_cast<off_t>(buffer.size())));
            const ssize_t got = ::pread(source, buffer.data(), wanted, from);
            if (got < 0 && errno == EINTR) continue;
            if (got < 0) fail("cannot read the source of", shown);
            if (got == 0) throw changedMeanwhile(shown);
            for (ssize_t done = 0; done < got;) {
                const ssize_t wrote = ::pwrite(target, buffer.data() + done, static_cast<std::size_t>(got - done), to);
                if (wrote < 0 && errno == EINTR) continue;
                if (wrote < 0) fail("cannot write", shown);
                done += wrote;
                to += wrote;
            }
            from += got;
        }
        at = end;
    }
}

}  // namespace

void copyContent(int source, int target, const fs::path& shown) {
    struct stat status {};
    if (::fstat(source, &status) != 0) fail("cannot inspect the source of", shown);
    if (::ioctl(target, FICLONE, source) == 0) return;
    if (::ftruncate(target, status.st_size) != 0) fail("cannot size", shown);
    copyData(source, target, status.st_size, shown);
}

void copySparse(int source, const fs::path& target, mode_t mode, uid_t uid, gid_t gid) {
    struct stat status {};
    if (::fstat(source, &status) != 0) fail("cannot inspect the source of", target);
    const UniqueFd fd = openFile(target, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0600);
    Rollback undo;
    undo.add([&] { ::unlink(target.c_str()); });
    copyContent(source, fd.get(), target);
    struct stat after {};
    if (::fstat(source, &after) != 0) fail("cannot inspect the source of", target);
    if (after.st_size != status.st_size || !sameTime(after.st_mtim, status.st_mtim) ||
        !sameTime(after.st_ctim, status.st_ctim)) {
        throw changedMeanwhile(target);
    }
    if ((uid != ::geteuid() || gid != ::getegid()) && ::fchown(fd.get(), uid, gid) != 0)
        fail("cannot give away", target);
    if (::fchmod(fd.get(), mode) != 0) fail("cannot set the mode of", target);
    syncFd(fd.get(), target);
    syncDirectory(target.parent_path());
    undo.commit();
}

}  // namespace mergen
