#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include <mergen/sdk/plugin.hpp>
#include <mergen/sdk/types.hpp>

namespace mergen {

/// Which state of a record a caller has seen. Opaque: compare, never compute. Two equal revisions of one id mean equal
/// documents.
struct Revision {
    std::uint64_t value = 0;
    auto operator<=>(const Revision&) const = default;
};

/// An id with named documents ("meta.json", "vm.json", "env"). A document's name is 1 to 64 of a-z, 0-9, '.', '-', '_',
/// beginning with a letter. Every record has a document "meta.json". Documents are UTF-8 text without NUL; one whose
/// name ends in ".json" is one JSON object (base/record.hpp has these rules as functions).
struct Record {
    RecordId id;
    std::map<std::string, std::string, std::less<>> documents;
};

/// A record as found.
struct StoredRecord {
    Record record;
    Revision revision;
    /// Why the record cannot be used, empty if it can. A corrupt record has its id and may lack documents.
    std::string corrupt;
};

/// What differs between storage backends; constant for an object's life.
struct StorageTraits {
    bool durable = false;           ///< records survive the process and power loss once put() returned
    std::size_t documentLimit = 0;  ///< greatest size of one document, in bytes
};

/// Keeps records across restarts of the server. The engine renders and reads the documents; a backend knows nothing of
/// VMs, so it outlives their fields.
///
/// Story: put(record, none) → ... → put(record, its revision) → ... → erase. After a crash, list() of a durable backend
/// gives every record whose put() returned; an interrupted one is either wholly there or wholly absent, and likewise a
/// replaced one is wholly old or wholly new.
/// Threads: every method may be called from any thread at once, save the lifecycle calls of Plugin.
/// Ownership: arguments are borrowed for the call; results belong to the caller.
/// Errors: any method may throw Error(Unavailable) or Error(ResourceExhausted) when the medium fails or is full.
class MERGEN_SDK_API StorageBackend : public Plugin {
public:
    ~StorageBackend() override;

    [[nodiscard]] virtual StorageTraits traits() const noexcept = 0;

    /// Writes the whole record and gives its new revision; if traits().durable, it then survives power loss.
    /// `expected`: none = the id must be new; else the revision that is being replaced.
    /// Throws AlreadyExists (the id is taken, also by a corrupt record), Conflict (the stored revision differs),
    /// NotFound (a revision was given and the id is gone) or InvalidArgument (a document's name, size or content, no
    /// "meta.json"); nothing is changed then. A corrupt record matches no revision: it can only be erased.
    virtual Revision put(const Record& record, std::optional<Revision> expected) = 0;

    /// The record, or nothing if the id is unknown: an unknown id is an answer, not an error.
    [[nodiscard]] virtual std::optional<StoredRecord> find(const RecordId& id) const = 0;

    /// Up to `limit` (1 to 1000, else InvalidArgument) records with ids greater than `after`, in ascending byte order
    /// of id. A record that cannot be read is in the list, marked corrupt with the reason, and hides no other.
    [[nodiscard]] virtual std::vector<StoredRecord> list(const std::optional<RecordId>& after,
                                                         std::size_t limit) const = 0;

    /// Removes the record, corrupt or not; false if it was not there, so that a repeated delete succeeds. Durable like
    /// put().
    virtual bool erase(const RecordId& id) = 0;
};

}  // namespace mergen
