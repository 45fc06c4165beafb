#pragma once

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>

namespace mergen::launcher {

/// The end of what one run of a VMM printed: the newest 8 KiB, however it was read, which hold a kernel's panic with
/// its trace and registers. Needs no memory after it was made: a guest that prints much must not be its parent's end.
/// Threads: one.
class OutputTail {
public:
    static constexpr std::size_t kept = 8192;

    OutputTail() { text_.reserve(2 * kept); }

    void add(std::string_view printed) noexcept;
    /// The last `kept` bytes, or all there were; until the next add().
    [[nodiscard]] std::string_view str() const noexcept {
        const std::string_view text = text_;
        return text.substr(text.size() - std::min(text.size(), kept));
    }

private:
    std::string text_;  // never longer than 2 * kept, so it is moved to the front only now and then
};

}  // namespace mergen::launcher
