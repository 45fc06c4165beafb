#pragma once

#include <atomic>
#include <cstdlib>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <functional>
#include <stdio.h>
#include <string>
#include <thread>
#include <unistd.h>

#include <mergen/base/fd.hpp>
#include <mergen/base/file.hpp>
#include <mergen/sdk/error.hpp>

#include "temp_dir.hpp"

namespace mergen::test {

/// A temporary folder, gone at the end.
struct Scene {
    const TempDir folder{};
    const std::filesystem::path root = folder.path();
};

inline void write(const std::filesystem::path& path, const std::string& text) {
    std::ofstream(path, std::ios::binary) << text;
}

inline std::string contentOf(const std::filesystem::path& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

/// All that can be read from `fd`.
inline std::string contentOf(const UniqueFd& fd) {
    std::string text(1U << 16U, '\0');
    const ssize_t got = ::pread(fd.get(), text.data(), text.size(), 0);
    text.resize(got > 0 ? static_cast<std::size_t>(got) : 0);
    return text;
}

/// Does `step` again and again on a thread of its own, until it is destroyed.
class Meanwhile {
public:
    explicit Meanwhile(std::function<void()> step)
        : thread_([this, step = std::move(step)](const std::stop_token& stop) {
              while (!stop.stop_requested()) {
                  step();
                  ++rounds_;
              }
          }) {
        while (rounds_ == 0) std::this_thread::yield();
    }
    [[nodiscard]] std::size_t rounds() const { return rounds_; }

private:
    std::atomic<std::size_t> rounds_{0};
    std::jthread thread_;
};

/// The two names change places, atomically.
inline void exchange(const std::filesystem::path& a, const std::filesystem::path& b) {
    if (::renameat2(AT_FDCWD, a.c_str(), AT_FDCWD, b.c_str(), RENAME_EXCHANGE) != 0) std::abort();
}

}  // namespace mergen::test
