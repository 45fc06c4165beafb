#include "trust.hpp"

#include <string>
#include <sys/stat.h>

#include <mergen/base/trust.hpp>
#include <mergen/sdk/error.hpp>

namespace mergen::pluginhost {

namespace fs = std::filesystem;

namespace {

std::int64_t nanoseconds(const timespec& time) noexcept {
    return std::int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

}  // namespace

TrustedFile trustedFile(const fs::path& directory, const fs::path& file) {
    const fs::path entry = directory / file.filename();
    TrustedFile trusted{entry, {}};
    if (S_ISLNK(inspect(entry, "it").st_mode)) {
        trusted.path = resolve(entry, "the link");
        if (trusted.path.parent_path() != directory) {
            throw Error(ErrorKind::PermissionDenied,
                        "it is a link out of the plugin folder, to " + trusted.path.string());
        }
    }
    const struct stat status = inspect(trusted.path, "it");
    if (!S_ISREG(status.st_mode)) throw Error(ErrorKind::InvalidArgument, "it is not a regular file");
    checkTrusted(status, "it");
    trusted.identity = {status.st_dev, status.st_ino, status.st_size, nanoseconds(status.st_mtim),
                        nanoseconds(status.st_ctim)};
    return trusted;
}

}  // namespace mergen::pluginhost
