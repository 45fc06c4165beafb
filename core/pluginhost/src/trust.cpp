#include "trust.hpp"

#include <cerrno>
#include <fcntl.h>
#include <string>
#include <sys/stat.h>
#include <system_error>

#include <mergen/base/trust.hpp>
#include <mergen/sdk/error.hpp>

namespace mergen::pluginhost {

namespace fs = std::filesystem;

namespace {

struct stat inspect(const fs::path& path) {
    struct stat status {};
    if (::fstatat(AT_FDCWD, path.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0) {
        throw Error::fromErrno(errno, "cannot inspect it");
    }
    return status;
}

std::int64_t nanoseconds(const timespec& time) noexcept {
    return std::int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

}  // namespace

TrustedFile trustedFile(const fs::path& directory, const fs::path& file) {
    const fs::path entry = directory / file.filename();
    TrustedFile trusted{entry, {}};
    if (S_ISLNK(inspect(entry).st_mode)) {
        std::error_code failed;
        trusted.path = fs::canonical(entry, failed);
        if (failed) throw Error::fromErrno(failed.value(), "cannot follow the link");
        if (trusted.path.parent_path() != directory) {
            throw Error(ErrorKind::PermissionDenied,
                        "it is a link out of the plugin folder, to " + trusted.path.string());
        }
    }
    const struct stat status = inspect(trusted.path);
    if (!S_ISREG(status.st_mode)) throw Error(ErrorKind::InvalidArgument, "it is not a regular file");
    requireTrusted(status, "it");
    trusted.identity = {status.st_dev, status.st_ino, status.st_size, nanoseconds(status.st_mtim),
                        nanoseconds(status.st_ctim)};
    return trusted;
}

}  // namespace mergen::pluginhost
