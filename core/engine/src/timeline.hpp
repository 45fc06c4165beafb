#pragma once

#include <atomic>
#include <cstddef>
#include <deque>
#include <mutex>
#include <string>
#include <vector>

#include <mergen/engine/vm.hpp>

namespace mergen::engine {

/// The newest events of one VM. Threads: any.
class Timeline {
public:
    explicit Timeline(std::size_t limit) : limit_(limit) {}

    /// Gives `event` its sequence number, its time and who asked (AskedBy of this thread), and keeps it.
    Event append(Event event);
    [[nodiscard]] std::vector<Event> events() const;

private:
    static std::atomic<std::uint64_t> nextSequence;
    const std::size_t limit_;
    mutable std::mutex mutex_;
    std::deque<Event> events_;  // guarded by mutex_
};

}  // namespace mergen::engine
