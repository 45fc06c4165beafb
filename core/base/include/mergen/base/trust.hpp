#pragma once

#include <cstddef>
#include <filesystem>
#include <string>
#include <sys/stat.h>

/// Which files may steer a server that may be root: only those that nobody but root and the server's own user can
/// change or put in their place. Every function throws Error(PermissionDenied) that says whose the thing is, or its
/// mode, and what to do; `shown` is what the text calls it.
namespace mergen {

/// A file or folder of this status belongs to root or to our user, and only its owner can write it. With a POSIX ACL
/// the group bits show its mask, so that a named user who may write is seen, too.
void requireTrusted(const struct stat& status, const std::string& shown);

/// The folder without links in its path; it and every folder above it are under the rule, where the sticky bit of a
/// folder above (/tmp) is enough. Throws NotFound, or InvalidArgument if it is relative or no folder.
[[nodiscard]] std::filesystem::path trustedDirectory(const std::filesystem::path& directory, const std::string& shown);

/// The content of a regular file of at most `limit` bytes, under the rule like the folders above it; a link is followed
/// and both its ends' folders are under the rule. Looks at what it opened, so nothing can be put in its place between.
/// Throws NotFound, InvalidArgument (no regular file), ResourceExhausted (larger).
[[nodiscard]] std::string readTrustedFile(const std::filesystem::path& file, std::size_t limit,
                                          const std::string& shown);

}  // namespace mergen
