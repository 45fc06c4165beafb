#include "files_storage.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <dirent.h>
#include <fcntl.h>
#include <functional>
#include <memory>
#include <ranges>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include <utility>

#include <mergen/base/file.hpp>
#include <mergen/base/record.hpp>
#include <mergen/base/rollback.hpp>
#include <mergen/base/text.hpp>

namespace mergen::storage {

namespace {

constexpr mode_t folderMode = 0750;
constexpr mode_t fileMode = 0640;

/// What the interface lets a backend throw when the medium fails: ResourceExhausted or Unavailable, whatever the errno.
[[nodiscard]] Error mediumError(int errnum, const std::string& text) {
    const Error error = Error::fromErrno(errnum, text);
    if (error.kind() == ErrorKind::ResourceExhausted || error.kind() == ErrorKind::Unavailable) return error;
    return Error(ErrorKind::Unavailable, error.what());
}

/// A fault of this process, not of the record that is being read.
[[nodiscard]] bool isShortage(int errnum) noexcept {
    return errnum == EMFILE || errnum == ENFILE || errnum == ENOMEM;
}

[[nodiscard]] UniqueFd openFolder(int parent, const std::string& name) noexcept {
    return UniqueFd(::openat(parent, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
}

/// Names in the open folder `fd`, in byte order.
[[nodiscard]] std::vector<std::string> namesIn(int fd, const std::string& shown) {
    // "." anew: a duplicate would share the reading position with every other reader of `fd`.
    UniqueFd own = openFolder(fd, ".");
    if (!own) throw mediumError(errno, "cannot open the folder " + shown);
    const auto close = [](DIR* directory) { ::closedir(directory); };
    const std::unique_ptr<DIR, decltype(close)> directory(::fdopendir(own.get()), close);
    if (!directory) throw mediumError(errno, "cannot read the folder " + shown);
    static_cast<void>(own.release());
    std::vector<std::string> names;
    for (;;) {
        errno = 0;
        const dirent* entry = ::readdir(directory.get());
        if (entry == nullptr) {
            if (errno != 0) throw mediumError(errno, "cannot read the folder " + shown);
            break;
        }
        const std::string_view name = entry->d_name;
        if (name != "." && name != "..") names.emplace_back(name);
    }
    std::ranges::sort(names);
    return names;
}

/// Why an outsider may have written what `status` describes; empty if only the server's own user can.
[[nodiscard]] std::string trustFault(const struct stat& status) {
    if (status.st_uid != ::geteuid()) {
        return "belongs to uid " + std::to_string(status.st_uid) + ", not to uid " + std::to_string(::geteuid());
    }
    if ((status.st_mode & S_IWOTH) != 0) return "can be written by every user";
    return {};
}

[[nodiscard]] std::string_view kindOf(mode_t mode) noexcept {
    switch (mode & S_IFMT) {
        case S_IFREG:
            return "a file";
        case S_IFDIR:
            return "a folder";
        case S_IFLNK:
            return "a symbolic link";
        case S_IFIFO:
            return "a FIFO";
        case S_IFSOCK:
            return "a socket";
        case S_IFCHR:
        case S_IFBLK:
            return "a device";
        default:
            return "of an unknown kind";
    }
}

[[nodiscard]] std::optional<RecordId> recordIdOf(const std::string& name) {
    try {
        return RecordId::parse(name);
    } catch (const Error&) {
        return std::nullopt;
    }
}

/// The names of folders that are no records yet, or no longer. They begin with '.', which no RecordId does.
constexpr std::string_view asideSuffix = "aside";    // of a put: what is new before the commit, what is old after it
constexpr std::string_view erasedSuffix = "erased";  // of an erase

[[nodiscard]] std::string hiddenName(const std::string& id, std::string_view suffix) {
    return "." + id + "." + Uuid::random().short8() + "." + std::string(suffix);
}

struct HiddenName {
    std::string id;
    std::string suffix;
};

/// Takes apart what hiddenName() made; nothing for every other name.
[[nodiscard]] std::optional<HiddenName> parseHidden(const std::string& name) {
    const std::vector<std::string> parts = split(name, '.');
    if (parts.size() != 4 || !parts[0].empty() || !recordIdOf(parts[1])) return std::nullopt;
    if (parts[2].size() != 8 || parts[2].find_first_not_of("0123456789abcdef") != std::string::npos)
        return std::nullopt;
    if (parts[3] != asideSuffix && parts[3] != erasedSuffix) return std::nullopt;
    return HiddenName{parts[1], parts[3]};
}

/// The name, in a record's folder, of a document that is being replaced: what is new before the commit, what is old
/// after it. No document has such a name.
[[nodiscard]] std::string documentAside(const std::string& name) {
    return "." + name + "." + Uuid::random().short8() + "." + std::string(asideSuffix);
}

/// Whether documentAside() made the name.
[[nodiscard]] bool isDocumentAside(const std::string& name) {
    constexpr std::size_t digits = 8;
    const std::string end = "." + std::string(asideSuffix);
    if (!name.starts_with('.') || !name.ends_with(end) || name.size() < 1 + 1 + 1 + digits + end.size()) return false;
    const std::string rest = name.substr(1, name.size() - 1 - end.size());
    const std::string mark = rest.substr(rest.size() - digits);
    return mark.find_first_not_of("0123456789abcdef") == std::string::npos && rest[rest.size() - digits - 1] == '.' &&
           isDocumentName(rest.substr(0, rest.size() - digits - 1));
}

/// The one document that differs; nothing if more do, or if one comes or goes.
[[nodiscard]] std::optional<std::string> onlyChange(const Record& before, const Record& after) {
    std::optional<std::string> changed;
    if (before.documents.size() != after.documents.size()) return std::nullopt;
    for (const auto& [name, content] : after.documents) {
        const auto old = before.documents.find(name);
        if (old == before.documents.end()) return std::nullopt;
        if (old->second == content) continue;
        if (changed) return std::nullopt;
        changed = name;
    }
    return changed;
}

/// FNV-1a, 64 bits (draft-eastlake-fnv). Each piece is preceded by its length, so that bytes cannot move from one piece
/// to the next unnoticed.
[[nodiscard]] Revision digest(const Record& record) noexcept {
    std::uint64_t hash = 0xcbf29ce484222325U;
    const auto take = [&hash](unsigned char byte) { hash = (hash ^ byte) * 0x00000100000001b3U; };
    const auto takeText = [&take](std::string_view text) {
        std::uint64_t size = text.size();
        for (int i = 0; i < 8; ++i, size >>= 8U) take(static_cast<unsigned char>(size & 0xffU));
        for (const char c : text) take(static_cast<unsigned char>(c));
    };
    for (const auto& [name, content] : record.documents) {
        takeText(name);
        takeText(content);
    }
    return {hash};
}

/// Writes a new document under a name that nobody knows yet, durable on return.
DurableTimes::Stamp writeDocument(int folder, const std::string& name, std::string_view content,
                                  const std::string& shown) {
    const UniqueFd file(::openat(folder, name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, fileMode));
    if (!file) throw mediumError(errno, "cannot make " + shown);
    if (::fchmod(file.get(), fileMode) != 0) throw mediumError(errno, "cannot set the mode of " + shown);
    writeAll(file.get(), content, "cannot write " + shown);
    MERGEN_FAILPOINT("storage.files.document_written");
    struct stat status {};
    if (::fstat(file.get(), &status) != 0) throw mediumError(errno, "cannot inspect " + shown);
    if (::fsync(file.get()) != 0) throw mediumError(errno, "cannot sync " + shown);
    return DurableTimes::stampOf(status);
}

/// Makes an unchanged document durable, unless `known` says that it is; nothing if it must be written anew.
[[nodiscard]] std::optional<DurableTimes::Stamp> syncDocument(int folder, const std::string& name,
                                                              const DurableTimes::Stamps& known) {
    const UniqueFd file(::openat(folder, name.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
    struct stat status {};
    if (!file || ::fstat(file.get(), &status) != 0) return std::nullopt;
    if ((status.st_mode & ALLPERMS) != fileMode || status.st_uid != ::geteuid()) return std::nullopt;
    const DurableTimes::Stamp stamp = DurableTimes::stampOf(status);
    // An edit by hand may still be in memory only.
    const auto synced = known.find(name);
    const bool clean = synced != known.end() && synced->second == stamp;
    if (!clean && ::fdatasync(file.get()) != 0) return std::nullopt;
    return stamp;
}

/// Gives the aside folder the old record's document as it is; false if it must be written after all.
[[nodiscard]] bool linkDocument(int oldFolder, int folder, const std::string& name) {
    return syncDocument(oldFolder, name, {}) && ::linkat(oldFolder, name.c_str(), folder, name.c_str(), 0) == 0;
}

/// Whether the record's folder is still the one that stands under its name.
[[nodiscard]] bool isNamed(int root, const std::string& id, int folder) {
    struct stat named {};
    struct stat held {};
    return ::fstatat(root, id.c_str(), &named, AT_SYMLINK_NOFOLLOW) == 0 && ::fstat(folder, &held) == 0 &&
           named.st_dev == held.st_dev && named.st_ino == held.st_ino;
}

}  // namespace

const mergen_key FilesStorage::keys[] = {
    {"document_limit", MERGEN_KEY_SIZE, "1MiB",
     "Greatest size of one document, 4KiB to 16MiB. A record with a larger one is corrupt."},
    {nullptr, MERGEN_KEY_STRING, nullptr, nullptr},
};

void FilesStorage::configure(Host& host) {
    const std::uint64_t limit = host.settings().bytes("document_limit");
    if (limit < (4U << 10U) || limit > (16U << 20U)) {
        throw Error(ErrorKind::InvalidArgument,
                    "document_limit is " + std::to_string(limit) + " bytes, but 4KiB to 16MiB are possible");
    }
    host_ = &host;
    root_ = host.paths().configRoot;
    documentLimit_ = limit;
}

void FilesStorage::start() {
    UniqueFd root(::open(root_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!root) throw mediumError(errno, "cannot open the records' folder " + root_.string());
    struct stat status {};
    if (::fstat(root.get(), &status) != 0) throw mediumError(errno, "cannot inspect " + root_.string());
    if (const std::string fault = trustFault(status); !fault.empty()) {
        throw Error(ErrorKind::FailedPrecondition, "the records' folder " + root_.string() + " " + fault);
    }
    if (::flock(root.get(), LOCK_EX | LOCK_NB) != 0) {
        if (errno != EWOULDBLOCK) throw mediumError(errno, "cannot lock the records' folder " + root_.string());
        throw Error(ErrorKind::FailedPrecondition,
                    "another process serves the records of " + root_.string() + "; stop it first");
    }
    rootFd_ = std::move(root);
    Rollback undo;
    undo.add([this] { rootFd_.reset(); });
    probeExchange();
    clearLeftovers();
    undo.commit();
}

void FilesStorage::stop() noexcept {
    rootFd_.reset();
}

Health FilesStorage::health() const {
    struct stat status {};
    if (::fstat(rootFd_.get(), &status) != 0 || status.st_nlink == 0) {
        return {.ok = false, .detail = "the records' folder " + root_.string() + " is gone"};
    }
    return {.ok = true, .detail = "records stand in " + root_.string()};
}

StorageTraits FilesStorage::traits() const noexcept {
    return {.durable = true, .documentLimit = documentLimit_};
}

Revision FilesStorage::put(const Record& record, std::optional<Revision> expected) {
    checkRecord(record, documentLimit_);
    const std::string& id = record.id.str();
    const IdLocks::Exclusive lock(locks_, id);

    const std::optional<Found> old = read(record.id);
    if (!expected && old) {
        throw Error(ErrorKind::AlreadyExists, "cannot store the record '" + id + "': the id is taken");
    }
    if (expected && !old) throw Error(ErrorKind::NotFound, "cannot replace the record '" + id + "': it is gone");
    if (old && !old->stored.corrupt.empty()) {
        throw Error(ErrorKind::Conflict,
                    "cannot replace the record '" + id + "': it is corrupt (" + old->stored.corrupt + ")");
    }
    if (old && old->stored.revision != *expected) {
        throw Error(ErrorKind::Conflict, "cannot replace the record '" + id + "': it was changed in between");
    }

    if (const auto changed = old ? onlyChange(old->stored.record, record) : std::nullopt;
        changed && replaceDocument(*old, *changed, record.documents.at(*changed))) {
        return digest(record);
    }

    const std::string aside = hiddenName(id, asideSuffix);
    const bool replace = old.has_value();
    Rollback undo;
    undo.add([&] { clearLeftover(aside); });
    DurableTimes::Stamps durable = build(aside, record, replace ? &*old : nullptr);
    swapIn(aside, record.id, replace);
    undo.add([&] { renameBack(id, aside, replace ? RENAME_EXCHANGE : RENAME_NOREPLACE); });
    MERGEN_FAILPOINT("storage.files.renamed");
    syncRoot();
    undo.commit();
    // From here on the put is done, whatever becomes of the old folder.
    durable_.note(id, std::move(durable));
    if (replace) clearLeftover(aside);
    return digest(record);
}

std::optional<StoredRecord> FilesStorage::find(const RecordId& id) const {
    const IdLocks::Shared lock(locks_, id.str());
    std::optional<Found> found = read(id);
    if (!found) return std::nullopt;
    return std::move(found->stored);
}

std::vector<StoredRecord> FilesStorage::list(const std::optional<RecordId>& after, std::size_t limit) const {
    if (limit < 1 || limit > 1000) {
        throw Error(ErrorKind::InvalidArgument,
                    "cannot list " + std::to_string(limit) + " records: 1 to 1000 are possible");
    }
    // A folder that is gone reads as empty, and "no records" would have the engine clear every VM away.
    if (const Health now = health(); !now.ok) throw Error(ErrorKind::Unavailable, now.detail);

    const std::vector<std::string> names = namesIn(rootFd_.get(), root_.string());
    auto name = after ? std::ranges::upper_bound(names, after->str()) : names.begin();
    std::vector<StoredRecord> page;
    for (; name != names.end() && page.size() < limit; ++name) {
        const std::optional<RecordId> id = recordIdOf(*name);
        if (!id) continue;
        if (std::optional<StoredRecord> stored = find(*id)) page.push_back(std::move(*stored));
    }
    return page;
}

bool FilesStorage::erase(const RecordId& id) {
    const IdLocks::Exclusive lock(locks_, id.str());
    const int root = rootFd_.get();
    const std::string& name = id.str();
    const std::string what = "cannot erase the record '" + name + "'";
    struct stat status {};
    if (::fstatat(root, name.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0) {
        const int cause = errno;
        if (cause == ENOENT && health().ok) return false;
        throw mediumError(cause, what);
    }
    if (!S_ISDIR(status.st_mode)) return false;  // no record, so not ours to remove

    // This rename is the erase. It takes no room that the record does not have, so that a full disk can be emptied.
    const std::string erased = hiddenName(name, erasedSuffix);
    if (::renameat2(root, name.c_str(), root, erased.c_str(), RENAME_NOREPLACE) != 0) throw mediumError(errno, what);
    Rollback undo;
    undo.add([&] { renameBack(erased, name, RENAME_NOREPLACE); });
    MERGEN_FAILPOINT("storage.files.erase_renamed");
    syncRoot();
    undo.commit();
    durable_.forget(name);
    clearLeftover(erased);
    return true;
}

std::optional<FilesStorage::Found> FilesStorage::read(const RecordId& id) const {
    Found found{{{id, {}}, {}, {}}, openFolder(rootFd_.get(), id.str()), {}};
    if (!found.folder) {
        const int cause = errno;
        if (cause == ENOTDIR || cause == ELOOP) return std::nullopt;  // a file or a link: no record
        if (cause == ENOENT && health().ok) return std::nullopt;
        if (cause == ENOENT || cause == EBADF || isShortage(cause)) {
            throw mediumError(cause, "cannot read the record '" + id.str() + "'");
        }
        found.stored.corrupt = Error::fromErrno(cause, "the folder cannot be opened").what();
        return found;
    }
    struct stat status {};
    if (::fstat(found.folder.get(), &status) != 0) throw mediumError(errno, "cannot inspect " + shown(id.str()));
    if (const std::string fault = trustFault(status); !fault.empty()) {
        found.stored.corrupt = "the folder " + fault;
        return found;
    }
    try {
        readDocuments(found);
    } catch (const Error& error) {
        if (isShortage(error.errnum())) throw;
        found.stored.corrupt = error.what();
    }
    if (found.stored.corrupt.empty()) found.stored.revision = digest(found.stored.record);
    return found;
}

void FilesStorage::readDocuments(Found& found) const {
    auto& [record, revision, corrupt] = found.stored;
    const int folder = found.folder.get();
    const auto fault = [&corrupt = corrupt](const std::string& why) {
        if (corrupt.empty()) corrupt = why;  // one sentence, about the first; the healthy documents are given too
    };
    for (const std::string& name : namesIn(folder, shown(record.id.str()))) {
        if (isDocumentAside(name)) found.leftovers.push_back(name);
        if (!isDocumentName(name)) continue;
        // Looked at before it is opened: the sentence is clearer, and opening a device may do something.
        struct stat status {};
        if (::fstatat(folder, name.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0) {
            fault(Error::fromErrno(errno, name + " cannot be inspected").what());
            continue;
        }
        if (!S_ISREG(status.st_mode)) {
            fault(name + " is " + std::string(kindOf(status.st_mode)) + ", not a file");
            continue;
        }
        if (const std::string distrust = trustFault(status); !distrust.empty()) {
            fault(name + " " + distrust);
            continue;
        }
        if (static_cast<std::uint64_t>(status.st_size) > documentLimit_) {
            fault(name + " is larger than " + std::to_string(documentLimit_) + " bytes");
            continue;
        }
        std::optional<std::string> content;
        try {
            content = readFileAt(folder, name, documentLimit_);
        } catch (const Error& error) {
            if (isShortage(error.errnum())) throw;
            fault(error.what());
            continue;
        }
        if (!content) continue;  // removed by hand in between
        if (const std::string bad = documentFault(name, *content, documentLimit_); !bad.empty()) {
            fault(bad);
            continue;
        }
        record.documents.emplace(name, std::move(*content));
    }
    if (!record.documents.contains("meta.json")) fault("meta.json is missing");
}

bool FilesStorage::replaceDocument(const Found& old, const std::string& name, std::string_view content) const {
    const int folder = old.folder.get();
    const std::string& id = old.stored.record.id.str();
    const std::string what = "cannot store the record '" + id + "'";
    const DurableTimes::Stamps known = durable_.find(id);
    DurableTimes::Stamps durable;  // of the others: the rename changes this one's time
    for (const auto& [other, same] : old.stored.record.documents) {
        if (other == name) continue;
        const auto stamp = syncDocument(folder, other, known);
        if (!stamp) return false;
        durable.emplace(other, *stamp);
    }
    for (const std::string& leftover : old.leftovers) static_cast<void>(::unlinkat(folder, leftover.c_str(), 0));

    const std::string aside = documentAside(name);
    Rollback undo;
    undo.add([&] { static_cast<void>(::unlinkat(folder, aside.c_str(), 0)); });
    static_cast<void>(writeDocument(folder, aside, content, shown(id) + "/" + aside));
    MERGEN_FAILPOINT("storage.files.replacement_synced");
    if (::renameat2(folder, aside.c_str(), folder, name.c_str(), RENAME_EXCHANGE) != 0) throw mediumError(errno, what);
    undo.add([&] {
        if (::renameat2(folder, aside.c_str(), folder, name.c_str(), RENAME_EXCHANGE) != 0) {
            const int cause = errno;
            host_->log().error("storage.files.undo.failed", {{"from", aside}, {"to", name}, {"errno", cause}});
            return;
        }
        static_cast<void>(::fsync(folder));  // as in renameBack()
    });
    MERGEN_FAILPOINT("storage.files.replacement_renamed");
    if (::fsync(folder) != 0) throw mediumError(errno, "cannot sync " + shown(id));
    if (!isNamed(rootFd_.get(), id, folder))
        throw Error(ErrorKind::NotFound, what + ": its folder was removed by hand");
    undo.commit();
    // From here on the put is done. What stays goes with the next one.
    durable_.note(id, std::move(durable));
    static_cast<void>(::unlinkat(folder, aside.c_str(), 0));
    return true;
}

DurableTimes::Stamps FilesStorage::build(const std::string& aside, const Record& record, const Found* old) const {
    if (::mkdirat(rootFd_.get(), aside.c_str(), folderMode) != 0) {
        throw mediumError(errno, "cannot make the folder " + shown(aside));
    }
    // By name, before it is opened: under a umask that takes the owner's bits away only root could open it.
    if (::fchmodat(rootFd_.get(), aside.c_str(), folderMode, 0) != 0) {
        throw mediumError(errno, "cannot set the mode of " + shown(aside));
    }
    const UniqueFd folder = openFolder(rootFd_.get(), aside);
    if (!folder) throw mediumError(errno, "cannot open the folder " + shown(aside));
    MERGEN_FAILPOINT("storage.files.aside_made");
    DurableTimes::Stamps durable;
    for (const auto& [name, content] : record.documents) {
        const bool same = old != nullptr && old->stored.record.documents.contains(name) &&
                          old->stored.record.documents.find(name)->second == content;
        if (same && linkDocument(old->folder.get(), folder.get(), name)) {
            MERGEN_FAILPOINT("storage.files.document_linked");
        } else {
            durable.emplace(name, writeDocument(folder.get(), name, content, shown(aside) + "/" + name));
            MERGEN_FAILPOINT("storage.files.document_synced");
        }
    }
    if (::fsync(folder.get()) != 0) throw mediumError(errno, "cannot sync " + shown(aside));
    MERGEN_FAILPOINT("storage.files.aside_synced");
    return durable;
}

void FilesStorage::swapIn(const std::string& aside, const RecordId& id, bool replace) const {
    const int root = rootFd_.get();
    const unsigned how = replace ? RENAME_EXCHANGE : RENAME_NOREPLACE;
    if (::renameat2(root, aside.c_str(), root, id.str().c_str(), how) == 0) return;
    const int cause = errno;
    const std::string what = "cannot store the record '" + id.str() + "'";
    if (!replace && cause == EEXIST) {
        throw Error(ErrorKind::AlreadyExists, what + ": " + shown(id.str()) + " is there and is no record's folder");
    }
    if (replace && cause == ENOENT && health().ok) {
        throw Error(ErrorKind::NotFound, what + ": its folder was removed by hand");
    }
    throw mediumError(cause, what);
}

void FilesStorage::renameBack(const std::string& from, const std::string& to, unsigned how) const noexcept {
    const int root = rootFd_.get();
    if (::renameat2(root, from.c_str(), root, to.c_str(), how) != 0) {
        const int cause = errno;
        host_->log().error("storage.files.undo.failed", {{"from", from}, {"to", to}, {"errno", cause}});
        return;
    }
    // The sync that failed may have made the new name durable; if this one fails too, power loss leaves either record.
    static_cast<void>(::fsync(root));
}

void FilesStorage::syncRoot() const {
    if (::fsync(rootFd_.get()) != 0) throw mediumError(errno, "cannot sync the records' folder " + root_.string());
}

void FilesStorage::probeExchange() const {
    const int root = rootFd_.get();
    const std::string one = hiddenName("probe", asideSuffix);
    const std::string two = hiddenName("probe", asideSuffix);
    Rollback undo;
    for (const std::string& name : {one, two}) {
        if (::mkdirat(root, name.c_str(), folderMode) != 0) {
            const int cause = errno;
            // A full disk must not keep the server from starting: what fills it may be what it is asked to delete.
            if (cause == ENOSPC || cause == EDQUOT) {
                host_->log().warning("storage.files.probe.skipped", {{"folder", root_.string()}, {"errno", cause}});
                return;
            }
            throw mediumError(cause, "cannot write to the records' folder " + root_.string());
        }
        undo.add([root, name] { ::unlinkat(root, name.c_str(), AT_REMOVEDIR); });
    }
    MERGEN_FAILPOINT("storage.files.probing");
    if (::renameat2(root, one.c_str(), root, two.c_str(), RENAME_EXCHANGE) != 0) {
        throw Error(ErrorKind::NotSupported,
                    Error::fromErrno(errno, "the file system of " + root_.string() +
                                                " cannot exchange two folders (renameat2 with RENAME_EXCHANGE), which "
                                                "ext4, xfs, btrfs and tmpfs can")
                        .what());
    }
}

void FilesStorage::clearLeftovers() const {
    for (const std::string& name : namesIn(rootFd_.get(), root_.string())) {
        if (parseHidden(name)) {
            if (clearLeftover(name)) host_->log().info("storage.files.leftover.cleared", {{"name", name}});
            continue;
        }
        struct stat status {};
        if (name.front() == '.' || ::fstatat(rootFd_.get(), name.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0) continue;
        if (!recordIdOf(name)) {
            host_->log().warning("storage.files.ignored", {{"name", printable(name)}, {"cause", "its name is no id"}});
        } else if (!S_ISDIR(status.st_mode)) {
            const std::string cause = "it is " + std::string(kindOf(status.st_mode));
            host_->log().warning("storage.files.ignored", {{"name", name}, {"cause", cause}});
        }
    }
}

bool FilesStorage::clearLeftover(const std::string& name) const noexcept {
    try {
        MERGEN_FAILPOINT("storage.files.clearing");
        const std::optional<HiddenName> hidden = parseHidden(name);
        if (hidden && hidden->suffix == asideSuffix) {
            takeApart(name, hidden->id);
        } else {
            removeTree(root_ / name);
        }
        return true;
    } catch (const std::exception& error) {
        host_->log().warning("storage.files.leftover.kept",
                             {{"name", name}, {"cause", error.what()}, {"until", "the next start"}});
        return false;
    }
}

void FilesStorage::takeApart(const std::string& aside, const std::string& id) const {
    const int root = rootFd_.get();
    const UniqueFd folder = openFolder(root, aside);
    if (!folder) {
        if (errno == ENOENT) return;
        throw mediumError(errno, "cannot open the folder " + shown(aside));
    }
    std::vector<std::string> names = namesIn(folder.get(), shown(aside));
    const auto documents = std::ranges::stable_partition(
        names, [](const std::string& name) { return !isDocumentName(name) && !isDocumentAside(name); });

    const std::ranges::subrange foreign(names.begin(), documents.begin());
    if (!foreign.empty()) {
        const UniqueFd record = openFolder(root, id);
        if (!record) throw mediumError(errno, "cannot open the folder " + shown(id));
        for (const std::string& name : foreign) {
            if (::renameat2(folder.get(), name.c_str(), record.get(), name.c_str(), RENAME_NOREPLACE) != 0) {
                throw mediumError(errno, "cannot carry " + shown(aside) + "/" + printable(name) + " over");
            }
        }
        if (::fsync(record.get()) != 0) throw mediumError(errno, "cannot sync " + shown(id));
        MERGEN_FAILPOINT("storage.files.carried_over");
    }
    for (const std::string& name : documents) {
        if (::unlinkat(folder.get(), name.c_str(), 0) != 0) {
            throw mediumError(errno, "cannot remove " + shown(aside) + "/" + name);
        }
        MERGEN_FAILPOINT("storage.files.document_removed");
    }
    if (::unlinkat(root, aside.c_str(), AT_REMOVEDIR) != 0) throw mediumError(errno, "cannot remove " + shown(aside));
}

}  // namespace mergen::storage
