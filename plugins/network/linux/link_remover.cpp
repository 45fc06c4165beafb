#include "link_remover.hpp"

#include <chrono>
#include <system_error>
#include <utility>

#include <mergen/sdk/error.hpp>

namespace mergen::network {

namespace {

/// So many threads wait for the kernel at most; who removes one more waits with the oldest of them.
constexpr std::size_t most = 64;

bool isOver(const std::future<void>& removal) {
    return removal.wait_for(std::chrono::seconds(0)) == std::future_status::ready;
}

}  // namespace

void LinkRemover::remove(Rtnetlink& host, const Link& link) {
    const auto order = [index = link.index] { static_cast<void>(Rtnetlink().removeLink(index)); };
    std::future<void> removal;
    try {
        removal = std::async(std::launch::async, order);
    } catch (const std::system_error&) {  // no thread is to be had
        order();
        return;
    }
    // To look for a link takes the lock that the kernel holds while it removes one, so this turns few times.
    constexpr std::chrono::microseconds pause{200};
    while (removal.wait_for(pause) != std::future_status::ready) {
        const auto seen = host.findLink(link.name);
        if (seen && seen->index == link.index) continue;
        keep(std::move(removal));
        return;
    }
    removal.get();
}

void LinkRemover::keep(std::future<void> removal) {
    std::future<void> oldest;  // waited for at its end, without the lock
    const std::lock_guard lock(mutex_);
    std::erase_if(going_, isOver);
    if (going_.size() >= most) {
        oldest = std::move(going_.front());
        going_.erase(going_.begin());
    }
    going_.push_back(std::move(removal));
}

void LinkRemover::finish() noexcept {
    const std::lock_guard lock(mutex_);
    going_.clear();  // a future of std::async waits for its thread
}

}  // namespace mergen::network
