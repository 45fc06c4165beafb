#include "number_pool.hpp"

#include <gtest/gtest.h>

namespace mergen::engine {
namespace {

TEST(NumberPool, GivesTheLowestFreeNumber) {
    NumberPool pool(2, 253);
    EXPECT_EQ(pool.takeLowest(), 2U);
    EXPECT_EQ(pool.takeLowest(), 3U);
    pool.release(2);
    EXPECT_EQ(pool.takeLowest(), 2U);
    EXPECT_EQ(pool.takeLowest(), 4U);
}

TEST(NumberPool, GivesEachNumberOnceUntilItIsUsedUp) {
    for (const std::uint32_t count : {1U, 63U, 64U, 65U, 130U}) {
        NumberPool pool(20000, count);
        for (std::uint32_t i = 0; i < count; ++i) EXPECT_EQ(pool.takeLowest(), 20000 + i);
        EXPECT_EQ(pool.takeLowest(), std::nullopt) << count;
        pool.release(20000 + count - 1);
        EXPECT_EQ(pool.takeLowest(), 20000 + count - 1);
    }
}

TEST(NumberPool, TakesOnlyWhatIsFreeAndItsOwn) {
    NumberPool pool(10, 5);
    EXPECT_TRUE(pool.take(12));
    EXPECT_FALSE(pool.take(12));
    EXPECT_FALSE(pool.take(9));
    EXPECT_FALSE(pool.take(15));
    EXPECT_TRUE(pool.take(14));
}

TEST(NumberPool, SearchesFromANumberOn) {
    NumberPool pool(0, 200);
    EXPECT_TRUE(pool.take(100));
    EXPECT_EQ(pool.takeLowest(100), 101U);
    EXPECT_EQ(pool.takeLowest(199), 199U);
    EXPECT_EQ(pool.takeLowest(199), std::nullopt);
    EXPECT_EQ(pool.takeLowest(), 0U);
}

TEST(NumberPool, ReleasingWhatIsNotTakenChangesNothing) {
    NumberPool pool(5, 3);
    pool.release(6);
    pool.release(100);
    EXPECT_EQ(pool.takeLowest(), 5U);
}

}  // namespace
}  // namespace mergen::engine
