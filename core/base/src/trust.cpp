#include <array>
#include <cerrno>
#include <cstdio>
#include <fcntl.h>
#include <system_error>
#include <unistd.h>

#include <mergen/base/file.hpp>
#include <mergen/base/text.hpp>
#include <mergen/base/trust.hpp>
#include <mergen/sdk/error.hpp>

namespace mergen {

namespace fs = std::filesystem;

namespace {

constexpr std::array<const char*, 6> programFolders = {"/usr/local/sbin", "/usr/local/bin", "/usr/sbin",
                                                       "/usr/bin",        "/sbin",          "/bin"};

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

fs::path findProgram(const fs::path& name) {
    for (const char* folder : programFolders) {
        fs::path candidate = fs::path(folder) / name;
        if (::access(candidate.c_str(), X_OK) == 0) return candidate;
    }
    std::string where;
    for (const char* folder : programFolders) where += (where.empty() ? "" : ", ") + std::string(folder);
    throw Error(ErrorKind::NotFound, "there is no program " + printable(name.string()) + " in " + where);
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
    std::error_code failed;
    const fs::path real = fs::canonical(file, failed);
    if (failed) throw Error::fromErrno(failed.value(), "cannot read " + shown);
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

fs::path trustedProgram(const fs::path& program) {
    const bool bare = !program.empty() && !program.has_parent_path() && program != "." && program != "..";
    if (!bare && !program.is_absolute()) {
        throw Error(ErrorKind::InvalidArgument,
                    "'" + printable(program.string()) + "' is neither an absolute path nor the bare name of a program");
    }
    const fs::path found = bare ? findProgram(program) : program;
    const std::string shown = "the program " + found.string();
    fs::path resolved = resolve(found, shown);
    const struct stat status = inspect(resolved, shown);
    if (!S_ISREG(status.st_mode)) throw Error(ErrorKind::InvalidArgument, shown + " is not a regular file");
    checkTrusted(status, shown);
    checkTrustedAbove(resolved, shown);
    if (::access(resolved.c_str(), X_OK) != 0) throw Error::fromErrno(errno, "cannot execute " + found.string());
    return resolved;
}

}  // namespace mergen
