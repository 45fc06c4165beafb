#pragma once

#include <cstddef>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <sys/types.h>
#include <vector>

#include <mergen/base/fd.hpp>
#include <mergen/sdk/types.hpp>

/// Small files and folders, without following links and without half-written results. Every function throws
/// Error::fromErrno with operation and path in its text.
namespace mergen {

/// open(2) with O_CLOEXEC added.
[[nodiscard]] UniqueFd openFile(const std::filesystem::path& path, int flags, mode_t mode = 0);

/// The content of a regular file of at most `limit` bytes; nothing if it does not exist. Refuses links, devices and
/// FIFOs (a FIFO would hang a plain open) and throws ResourceExhausted beyond the limit.
[[nodiscard]] std::optional<std::string> readFile(const std::filesystem::path& path, std::size_t limit);
[[nodiscard]] std::optional<std::string> readFileAt(int directory, const std::string& name, std::size_t limit);
/// The same of a file that is open; `path` is what error texts call it.
[[nodiscard]] std::string readOpenFile(int fd, const std::filesystem::path& path, std::size_t limit);

/// Writes all of `data`, however many write(2) it takes.
void writeAll(int fd, std::string_view data, std::string_view what);

/// Replaces `path` atomically: temporary beside it, write, fsync, rename, fsync of the folder. `mode` is exact, not
/// subject to the umask.
void writeFileDurably(const std::filesystem::path& path, std::string_view data, mode_t mode);

/// The same without the two fsync: for what a reboot may take (run directories). `owner`: whose it becomes; none: ours.
void writeFileAtomically(const std::filesystem::path& path, std::string_view data, mode_t mode,
                         const std::optional<Credentials>& owner = {});

/// fsync of a folder, which makes the names in it durable.
void syncDirectory(const std::filesystem::path& path);

/// Makes `path` and its missing parents. The last folder then has exactly `mode`, if it was made now; parents 0755. An
/// existing folder stays as it is. Throws if something else than a folder stands there.
void makeDirectories(const std::filesystem::path& path, mode_t mode);

/// Removes a file or a whole tree, following no link and crossing no mount; false if it was not there.
bool removeTree(const std::filesystem::path& path);

/// Names in a folder, sorted, without "." and ".."; empty if the folder does not exist.
[[nodiscard]] std::vector<std::string> listDirectory(const std::filesystem::path& path);

/// Opens a regular file below one of `roots` for reading (`flags` O_RDONLY or O_RDWR): the path must be absolute and
/// lie below a root (the nearest one counts, if roots are nested), and no component below the root may be a link, ".."
/// or a mount point (openat2(2): RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, RESOLVE_NO_XDEV): whoever mounts something there
/// must name it as a root. The root itself may be a link. What is no regular file is looked at and never opened: that
/// alone can start a watchdog or wait for ever. Throws PermissionDenied for a path outside the roots, through a link or
/// a mount, NotFound, or InvalidArgument for something that is not a regular file.
[[nodiscard]] UniqueFd openBeneath(const std::vector<std::filesystem::path>& roots, const std::filesystem::path& path,
                                   int flags);

/// Whether some process has the regular file of `fd`, which must be open for reading only, open for writing. False also
/// where that cannot be told: on file systems without leases (fcntl(2), F_SETLEASE), or if it belongs to another user
/// than us and we are not root.
[[nodiscard]] bool isOpenForWriting(int fd);

/// Copies the regular file `source` (read from its beginning) into the empty file `target`, open for writing: by
/// reflink where the file system can, else hole by hole, so that a sparse file stays sparse. Only for a source whose
/// content nobody changes: a change is not noticed, save that the file is cut off (Conflict). Not durable on return.
/// `shown` is what error texts call the target.
void copyContent(int source, int target, const std::filesystem::path& shown);

/// Copies the regular file `source` to the new file `target` of `mode`, owned by uid and gid, as copyContent() does.
/// Durable on return.
/// Nothing is left at `target` if it throws. Throws AlreadyExists if it is there, and Conflict if size, time of change
/// or time of writing of the source are not afterwards what they were before: the copy would be of no one moment. A
/// change within one tick of the kernel's clock (some milliseconds) of the one before can be missed.
void copySparse(int source, const std::filesystem::path& target, mode_t mode, uid_t uid, gid_t gid);

}  // namespace mergen
