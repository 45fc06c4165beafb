#pragma once

#include <ctime>
#include <map>
#include <mutex>
#include <string>
#include <sys/stat.h>
#include <utility>

namespace mergen::storage {

/// Which files of which documents this process has synced, as they were then: what was not changed since need not be
/// synced again. A sync of a clean file still is a flush of the disk's cache, which costs as much as the one that is
/// needed.
///
/// Threads: any.
class DurableTimes {
public:
    /// Tells one state of a file from another: every change of it makes its time of change another one (st_ctim,
    /// inode(7)), save a second one within one tick of the file system's clock.
    struct Stamp {
        ino_t inode = 0;
        time_t seconds = 0;
        long nanoseconds = 0;
        bool operator==(const Stamp&) const = default;
    };
    using Stamps = std::map<std::string, Stamp>;  ///< by document

    /// `status`: from before the sync, so that a change during it is seen.
    [[nodiscard]] static Stamp stampOf(const struct stat& status) noexcept {
        return {status.st_ino, status.st_ctim.tv_sec, status.st_ctim.tv_nsec};
    }

    /// All that is known of the record from now on.
    void note(const std::string& id, Stamps stamps) {
        const std::lock_guard lock(mutex_);
        stamps_.insert_or_assign(id, std::move(stamps));
    }
    void forget(const std::string& id) {
        const std::lock_guard lock(mutex_);
        stamps_.erase(id);
    }
    /// What is known of the record; empty: nothing.
    [[nodiscard]] Stamps find(const std::string& id) const {
        const std::lock_guard lock(mutex_);
        const auto record = stamps_.find(id);
        return record == stamps_.end() ? Stamps{} : record->second;
    }

private:
    mutable std::mutex mutex_;
    std::map<std::string, Stamps> stamps_;  // guarded by mutex_
};

}  // namespace mergen::storage
