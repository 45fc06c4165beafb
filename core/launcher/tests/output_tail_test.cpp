#include "output_tail.hpp"

#include <string>

#include <gtest/gtest.h>

namespace mergen::launcher {
namespace {

TEST(OutputTail, HoldsAllOfLittle) {
    OutputTail tail;
    EXPECT_EQ(tail.str(), "");
    tail.add("Linux");
    tail.add("");
    tail.add(" boots\n");
    EXPECT_EQ(tail.str(), "Linux boots\n");
}

TEST(OutputTail, HoldsTheNewestOfMuchHoweverItComes) {
    for (const std::size_t piece : {std::size_t{1}, std::size_t{100}, OutputTail::kept - 1, OutputTail::kept,
                                    OutputTail::kept + 1, 5 * OutputTail::kept}) {
        OutputTail tail;
        std::string all;
        for (std::size_t i = 0; all.size() < 6 * OutputTail::kept; ++i) {
            const std::string printed(piece, static_cast<char>('a' + i % 26));
            tail.add(printed);
            all += printed;
            ASSERT_LE(tail.str().size(), 2 * OutputTail::kept) << piece;
            ASSERT_TRUE(all.ends_with(tail.str())) << piece;
        }
        EXPECT_GE(tail.str().size(), OutputTail::kept) << piece;
    }
}

}  // namespace
}  // namespace mergen::launcher
