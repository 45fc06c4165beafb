#pragma once

#include <condition_variable>
#include <cstddef>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

namespace mergen::network {

/// Does in one go what many ask for at once, where one go costs the same for one and for many: while one is under way,
/// who asks waits for the next, which is for all who came meanwhile. No thread of its own: one of those who wait does
/// the work for all. Threads: any.
template <typename Order>
class Batcher {
public:
    using Work = std::function<void(const std::vector<Order>&)>;

    /// `work` is called by one thread at a time, under no lock.
    explicit Batcher(Work work) : work_(std::move(work)) {}

    /// Returns when the order is done. Throws what the work for it threw; if that was for several, each is tried alone,
    /// so that one's trouble is not the others'.
    void ask(Order order) {
        std::unique_lock lock(mutex_);
        if (!next_) next_ = std::make_shared<Batch>();
        const std::shared_ptr<Batch> mine = next_;
        const std::size_t place = mine->orders.size();
        mine->errors.resize(place + 1);  // before the order: the work itself must not fail for want of memory
        mine->orders.push_back(std::move(order));
        changed_.wait(lock, [&] { return mine->done || !working_; });
        if (!mine->done) {
            next_.reset();
            working_ = true;
            lock.unlock();
            workOff(*mine);
            lock.lock();
            mine->done = true;
            working_ = false;
            changed_.notify_all();
        }
        if (mine->errors[place]) std::rethrow_exception(mine->errors[place]);
    }

private:
    struct Batch {
        std::vector<Order> orders;
        bool done = false;
        std::vector<std::exception_ptr> errors;  ///< one per order at least
    };

    void workOff(Batch& batch) const noexcept {
        const std::exception_ptr together = attempt([&]() -> const std::vector<Order>& { return batch.orders; });
        if (!together) return;
        for (std::size_t i = 0; i < batch.orders.size(); ++i) {
            const auto alone = [&] { return std::vector<Order>(1, batch.orders[i]); };
            batch.errors[i] = batch.orders.size() == 1 ? together : attempt(alone);
        }
    }
    /// What the work for `orders()` throws, or the making of them.
    template <typename Orders>
    [[nodiscard]] std::exception_ptr attempt(const Orders& orders) const noexcept {
        try {
            work_(orders());
        } catch (...) {
            return std::current_exception();
        }
        return nullptr;
    }

    const Work work_;
    std::mutex mutex_;
    std::condition_variable changed_;
    // Guarded by mutex_; the orders of a batch that is worked off are its worker's.
    std::shared_ptr<Batch> next_;
    bool working_ = false;
};

}  // namespace mergen::network
