#include "batcher.hpp"

#include <algorithm>
#include <future>
#include <latch>
#include <stdexcept>
#include <thread>

#include <gtest/gtest.h>

namespace mergen::network {
namespace {

/// Calls ask() for orders 1 to `last` while the work for order 0 is held back; gives the futures, 0's first.
template <typename Ask>
std::vector<std::future<void>> askMeanwhile(Batcher<int>& batcher, std::latch& begun, std::latch& go, int last,
                                            const Ask& ask) {
    std::vector<std::future<void>> asked;
    asked.push_back(std::async(std::launch::async, ask, 0));
    begun.wait();
    for (int order = 1; order <= last; ++order) asked.push_back(std::async(std::launch::async, ask, order));
    while (batcher.waiting() < static_cast<std::size_t>(last)) std::this_thread::yield();
    go.count_down();
    return asked;
}

TEST(Batcher, WhatIsAskedForWhileItWorksIsDoneInOneGo) {
    std::latch begun{1}, go{1};
    std::vector<std::size_t> sizes;
    std::size_t sum = 0;
    Batcher<int> batcher([&](const std::vector<int>& orders) {
        if (sizes.empty()) {
            begun.count_down();
            go.wait();
        }
        sizes.push_back(orders.size());
        for (const int order : orders) sum += static_cast<std::size_t>(order);
    });
    for (std::future<void>& one : askMeanwhile(batcher, begun, go, 20, [&](int order) { batcher.ask(order); }))
        one.get();
    EXPECT_EQ(sizes, (std::vector<std::size_t>{1, 20}));
    EXPECT_EQ(sum, 210U);
    batcher.ask(5);
    EXPECT_EQ(sizes.size(), 3U) << "and goes on afterwards";
}

TEST(Batcher, AFailureIsToldToWhoseOrderFailsAloneAndToNobodyElse) {
    std::latch begun{1}, go{1};
    bool first = true;
    Batcher<int> batcher([&](const std::vector<int>& orders) {
        if (std::exchange(first, false)) {
            begun.count_down();
            go.wait();
        }
        if (std::ranges::count(orders, 3) != 0) throw std::runtime_error("no");
    });
    std::vector<std::future<void>> asked = askMeanwhile(batcher, begun, go, 4, [&](int order) { batcher.ask(order); });
    for (std::size_t i = 0; i < asked.size(); ++i) {
        if (i == 3) {
            EXPECT_THROW(asked[i].get(), std::runtime_error);
        } else {
            EXPECT_NO_THROW(asked[i].get()) << i;
        }
    }
    EXPECT_NO_THROW(batcher.ask(9));
}

}  // namespace
}  // namespace mergen::network
