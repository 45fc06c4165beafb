#include <utility>

#include <mergen/engine/asked_by.hpp>

namespace mergen::engine {

namespace {

thread_local std::string currentAsker;

}  // namespace

AskedBy::AskedBy(std::string who) : before_(std::exchange(currentAsker, std::move(who))) {}

AskedBy::~AskedBy() {
    currentAsker = std::move(before_);
}

const std::string& AskedBy::current() noexcept {
    return currentAsker;
}

}  // namespace mergen::engine
