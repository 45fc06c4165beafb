#pragma once

#include <string>

namespace mergen::engine {

/// Says who asked for what this thread does until the object's end; every event that the thread leaves meanwhile names
/// them. An operation runs on the thread that asked for it, so that who asked need not pass through every call of it;
/// what the server does of itself (recovery, ends of VMMs) runs on threads without such an object and names nobody.
///
/// Not for a coroutine or a task that changes threads. Objects nest: the newest counts.
class AskedBy {
public:
    /// `who`: "token:ci", "uid:1000", "tcp:127.0.0.1".
    explicit AskedBy(std::string who);
    ~AskedBy();
    AskedBy(const AskedBy&) = delete;
    AskedBy& operator=(const AskedBy&) = delete;

    /// Of this thread; empty if nobody asked.
    [[nodiscard]] static const std::string& current() noexcept;

private:
    std::string before_;
};

}  // namespace mergen::engine
