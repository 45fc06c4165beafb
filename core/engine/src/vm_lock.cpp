#include "vm_lock.hpp"

#include <array>
#include <cerrno>
#include <cstdio>
#include <fcntl.h>
#include <fstream>
#include <sstream>
#include <string>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <mergen/base/file.hpp>
#include <mergen/base/text.hpp>
#include <mergen/sdk/error.hpp>
#include <mergen/sdk/types.hpp>

namespace mergen::engine {

namespace fs = std::filesystem;

namespace {

constexpr std::string_view suffix = ".lock";
constexpr mode_t lockMode = 0640;
/// Others may delete and make the VM anew between our open and our flock, but not for ever.
constexpr int attempts = 100;
constexpr std::size_t ownerLimit = 100;

struct stat inspect(int fd, const fs::path& shown) {
    struct stat status {};
    if (::fstat(fd, &status) != 0) throw Error::fromErrno(errno, "cannot inspect " + shown.string());
    return status;
}

/// "process 4711 (python3)" of who holds flock(2) on the file; "another program" where /proc does not say (a process of
/// another pid namespace, a file system whose numbers differ).
std::string holderOf(const struct stat& file) {
    std::array<char, 64> wanted{};
    std::snprintf(wanted.data(), wanted.size(), "%02x:%02x:%llu", ::major(file.st_dev), ::minor(file.st_dev),
                  static_cast<unsigned long long>(file.st_ino));
    std::ifstream locks("/proc/locks");
    for (std::string line; std::getline(locks, line);) {
        std::istringstream words(line);  // "1: FLOCK  ADVISORY  WRITE 4711 fd:01:131 0 EOF"
        std::string number, kind, advisory, access, pid, inode;
        words >> number >> kind >> advisory >> access >> pid >> inode;
        if (kind != "FLOCK" || inode != wanted.data()) continue;
        std::string name;
        std::ifstream comm("/proc/" + pid + "/comm");
        std::getline(comm, name);
        return "process " + pid + (name.empty() ? "" : " (" + printable(name) + ")");
    }
    return "another program";
}

UniqueFd openLock(const fs::path& file) {
    // O_NONBLOCK: no FIFO in its place can hang us. Read and write, as flock(2) over NFS wants it.
    constexpr int flags = O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY;
    try {
        return openFile(file, flags, lockMode);
    } catch (const Error& error) {
        if (error.errnum() != ENOENT) throw;
    }
    makeDirectories(file.parent_path(), 0711);  // somebody has cleaned up in /run
    return openFile(file, flags, lockMode);
}

bool isNamed(const fs::path& file, const struct stat& held) {
    struct stat named {};
    return ::lstat(file.c_str(), &named) == 0 && named.st_dev == held.st_dev && named.st_ino == held.st_ino;
}

}  // namespace

VmLock::VmLock(fs::path file, std::string_view owner) : file_(std::move(file)) {
    for (int attempt = 0; attempt < attempts; ++attempt) {
        UniqueFd fd = openLock(file_);
        const struct stat status = inspect(fd.get(), file_);
        if (!S_ISREG(status.st_mode)) {
            throw Error(ErrorKind::FailedPrecondition,
                        "cannot lock " + file_.string() + ": something that is no plain file is there");
        }
        int result = -1;
        do {
            result = ::flock(fd.get(), LOCK_EX | LOCK_NB);
        } while (result != 0 && errno == EINTR);
        if (result != 0 && errno == EWOULDBLOCK) {
            throw Error(ErrorKind::Conflict, holderOf(status) + " holds its lock file " + file_.string());
        }
        if (result != 0) throw Error::fromErrno(errno, "cannot lock " + file_.string());
        // The file may have been removed with its VM between open and flock: then this is no lock on anything.
        if (!isNamed(file_, status)) continue;
        if ((status.st_mode & 07777U) != lockMode && ::fchmod(fd.get(), lockMode) != 0)
            throw Error::fromErrno(errno, "cannot set the mode of " + file_.string());
        if (status.st_size == 0) {
            const std::string line = std::string(owner) + "\n";
            // Where there is no room for it, it locks as well; it is only not known for ours after a crash.
            static_cast<void>(!::pwrite(fd.get(), line.data(), line.size(), 0));
        }
        fd_ = std::move(fd);
        return;
    }
    throw Error(ErrorKind::Conflict, "another program makes and removes the lock file " + file_.string());
}

VmLock::~VmLock() {
    // Not by close(2) alone: a child that is between fork and exec has a copy of the descriptor, and the lock with it.
    ::flock(fd_.get(), LOCK_UN);
}

void VmLock::remove() noexcept {
    ::unlink(file_.c_str());
}

void removeStrayLocks(const fs::path& runRoot, const std::string& instance,
                      const std::function<bool(const std::string& id)>& isKnown) {
    for (const std::string& name : listDirectory(runRoot)) {
        if (!name.ends_with(suffix) || isKnown(name.substr(0, name.size() - suffix.size()))) continue;
        try {
            const std::string text = readFile(runRoot / name, ownerLimit).value_or("");
            const auto owner = OwnerTag::parse(text.substr(0, text.find('\n')));
            if (owner && owner->instance == instance) VmLock(runRoot / name, owner->str()).remove();
        } catch (const Error&) {
            continue;  // held, or none of ours
        }
    }
}

}  // namespace mergen::engine
