#include "unpack_turns.hpp"

#include <atomic>
#include <latch>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

namespace mergen::vmm {
namespace {

void awaitWaiting(const UnpackTurns& turns, std::size_t threads) {
    while (turns.waitingForKernel() != threads) std::this_thread::yield();
}

TEST(UnpackTurns, WhoIsNotTheFirstOfAKernelAwaitsItsEndAndOthersAreFree) {
    UnpackTurns turns;
    std::atomic<bool> had{false};
    auto mine = std::make_optional<UnpackTurns::OfKernel>(turns, "a");
    const UnpackTurns::OfKernel other(turns, "b");
    EXPECT_TRUE(mine->isFirst());
    EXPECT_TRUE(other.isFirst());
    {
        const std::jthread next([&] {
            const UnpackTurns::OfKernel turn(turns, "a");
            EXPECT_FALSE(turn.isFirst());
            had = true;
        });
        awaitWaiting(turns, 1);
        EXPECT_FALSE(had);
        mine.reset();
    }
    EXPECT_TRUE(had);
    const UnpackTurns::OfKernel later(turns, "a");
    EXPECT_TRUE(later.isFirst());
}

TEST(UnpackTurns, WhoAwaitedTheFirstOneAwaitsNobodyElse) {
    UnpackTurns turns;
    constexpr std::size_t threads = 3;
    auto first = std::make_optional<UnpackTurns::OfKernel>(turns, "a");
    std::latch together(threads + 1);
    std::vector<std::jthread> others;
    for (std::size_t each = 0; each < threads; ++each) {
        others.emplace_back([&] {
            const UnpackTurns::OfKernel turn(turns, "a");
            together.arrive_and_wait();
        });
    }
    awaitWaiting(turns, threads);
    first.reset();
    // Nor the next first one, who has come before they are awake.
    const UnpackTurns::OfKernel next(turns, "a");
    EXPECT_TRUE(next.isFirst());
    together.arrive_and_wait();
}

TEST(UnpackTurns, NoMoreThanThePlacesAreTakenAtOnce) {
    constexpr std::size_t places = 2;
    UnpackTurns turns(places);
    std::atomic<std::size_t> within{0};
    std::atomic<bool> tooMany{false};
    {
        std::vector<std::jthread> threads;
        for (int each = 0; each < 8; ++each) {
            threads.emplace_back([&] {
                for (int round = 0; round < 500; ++round) {
                    const UnpackTurns::Place place(turns);
                    if (++within > places) tooMany = true;
                    std::this_thread::yield();
                    --within;
                }
            });
        }
    }
    EXPECT_FALSE(tooMany);
    EXPECT_EQ(turns.waitingForPlace(), 0U);
}

TEST(UnpackTurns, WhoAwaitsAKernelTakesNoPlace) {
    UnpackTurns turns(1);
    auto mine = std::make_optional<UnpackTurns::OfKernel>(turns, "a");
    const std::jthread next([&] {
        const UnpackTurns::OfKernel turn(turns, "a");
        const UnpackTurns::Place place(turns);
    });
    awaitWaiting(turns, 1);
    { const UnpackTurns::Place place(turns); }
    mine.reset();
}

}  // namespace
}  // namespace mergen::vmm
