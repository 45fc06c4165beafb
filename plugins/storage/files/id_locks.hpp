#pragma once

#include <cstddef>
#include <map>
#include <mutex>
#include <shared_mutex>
#include <string>

namespace mergen::storage {

/// One lock per id, many readers or one writer: it is made when somebody asks for it and gone when the last one leaves,
/// so that ids which outsiders name cost nothing afterwards.
///
///     const IdLocks::Exclusive lock(locks, "web");
///
/// Threads: any. A thread holds at most one lock of an IdLocks at a time. The IdLocks must outlive its guards.
class IdLocks {
    struct Entry {
        std::shared_mutex mutex;
        std::size_t users = 0;  // holders and waiters; guarded by IdLocks::mutex_
    };
    using Entries = std::map<std::string, Entry>;

    template <typename Lock>
    class Guard {
    public:
        Guard(IdLocks& locks, const std::string& id) : use_(locks, id), lock_(use_.entry->second.mutex) {}

    private:
        struct Use {
            Use(IdLocks& all, const std::string& id) : locks(all), entry(all.enter(id)) {}
            Use(const Use&) = delete;
            Use& operator=(const Use&) = delete;
            ~Use() { locks.leave(entry); }
            IdLocks& locks;
            Entries::iterator entry;
        };
        Use use_;
        Lock lock_;  // the last member: unlocked before the entry is left
    };

public:
    using Shared = Guard<std::shared_lock<std::shared_mutex>>;
    using Exclusive = Guard<std::unique_lock<std::shared_mutex>>;

private:
    Entries::iterator enter(const std::string& id) {
        const std::lock_guard lock(mutex_);
        const auto entry = entries_.try_emplace(id).first;
        ++entry->second.users;
        return entry;
    }
    void leave(Entries::iterator entry) {
        const std::lock_guard lock(mutex_);
        if (--entry->second.users == 0) entries_.erase(entry);
    }

    std::mutex mutex_;
    Entries entries_;  // guarded by mutex_; iterators stay valid while others come and go
};

}  // namespace mergen::storage
