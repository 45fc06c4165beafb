#include <string>

#include <gtest/gtest.h>

#include <mergen/base/panic.hpp>

namespace mergen {
namespace {

const std::string panic =
    "[    1.0] Run /init as init process\r\n"
    "[    1.1] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100\r\n"
    "[    1.1] Call Trace:\r\n"
    "[    1.2] ---[ end Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100 ]---\r\n";

TEST(Panic, IsTheFirstLineThatTheKernelOfTheLastBootSaysItWith) {
    EXPECT_EQ(panicOf(panic), "Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100");
    EXPECT_EQ(panicOf(""), std::nullopt);
    EXPECT_EQ(panicOf("it speaks of a kernel panic\n"), std::nullopt);
    EXPECT_EQ(panicOf(panic + "[    0.0] Linux version 6.1\n[    9.0] reboot: Restarting system\n"), std::nullopt);
    EXPECT_EQ(panicOf("Linux version 6.1\n" + panic), panicOf(panic));
}

TEST(Panic, OfAHostileGuestIsBoundedAndPrintable) {
    const std::string line = panicOf("Kernel panic - not syncing: \x1b[2J" + std::string(1U << 20U, 'x')).value_or("");
    EXPECT_NE(line, "");
    EXPECT_LT(line.size(), 300U);
    EXPECT_EQ(line.find('\x1b'), std::string::npos);
}

}  // namespace
}  // namespace mergen
