#include "trial_storage.hpp"

#include <exception>
#include <stdexcept>
#include <string_view>

namespace mergen::trial {

namespace {

/// An exception whose type and text end with this library.
class OwnException final : public std::exception {
public:
    [[nodiscard]] const char* what() const noexcept override { return "the text of a type of my own"; }
};

}  // namespace

void TrialStorage::misbehave(const std::string& step) const {
    if (!fault_.starts_with(step + ".")) return;
    const std::string_view what = std::string_view(fault_).substr(step.size() + 1);
    if (what == "error") throw Error(ErrorKind::Unavailable, "the trial medium is away");
    if (what == "not_supported") throw Error(ErrorKind::NotSupported, "this host has no trial device");
    if (what == "std") throw std::out_of_range("beyond the end");
    if (what == "own") throw OwnException();
    if (what == "int") throw 42;
}

void TrialStorage::configure(Host& host) {
    fault_ = host.settings().text("fault");
    log_ = &host.log();
    misbehave("configure");
}

void TrialStorage::start() {
    misbehave("start");
    log_->info("trial.started");
}

void TrialStorage::stop() noexcept {
    log_->info("trial.stopped");
}

Revision TrialStorage::put(const Record& record, std::optional<Revision> expected) {
    const std::lock_guard lock(mutex_);
    const auto found = records_.find(record.id.str());
    if (found != records_.end() && !expected) {
        throw Error(ErrorKind::AlreadyExists, "there is a record '" + record.id.str() + "'");
    }
    const Revision revision{found == records_.end() ? 1 : found->second.revision.value + 1};
    records_.insert_or_assign(record.id.str(), StoredRecord{record, revision, {}});
    return revision;
}

std::optional<StoredRecord> TrialStorage::find(const RecordId& id) const {
    const std::lock_guard lock(mutex_);
    const auto found = records_.find(id.str());
    if (found == records_.end()) return std::nullopt;
    return found->second;
}

std::vector<StoredRecord> TrialStorage::list(const std::optional<RecordId>& after, std::size_t limit) const {
    const std::lock_guard lock(mutex_);
    std::vector<StoredRecord> page;
    auto at = after ? records_.upper_bound(after->str()) : records_.begin();
    for (; at != records_.end() && page.size() < limit; ++at) page.push_back(at->second);
    return page;
}

bool TrialStorage::erase(const RecordId& id) {
    const std::lock_guard lock(mutex_);
    return records_.erase(id.str()) != 0;
}

}  // namespace mergen::trial
