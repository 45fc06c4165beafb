#include "output_tail.hpp"

#include <algorithm>
#include <string>
#include <string_view>

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
            const std::size_t start = all.size() - std::min(all.size(), OutputTail::kept);
            ASSERT_TRUE(tail.str() == std::string_view(all).substr(start)) << piece << ", " << all.size();
        }
    }
}

}  // namespace
}  // namespace mergen::launcher
