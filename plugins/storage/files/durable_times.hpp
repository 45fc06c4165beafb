#pragma once

#include <ctime>
#include <map>
#include <mutex>
#include <string>

namespace mergen::storage {

/// Up to which change of its files (st_ctim, inode(7)) a record's documents are known to be on the disk: what was not
/// changed since this process synced it need not be synced again, and a sync of a clean file still is a flush of the
/// disk's cache, which costs as much as the one that is needed.
///
/// Threads: any.
class DurableTimes {
public:
    void note(const std::string& id, const timespec& newest) {
        const std::lock_guard lock(mutex_);
        times_.insert_or_assign(id, newest);
    }
    void forget(const std::string& id) {
        const std::lock_guard lock(mutex_);
        times_.erase(id);
    }
    /// Whether a file of that record with this time of change needs no sync.
    [[nodiscard]] bool covers(const std::string& id, const timespec& changed) const {
        const std::lock_guard lock(mutex_);
        const auto known = times_.find(id);
        return known != times_.end() && !isLater(changed, known->second);
    }
    [[nodiscard]] static bool isLater(const timespec& one, const timespec& other) noexcept {
        return one.tv_sec != other.tv_sec ? one.tv_sec > other.tv_sec : one.tv_nsec > other.tv_nsec;
    }

private:
    mutable std::mutex mutex_;
    std::map<std::string, timespec> times_;  // guarded by mutex_
};

}  // namespace mergen::storage
