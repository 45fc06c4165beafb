#include "unpack_turns.hpp"

#include <utility>

namespace mergen::vmm {

UnpackTurns::OfKernel::OfKernel(UnpackTurns& turns, std::string digest) : turns_(turns), digest_(std::move(digest)) {
    std::unique_lock lock(turns_.mutex_);
    const auto [first, isFirst] = turns_.firsts_.emplace(digest_, turns_.next_);
    isFirst_ = isFirst;
    if (isFirst_) {
        ++turns_.next_;
        return;
    }
    ++turns_.waitingForKernel_;
    turns_.changed_.wait(lock, [&, awaited = first->second] {
        const auto now = turns_.firsts_.find(digest_);
        return now == turns_.firsts_.end() || now->second != awaited;
    });
    --turns_.waitingForKernel_;
}

UnpackTurns::OfKernel::~OfKernel() {
    if (!isFirst_) return;
    {
        const std::lock_guard lock(turns_.mutex_);
        turns_.firsts_.erase(digest_);
    }
    turns_.changed_.notify_all();
}

UnpackTurns::Place::Place(UnpackTurns& turns) : turns_(turns) {
    std::unique_lock lock(turns_.mutex_);
    ++turns_.waitingForPlace_;
    turns_.changed_.wait(lock, [&] { return turns_.free_ != 0; });
    --turns_.waitingForPlace_;
    --turns_.free_;
}

UnpackTurns::Place::~Place() {
    {
        const std::lock_guard lock(turns_.mutex_);
        ++turns_.free_;
    }
    turns_.changed_.notify_all();
}

std::size_t UnpackTurns::waitingForKernel() const {
    const std::lock_guard lock(mutex_);
    return waitingForKernel_;
}

std::size_t UnpackTurns::waitingForPlace() const {
    const std::lock_guard lock(mutex_);
    return waitingForPlace_;
}

}  // namespace mergen::vmm
