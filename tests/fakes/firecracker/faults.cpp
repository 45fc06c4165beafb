#include "faults.hpp"

#include <cstring>

namespace mergen::fake {

[[noreturn]] void fault(const std::string& text) {
    throw Fault(text);
}

[[noreturn]] void error(const std::string& text) {
    throw std::runtime_error(text);
}

void within(const std::string& prefix, const std::function<void()>& action) {
    try {
        action();
    } catch (const std::runtime_error& refusal) {
        throw Fault(prefix + ": " + refusal.what());
    }
}

std::string osError(int errnum) {
    return std::string(std::strerror(errnum)) + " (os error " + std::to_string(errnum) + ")";
}

}  // namespace mergen::fake
