#pragma once

#include <cstddef>
#include <filesystem>
#include <string>
#include <sys/stat.h>

/// Which files a server that may be root reads its orders from, executes or maps: only those that nobody but root and
/// the server's own user can change or put in their place. `shown` is what error texts call the thing.
namespace mergen {

/// lstat(2). Throws Error::fromErrno that names `shown`.
[[nodiscard]] struct stat inspect(const std::filesystem::path& path, const std::string& shown);

/// `path` without links. Throws Error that names `shown`.
[[nodiscard]] std::filesystem::path resolve(const std::filesystem::path& path, const std::string& shown);

/// Throws PermissionDenied, with what to do, unless root or our user owns what has this status, and nobody else may
/// write to it.
void checkTrusted(const struct stat& status, const std::string& shown);

/// The same of every folder above `path`, which has no links in it; there the sticky bit (/tmp) is enough.
void checkTrustedAbove(const std::filesystem::path& path, const std::string& shown);

/// The folder without links in its path; it and those above are under the rule. Throws NotFound, InvalidArgument
/// (relative, no folder) or PermissionDenied.
[[nodiscard]] std::filesystem::path trustedDirectory(const std::filesystem::path& directory, const std::string& shown);

/// The content of a regular file of at most `limit` bytes, under the rule like the folders above it; a link is followed
/// if the folder that it lies in is, too. Looks at what it opened, so that nothing can be put in its place in between.
/// Throws NotFound, InvalidArgument (no regular file), ResourceExhausted (larger) or PermissionDenied.
[[nodiscard]] std::string readTrustedFile(const std::filesystem::path& file, std::size_t limit,
                                          const std::string& shown);

}  // namespace mergen
