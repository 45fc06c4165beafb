#include "console.hpp"

#include <atomic>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>

#include <gtest/gtest.h>

#include <mergen/base/file.hpp>

namespace mergen::engine::test {
namespace {

namespace fs = std::filesystem;

class Console : public ::testing::Test {
protected:
    Console() {
        std::string pattern = fs::temp_directory_path() / "mergen-console-XXXXXX";
        folder_ = ::mkdtemp(pattern.data());
    }
    ~Console() override { static_cast<void>(removeTree(folder_)); }

    [[nodiscard]] fs::path newest() const { return folder_ / "console.log"; }
    [[nodiscard]] fs::path older() const { return folder_ / "console.log.1"; }
    void write(const fs::path& file, const std::string& text) { std::ofstream(file, std::ios::binary) << text; }

private:
    fs::path folder_;
};

TEST_F(Console, IsTheOlderHalfAndTheNewerOne) {
    EXPECT_EQ(readConsole(newest(), {}), "");
    write(older(), "one\ntwo\n");
    EXPECT_EQ(readConsole(newest(), {}), "one\ntwo\n") << "between a rename and a new file";
    write(newest(), "three\nfour");
    EXPECT_EQ(readConsole(newest(), {}), "one\ntwo\nthree\nfour");
    EXPECT_EQ(readConsole(newest(), {.bytes = 12}), "o\nthree\nfour");
    EXPECT_EQ(readConsole(newest(), {.bytes = 4}), "four");
}

TEST_F(Console, IsGivenByLines) {
    write(older(), "one\ntwo\n");
    write(newest(), "three\nfour\n");
    EXPECT_EQ(readConsole(newest(), {.lines = 1}), "four\n");
    EXPECT_EQ(readConsole(newest(), {.lines = 3}), "two\nthree\nfour\n");
    EXPECT_EQ(readConsole(newest(), {.lines = 9}), "one\ntwo\nthree\nfour\n");
    EXPECT_EQ(readConsole(newest(), {.bytes = 8, .lines = 2}), "ee\nfour\n") << "within the bytes";
    write(newest(), "three\nfour");
    EXPECT_EQ(readConsole(newest(), {.lines = 2}), "three\nfour") << "the last line need not be ended";
}

TEST_F(Console, IsNeitherTornNorDoubledWhileItIsRotated) {
    // Numbered lines, each half of 100: whatever is read must be numbers that follow each other.
    std::atomic<bool> enough{false};
    std::jthread writer([&] {
        for (int half = 0; !enough; ++half) {
            std::string text;
            for (int i = 0; i < 100; ++i) text += std::to_string(half * 100 + i) + "\n";
            {
                std::ofstream file(newest(), std::ios::binary | std::ios::app);
                file << text << std::flush;
            }
            fs::rename(newest(), older());
        }
    });
    for (int read = 0; read < 2000; ++read) {
        std::istringstream lines(readConsole(newest(), {.bytes = 1U << 20U}));
        long last = -1;
        for (std::string line; std::getline(lines, line) && !lines.eof();) {
            const long number = std::stol(line);
            if (last >= 0) {
                ASSERT_EQ(number, last + 1) << "in read " << read;
            }
            last = number;
        }
    }
    enough = true;
}

}  // namespace
}  // namespace mergen::engine::test
