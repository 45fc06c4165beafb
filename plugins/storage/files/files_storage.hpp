#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <mergen/base/fd.hpp>
#include <mergen/sdk/storage.hpp>

#include "durable_times.hpp"
#include "id_locks.hpp"

namespace mergen::storage {

/// One folder per record below the host's configRoot, one file per document: `<configRoot>/<id>/meta.json`. Folders
/// have mode 0750, files 0640, whatever the umask.
///
/// A put makes the new folder whole aside, beside the records and hidden: `.<id>.<8 digits>.aside`. Files and folder
/// are synced, then one renameat2(2) commits: RENAME_NOREPLACE for a new record, RENAME_EXCHANGE for a replacement, so
/// that a crash at any instant leaves the whole old record or the whole new one. The sync of configRoot makes the
/// commit durable; only then the old folder is taken apart. A document whose content stays is linked, not written
/// again. Where one document changes and no other, as in nearly every put of a VM's life, the same is done with that
/// file within the record's folder (`.<document>.<8 digits>.aside`), which takes two syncs instead of five. Entries of
/// the old folder that cannot be documents (an editor's backup, a subfolder) are moved to the new one.
///
/// A revision is the 64-bit FNV-1a digest of names, lengths and contents, so an edit by hand is seen as Conflict. It
/// guards against changes that nobody intended to hide: that two of them collide is a matter of 2^-64, and who wants to
/// forge one can write the folder anyway, so a cryptographic digest would add nothing.
///
/// Not promised: an edit by hand in the milliseconds of a put may be lost, and somebody who reads by path while a put
/// commits may see one document of the old and the next of the new record.
///
/// One process at a time: start() takes flock(2) on configRoot and throws FailedPrecondition if another one has it.
class FilesStorage final : public StorageBackend {
public:
    /// The manifest's table.
    static const mergen_key keys[];

    void configure(Host& host) override;
    /// Throws NotSupported if the file system of configRoot cannot exchange two folders, FailedPrecondition if another
    /// process serves it or others can write it. Takes apart what an interrupted put or erase left.
    void start() override;
    void stop() noexcept override;
    [[nodiscard]] Health health() const override;

    [[nodiscard]] StorageTraits traits() const noexcept override;
    Revision put(const Record& record, std::optional<Revision> expected) override;
    [[nodiscard]] std::optional<StoredRecord> find(const RecordId& id) const override;
    /// Costs one read of configRoot's names, and of the files of the page alone.
    [[nodiscard]] std::vector<StoredRecord> list(const std::optional<RecordId>& after,
                                                 std::size_t limit) const override;
    bool erase(const RecordId& id) override;

private:
    /// A record's folder, held open so that it stays the same one.
    struct Found {
        StoredRecord stored;
        UniqueFd folder;
        std::vector<std::string> leftovers;  ///< what replacements of single documents left when they were interrupted
    };

    [[nodiscard]] std::optional<Found> read(const RecordId& id) const;
    void readDocuments(Found& found) const;

    /// The put of a record of which `name` alone changes; false if it cannot be done so, and nothing has happened.
    bool replaceDocument(const Found& old, const std::string& name, std::string_view content) const;
    /// Makes `aside` the folder of `record`, durable but for its own name. Gives what was written of it.
    DurableTimes::Stamps build(const std::string& aside, const Record& record, const Found* old) const;
    /// Gives the folder `aside` the record's name; with `replace` the old folder is then `aside`.
    void swapIn(const std::string& aside, const RecordId& id, bool replace) const;
    /// Undoes a rename whose sync failed.
    void renameBack(const std::string& from, const std::string& to, unsigned how) const noexcept;
    void syncRoot() const;

    void probeExchange() const;
    void clearLeftovers() const;
    /// Removes a folder that is no record (any more); what cannot be removed stays for the next start(), with a
    /// warning.
    bool clearLeftover(const std::string& name) const noexcept;
    /// Removes the documents of `aside` and then itself; what else is in it goes to the record `id`.
    void takeApart(const std::string& aside, const std::string& id) const;
    /// The path of a name below the records' folder, for error texts.
    [[nodiscard]] std::string shown(const std::string& name) const { return (root_ / name).string(); }

    Host* host_ = nullptr;           // set by configure(), constant from then on
    std::filesystem::path root_;     // likewise
    std::size_t documentLimit_ = 0;  // likewise
    UniqueFd rootFd_;                // changed by start() and stop() only; bears the flock

    mutable IdLocks locks_;
    mutable DurableTimes durable_;  // has its own lock
};

}  // namespace mergen::storage
