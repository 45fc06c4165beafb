#pragma once

#include <cstdint>
#include <filesystem>
#include <sys/types.h>

/// Which files may be mapped into a server that may be root: only those that nobody but root and the server's own user
/// can change or put in their place.
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

/// The plugin folder without links in its path. It must belong to root or to our user and be writable by its owner
/// only; so must every folder above it, where the sticky bit (/tmp) is enough. Throws Error: NotFound, InvalidArgument
/// (not absolute, no folder), PermissionDenied naming the folder at fault, whose it is or its mode, and what to do.
[[nodiscard]] std::filesystem::path trustedDirectory(const std::filesystem::path& directory);

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
