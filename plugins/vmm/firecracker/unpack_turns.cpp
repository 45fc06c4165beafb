#include "unpack_turns.hpp"

#include <utility>

namespace mergen::vmm {

template <typename Ready>
void UnpackTurns::await(std::unique_lock<std::mutex>& lock, const Ready& ready) {
    ++waiting_;
    changed_.wait(lock, ready);
    --waiting_;
}

UnpackTurns::OfKernel::OfKernel(UnpackTurns& turns, std::string digest) : turns_(turns), digest_(std::move(digest)) {
    std::unique_lock lock(turns_.mutex_);
    turns_.await(lock, [&] { return !turns_.kernels_.contains(digest_); });
    turns_.kernels_.insert(digest_);
}

UnpackTurns::OfKernel::~OfKernel() {
    {
        const std::lock_guard lock(turns_.mutex_);
        turns_.kernels_.erase(digest_);
    }
    turns_.changed_.notify_all();
}

UnpackTurns::Place::Place(UnpackTurns& turns) : turns_(turns) {
    std::unique_lock lock(turns_.mutex_);
    turns_.await(lock, [&] { return turns_.free_ != 0; });
    --turns_.free_;
}

UnpackTurns::Place::~Place() {
    {
        const std::lock_guard lock(turns_.mutex_);
        ++turns_.free_;
    }
    turns_.changed_.notify_all();
}

std::size_t UnpackTurns::waiting() const {
    const std::lock_guard lock(mutex_);
    return waiting_;
}

}  // namespace mergen::vmm
