#include <array>
#include <cerrno>
#include <cstdio>
#include <fcntl.h>
#include <system_error>
#include <unistd.h>

#include <mergen/base/file.hpp>
#include <mergen/base/trust.hpp>
#include <mergen/sdk/error.hpp>

namespace mergen {

namespace fs = std::filesystem;

namespace {

std::string octal(mode_t mode) {
    std::array<char, 8> text{};
    std::snprintf(text.data(), text.size(), "%04o", static_cast<unsigned>(mode & 07777U));
    return text.data();
}

void checkOwner(const struct stat& status, const std::string& shown) {
    if (status.st_uid == 0 || status.st_uid == ::geteuid()) return;
    throw Error(ErrorKind::PermissionDenied,
                shown + " belongs to uid " + std::to_string(status.st_uid) + ", who could change it: only root" +
                    (::geteuid() == 0 ? "" : " and uid " + std::to_string(::geteuid())) + " may own it (chown)");
}

/// With a POSIX ACL the group bits show its mask, so a named user who may write is seen here too.
void checkMode(const struct stat& status, const std::string& shown) {
    if ((status.st_mode & (S_IWGRP | S_IWOTH)) == 0) return;
    throw Error(ErrorKind::PermissionDenied,
                shown + " has mode " + octal(status.st_mode) + ", so others than its owner can write it (chmod go-w)");
}

}  // namespace

struct stat inspect(const fs::path& path, const std::string& shown) {
    struct stat status {};
    if (::lstat(path.c_str(), &status) != 0) throw Error::fromErrno(errno, "cannot inspect " + shown);
    return status;
}

fs::path resolve(const fs::path& path, const std::string& shown) {
    std::error_code failed;
    fs::path resolved = fs::canonical(path, failed);  // realpath(3), with our kind of error
    if (failed) throw Error::fromErrno(failed.value(), "cannot follow " + shown);
    return resolved;
}

void checkTrusted(const struct stat& status, const std::string& shown) {
    checkOwner(status, shown);
    checkMode(status, shown);
}

void checkTrustedAbove(const fs::path& path, const std::string& shown) {
    for (fs::path above = path; above.has_relative_path();) {
        above = above.parent_path();
        const std::string what = "the folder " + above.string() + " above " + shown;
        const struct stat parent = inspect(above, what);
        checkOwner(parent, what);
        if ((parent.st_mode & S_ISVTX) == 0) checkMode(parent, what);
    }
}

fs::path trustedDirectory(const fs::path& directory, const std::string& shown) {
    if (!directory.is_absolute()) throw Error(ErrorKind::InvalidArgument, shown + " is not an absolute path");
    fs::path resolved = resolve(directory, shown);
    const struct stat status = inspect(resolved, shown);
    if (!S_ISDIR(status.st_mode)) throw Error(ErrorKind::InvalidArgument, shown + " is not a folder");
    checkTrusted(status, shown);
    checkTrustedAbove(resolved, shown);
    return resolved;
}

std::string readTrustedFile(const fs::path& file, std::size_t limit, const std::string& shown) {
    const fs::path real = resolve(file, shown);
    // O_NONBLOCK: opening a FIFO must not wait for a writer; it is then refused as no regular file.
    const UniqueFd fd = openFile(real, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
    struct stat status {};
    if (::fstat(fd.get(), &status) != 0) throw Error::fromErrno(errno, "cannot inspect " + shown);
    checkTrusted(status, shown);
    checkTrustedAbove(real, shown);
    const fs::path folder = resolve(fs::absolute(file).parent_path(), "the folder of " + shown);
    if (folder != real.parent_path()) checkTrustedAbove(folder / file.filename(), shown);  // a link's own
    return readOpenFile(fd.get(), real, limit);
}

}  // namespace mergen
