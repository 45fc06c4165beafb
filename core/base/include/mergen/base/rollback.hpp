#pragma once

#include <functional>
#include <utility>
#include <vector>

namespace mergen {

/// Undoes what was done when the scope is left without commit(): the newest first. An undo must not throw.
class Rollback {
public:
    Rollback() = default;
    Rollback(const Rollback&) = delete;
    Rollback& operator=(const Rollback&) = delete;
    ~Rollback() {
        while (!undos_.empty()) {
            undos_.back()();
            undos_.pop_back();
        }
    }
    void add(std::function<void()> undo) { undos_.push_back(std::move(undo)); }
    void commit() noexcept { undos_.clear(); }

private:
    std::vector<std::function<void()>> undos_;
};

}  // namespace mergen
