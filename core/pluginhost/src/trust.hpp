#pragma once

#include <cstdint>
#include <filesystem>
#include <sys/types.h>

/// Which library may be mapped into the server: one under the rule of mergen/base/trust.hpp, known again by its
/// identity.
namespace mergen::pluginhost {

/// Which content a path stood for when it was looked at. The time of the last status change is in it because it cannot
/// be set back.
struct FileIdentity {
    dev_t device = 0;
    ino_t inode = 0;
    off_t size = 0;
    std::int64_t modified = 0;  ///< ns since the epoch
    std::int64_t changed = 0;   ///< ns since the epoch
    bool operator==(const FileIdentity&) const = default;
};

struct TrustedFile {
    std::filesystem::path path;  ///< without links: what is to be loaded
    FileIdentity identity;
    bool operator==(const TrustedFile&) const = default;
};

/// `file`, an entry of the folder `directory` that trustedDirectory() gave: a regular file under the same rule as its
/// folder, or a link to one beside it. Opens nothing, so that a FIFO or a device cannot hold us. Throws Error with the
/// cause alone: PermissionDenied, InvalidArgument, NotFound.
[[nodiscard]] TrustedFile trustedFile(const std::filesystem::path& directory, const std::filesystem::path& file);

}  // namespace mergen::pluginhost
