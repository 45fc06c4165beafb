#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <sys/stat.h>

/// Which files a server that may be root executes or maps: only those that nobody but root and the server's own user
/// can change or put in their place.
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

/// The program that `program` means, without links: an absolute path, or a bare name that is looked for where
/// distributions put programs (/usr/local/sbin, …, /bin), never in the environment's PATH. Throws NotFound if there is
/// none, InvalidArgument for a relative path or what is no regular file, PermissionDenied if it cannot be executed or
/// somebody else could change it.
[[nodiscard]] std::filesystem::path trustedProgram(const std::filesystem::path& program);

}  // namespace mergen
