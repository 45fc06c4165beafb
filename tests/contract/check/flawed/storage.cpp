// A storage that takes every replacement, whatever revision the writer has seen: updates are lost.
#include "memory_storage.hpp"

namespace {

class LastWriterWins final : public mergen::storage::MemoryStorage {
public:
    mergen::Revision put(const mergen::Record& record, std::optional<mergen::Revision> expected) override {
        const auto stored = find(record.id);
        if (expected && stored) expected = stored->revision;
        return MemoryStorage::put(record, expected);
    }
};

}  // namespace

MERGEN_PLUGIN(mergen::StorageBackend, LastWriterWins, "storage", "flawed", "1.0.0", LastWriterWins::keys)
