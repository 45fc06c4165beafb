#pragma once

#include <atomic>
#include <concepts>

namespace mergen::engine {

/// A setting that may change while it is used. Reads give the old value or the new one, each whole; values that belong
/// together must not be two of these. Threads: any.
template <typename T>
class Adjustable {
public:
    // Implicit both ways, so that it stands where a plain T stood.
    template <std::convertible_to<T> Value>
    Adjustable(Value value) noexcept : value_(static_cast<T>(value)) {}
    Adjustable(const Adjustable& other) noexcept : value_(static_cast<T>(other)) {}
    Adjustable& operator=(const Adjustable& other) noexcept {
        value_.store(static_cast<T>(other), std::memory_order_relaxed);
        return *this;
    }
    ~Adjustable() = default;
    operator T() const noexcept { return value_.load(std::memory_order_relaxed); }

private:
    std::atomic<T> value_;
};

}  // namespace mergen::engine
