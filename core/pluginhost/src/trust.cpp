#include "trust.hpp"

#include <array>
#include <cerrno>
#include <cstdio>
#include <fcntl.h>
#include <string>
#include <sys/stat.h>
#include <system_error>
#include <unistd.h>

#include <mergen/sdk/error.hpp>

namespace mergen::pluginhost {

namespace fs = std::filesystem;

namespace {

struct stat inspect(const fs::path& path, const std::string& shown, int flags) {
    struct stat status {};
    if (::fstatat(AT_FDCWD, path.c_str(), &status, flags) != 0) {
        throw Error::fromErrno(errno, "cannot inspect " + shown);
    }
    return status;
}

std::string octal(mode_t mode) {
    std::array<char, 8> text{};
    std::snprintf(text.data(), text.size(), "%04o", static_cast<unsigned>(mode & 07777U));
    return text.data();
}

/// Others can write it? With a POSIX ACL the group bits show its mask, so a named user who may write is seen here too.
bool writableByOthers(const struct stat& status) noexcept {
    return (status.st_mode & (S_IWGRP | S_IWOTH)) != 0;
}

void checkOwner(const struct stat& status, const std::string& shown) {
    if (status.st_uid == 0 || status.st_uid == ::geteuid()) return;
    throw Error(ErrorKind::PermissionDenied, shown + " belongs to uid " + std::to_string(status.st_uid) +
                                                 ", who could put other code there: only root" +
                                                 (::geteuid() == 0 ? "" : " and uid " + std::to_string(::geteuid())) +
                                                 " may own it (chown)");
}

void checkMode(const struct stat& status, const std::string& shown) {
    if (!writableByOthers(status)) return;
    throw Error(ErrorKind::PermissionDenied,
                shown + " has mode " + octal(status.st_mode) + ", so others than its owner can write it (chmod go-w)");
}

/// realpath(3), which std::filesystem::canonical is, with our kind of error.
fs::path resolve(const fs::path& path, const std::string& shown) {
    std::error_code failed;
    fs::path resolved = fs::canonical(path, failed);
    if (failed) throw Error::fromErrno(failed.value(), "cannot follow " + shown);
    return resolved;
}

std::int64_t nanoseconds(const timespec& time) noexcept {
    return std::int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

}  // namespace

fs::path trustedDirectory(const fs::path& directory) {
    const std::string shown = "the plugin folder " + directory.string();
    if (!directory.is_absolute()) throw Error(ErrorKind::InvalidArgument, shown + " is not an absolute path");
    fs::path resolved = resolve(directory, shown);
    const struct stat status = inspect(resolved, shown, AT_SYMLINK_NOFOLLOW);
    if (!S_ISDIR(status.st_mode)) throw Error(ErrorKind::InvalidArgument, shown + " is not a folder");
    checkOwner(status, shown);
    checkMode(status, shown);
    for (fs::path above = resolved; above.has_relative_path();) {
        above = above.parent_path();
        const std::string what = "the folder " + above.string() + " above " + shown;
        const struct stat parent = inspect(above, what, AT_SYMLINK_NOFOLLOW);
        checkOwner(parent, what);
        if ((parent.st_mode & S_ISVTX) == 0) checkMode(parent, what);
    }
    return resolved;
}

TrustedFile trustedFile(const fs::path& directory, const fs::path& file) {
    const fs::path entry = directory / file.filename();
    TrustedFile trusted{entry, {}};
    if (S_ISLNK(inspect(entry, "it", AT_SYMLINK_NOFOLLOW).st_mode)) {
        trusted.path = resolve(entry, "the link");
        if (trusted.path.parent_path() != directory) {
            throw Error(ErrorKind::PermissionDenied,
                        "it is a link out of the plugin folder, to " + trusted.path.string());
        }
    }
    const struct stat status = inspect(trusted.path, "it", AT_SYMLINK_NOFOLLOW);
    if (!S_ISREG(status.st_mode)) throw Error(ErrorKind::InvalidArgument, "it is not a regular file");
    checkOwner(status, "it");
    checkMode(status, "it");
    trusted.identity = {status.st_dev, status.st_ino, status.st_size, nanoseconds(status.st_mtim),
                        nanoseconds(status.st_ctim)};
    return trusted;
}

}  // namespace mergen::pluginhost
