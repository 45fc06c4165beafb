#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <shared_mutex>
#include <vector>

#include <mergen/sdk/storage.hpp>

namespace mergen::storage {

/// Records in the memory of the server, gone at stop(): for trials, for tests, and as the example to read before
/// writing a backend. It keeps every promise of `StorageBackend` but durability.
class MemoryStorage : public StorageBackend {
public:
    /// The manifest's table.
    static const mergen_key keys[];

    void configure(Host& host) override;
    void start() override;
    void stop() noexcept override;

    [[nodiscard]] StorageTraits traits() const noexcept override;
    Revision put(const Record& record, std::optional<Revision> expected) override;
    [[nodiscard]] std::optional<StoredRecord> find(const RecordId& id) const override;
    [[nodiscard]] std::vector<StoredRecord> list(const std::optional<RecordId>& after,
                                                 std::size_t limit) const override;
    bool erase(const RecordId& id) override;

private:
    std::size_t documentLimit_ = 0;  // set by configure(), constant from then on
    std::size_t recordLimit_ = 0;    // likewise

    mutable std::shared_mutex mutex_;
    std::map<RecordId, StoredRecord> records_;  // guarded by mutex_
    std::uint64_t lastRevision_ = 0;            // guarded by mutex_; of all records together, so that none comes twice
};

}  // namespace mergen::storage
