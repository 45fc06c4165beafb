#include "enforcer.hpp"

#include <algorithm>
#include <utility>

namespace mergen::engine {

namespace {

/// So many VMs are acted on at most. Each is about to start or to end a VMM, which is work for the whole host.
constexpr unsigned threadCount = 4;

}  // namespace

Enforcer::Enforcer(Action action) : action_(std::move(action)) {
    for (unsigned i = 0; i < threadCount; ++i)
        threads_.emplace_back([this](const std::stop_token& stop) { work(stop); });
}

Enforcer::~Enforcer() {
    for (std::jthread& thread : threads_) thread.request_stop();  // all of them before any is waited for
}

void Enforcer::add(const std::shared_ptr<Vm>& vm) {
    const std::lock_guard lock(mutex_);
    if (std::ranges::find(waiting_, vm) != waiting_.end()) return;
    waiting_.push_back(vm);
    added_.notify_one();
}

void Enforcer::work(const std::stop_token& stop) {
    for (;;) {
        std::shared_ptr<Vm> vm;
        {
            std::unique_lock lock(mutex_);
            if (!added_.wait(lock, stop, [&] { return !waiting_.empty(); }) || stop.stop_requested()) return;
            vm = std::move(waiting_.front());
            waiting_.pop_front();
        }
        action_(vm);
    }
}

}  // namespace mergen::engine
