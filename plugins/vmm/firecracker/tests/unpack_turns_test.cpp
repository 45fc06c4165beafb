#include "unpack_turns.hpp"

#include <atomic>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

namespace mergen::vmm {
namespace {

void awaitWaiting(const UnpackTurns& turns, std::size_t threads) {
    while (turns.waiting() != threads) std::this_thread::yield();
}

TEST(UnpackTurns, AKernelIsOnesAtATimeAndOthersAreFree) {
    UnpackTurns turns;
    std::atomic<bool> had{false};
    auto mine = std::make_optional<UnpackTurns::OfKernel>(turns, "a");
    const UnpackTurns::OfKernel other(turns, "b");
    {
        const std::jthread next([&] {
            const UnpackTurns::OfKernel turn(turns, "a");
            had = true;
        });
        awaitWaiting(turns, 1);
        EXPECT_FALSE(had);
        mine.reset();
    }
    EXPECT_TRUE(had);
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
    EXPECT_EQ(turns.waiting(), 0U);
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
