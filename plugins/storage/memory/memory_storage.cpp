#include "memory_storage.hpp"

#include <mutex>
#include <string>

#include <mergen/base/record.hpp>

namespace mergen::storage {

const mergen_key MemoryStorage::keys[] = {
    {"document_limit", MERGEN_KEY_SIZE, "1MiB", "Greatest size of one document, 4KiB to 16MiB."},
    {"record_limit", MERGEN_KEY_INTEGER, "10000", "Greatest number of records, 1 to 1000000; more are refused."},
    {nullptr, MERGEN_KEY_STRING, nullptr, nullptr},
};

void MemoryStorage::configure(Host& host) {
    const std::uint64_t documentLimit = host.settings().bytes("document_limit");
    if (documentLimit < (4U << 10U) || documentLimit > (16U << 20U)) {
        throw Error(ErrorKind::InvalidArgument,
                    "document_limit is " + std::to_string(documentLimit) + " bytes, but 4KiB to 16MiB are possible");
    }
    const std::int64_t recordLimit = host.settings().integer("record_limit");
    if (recordLimit < 1 || recordLimit > 1'000'000) {
        throw Error(ErrorKind::InvalidArgument,
                    "record_limit is " + std::to_string(recordLimit) + ", but 1 to 1000000 are possible");
    }
    documentLimit_ = documentLimit;
    recordLimit_ = static_cast<std::size_t>(recordLimit);
}

void MemoryStorage::start() {}

void MemoryStorage::stop() noexcept {
    const std::unique_lock lock(mutex_);
    records_.clear();
}

StorageTraits MemoryStorage::traits() const noexcept {
    return {.durable = false, .documentLimit = documentLimit_};
}

Revision MemoryStorage::put(const Record& record, std::optional<Revision> expected) {
    checkRecord(record, documentLimit_);
    StoredRecord copy{record, {}, {}};  // before the lock and before any change: copying may fail

    const std::unique_lock lock(mutex_);
    const auto found = records_.find(record.id);
    if (!expected) {
        if (found != records_.end()) {
            throw Error(ErrorKind::AlreadyExists, "cannot store the record '" + record.id.str() + "': the id is taken");
        }
        if (records_.size() >= recordLimit_) {
            throw Error(ErrorKind::ResourceExhausted, "cannot store the record '" + record.id.str() + "': there are " +
                                                          std::to_string(recordLimit_) + " records already");
        }
    } else if (found == records_.end()) {
        throw Error(ErrorKind::NotFound, "cannot replace the record '" + record.id.str() + "': it is gone");
    } else if (found->second.revision != *expected) {
        throw Error(ErrorKind::Conflict,
                    "cannot replace the record '" + record.id.str() + "': it was changed in between");
    }
    const Revision revision{lastRevision_ + 1};
    copy.revision = revision;
    if (found == records_.end()) {
        records_.emplace(record.id, std::move(copy));
    } else {
        found->second = std::move(copy);
    }
    lastRevision_ = revision.value;
    return revision;
}

std::optional<StoredRecord> MemoryStorage::find(const RecordId& id) const {
    const std::shared_lock lock(mutex_);
    const auto found = records_.find(id);
    if (found == records_.end()) return std::nullopt;
    return found->second;
}

std::vector<StoredRecord> MemoryStorage::list(const std::optional<RecordId>& after, std::size_t limit) const {
    if (limit < 1 || limit > 1000) {
        throw Error(ErrorKind::InvalidArgument,
                    "cannot list " + std::to_string(limit) + " records: 1 to 1000 are possible");
    }
    const std::shared_lock lock(mutex_);
    std::vector<StoredRecord> page;
    auto next = after ? records_.upper_bound(*after) : records_.begin();
    for (; next != records_.end() && page.size() < limit; ++next) page.push_back(next->second);
    return page;
}

bool MemoryStorage::erase(const RecordId& id) {
    const std::unique_lock lock(mutex_);
    return records_.erase(id) == 1;
}

}  // namespace mergen::storage
