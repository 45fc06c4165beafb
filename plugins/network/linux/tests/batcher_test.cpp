#include "batcher.hpp"

#include <algorithm>
#include <chrono>
#include <future>
#include <latch>
#include <semaphore>
#include <stdexcept>

#include <gtest/gtest.h>

namespace mergen::network {
namespace {

using namespace std::chrono_literals;

/// A number that tells when it is queued: the batcher moves it there.
class Order {
public:
    explicit Order(int number) : number_(number) {}
    Order(const Order&) = default;
    Order(Order&& other) noexcept : number_(other.number_), queued_(true) {
        if (!other.queued_) queued.release();
    }
    [[nodiscard]] int number() const { return number_; }

    static inline std::counting_semaphore<> queued{0};  ///< released once for each

private:
    int number_;
    bool queued_ = false;
};

/// Calls ask() for orders 1 to `last` while the work for order 0 is held back; gives the futures, 0's first.
std::vector<std::future<void>> askMeanwhile(Batcher<Order>& batcher, std::latch& begun, std::latch& go, int last) {
    const auto ask = [&batcher](int number) { batcher.ask(Order(number)); };
    while (Order::queued.try_acquire()) continue;  // what earlier tests left
    std::vector<std::future<void>> asked;
    asked.push_back(std::async(std::launch::async, ask, 0));
    begun.wait();
    for (int order = 1; order <= last; ++order) asked.push_back(std::async(std::launch::async, ask, order));
    for (int order = 0; order <= last; ++order) EXPECT_TRUE(Order::queued.try_acquire_for(60s)) << order;
    go.count_down();
    return asked;
}

TEST(Batcher, WhatIsAskedForWhileItWorksIsDoneInOneGo) {
    std::latch begun{1}, go{1};
    std::vector<std::size_t> sizes;
    std::size_t sum = 0;
    Batcher<Order> batcher([&](const std::vector<Order>& orders) {
        if (sizes.empty()) {
            begun.count_down();
            go.wait();
        }
        sizes.push_back(orders.size());
        for (const Order& order : orders) sum += static_cast<std::size_t>(order.number());
    });
    for (std::future<void>& one : askMeanwhile(batcher, begun, go, 20)) one.get();
    EXPECT_EQ(sizes, (std::vector<std::size_t>{1, 20}));
    EXPECT_EQ(sum, 210U);
    batcher.ask(Order(5));
    EXPECT_EQ(sizes.size(), 3U) << "and goes on afterwards";
}

TEST(Batcher, AFailureIsToldToWhoseOrderFailsAloneAndToNobodyElse) {
    std::latch begun{1}, go{1};
    bool first = true;
    Batcher<Order> batcher([&](const std::vector<Order>& orders) {
        if (std::exchange(first, false)) {
            begun.count_down();
            go.wait();
        }
        if (std::ranges::count(orders, 3, &Order::number) != 0) throw std::runtime_error("no");
    });
    std::vector<std::future<void>> asked = askMeanwhile(batcher, begun, go, 4);
    for (std::size_t i = 0; i < asked.size(); ++i) {
        if (i == 3) {
            EXPECT_THROW(asked[i].get(), std::runtime_error);
        } else {
            EXPECT_NO_THROW(asked[i].get()) << i;
        }
    }
    EXPECT_NO_THROW(batcher.ask(Order(9)));
}

}  // namespace
}  // namespace mergen::network
