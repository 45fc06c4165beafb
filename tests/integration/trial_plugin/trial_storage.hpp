#pragma once

#include <map>
#include <mutex>
#include <string>

#include <mergen/sdk/storage.hpp>

namespace mergen::trial {

/// Records in a map, which is all that the tests of loading need. Its setting `fault` makes it misbehave:
/// "<step>.<what>", where step is configure, start or destroy and what is error, std, own or int.
class TrialStorage : public StorageBackend {
public:
    void configure(Host& host) override;
    void start() override;
    void stop() noexcept override;
    [[nodiscard]] StorageTraits traits() const noexcept override { return {false, 1024}; }
    Revision put(const Record& record, std::optional<Revision> expected) override;
    [[nodiscard]] std::optional<StoredRecord> find(const RecordId& id) const override;
    [[nodiscard]] std::vector<StoredRecord> list(const std::optional<RecordId>& after,
                                                 std::size_t limit) const override;
    bool erase(const RecordId& id) override;

    /// Throws what the setting asks for, if it asks for it at `step`.
    void misbehave(const std::string& step) const;

private:
    mutable std::mutex mutex_;
    std::map<std::string, StoredRecord> records_;  // guarded by mutex_
    std::string fault_;
    Log* log_ = nullptr;
};

}  // namespace mergen::trial
