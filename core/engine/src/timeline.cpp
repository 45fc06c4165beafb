#include "timeline.hpp"

#include <mergen/engine/asked_by.hpp>

namespace mergen::engine {

std::atomic<std::uint64_t> Timeline::nextSequence{1};

Event Timeline::append(Event event) {
    const std::lock_guard lock(mutex_);
    event.sequence = nextSequence.fetch_add(1, std::memory_order_relaxed);
    event.at = std::chrono::system_clock::now();
    event.by = AskedBy::current();
    events_.push_back(event);
    if (events_.size() > limit_) events_.pop_front();
    return event;
}

std::vector<Event> Timeline::events() const {
    const std::lock_guard lock(mutex_);
    return {events_.begin(), events_.end()};
}

}  // namespace mergen::engine
