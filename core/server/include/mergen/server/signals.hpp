#pragma once

#include <condition_variable>
#include <mutex>
#include <thread>

#include <mergen/base/fd.hpp>

namespace mergen::server {

/// The signals that steer mergend, on a thread of their own. Poco's waitForTerminationRequest() blocks them only there
/// and then: a thread made earlier takes a SIGTERM with its default action, and the server dies undrained.
///
/// The first SIGTERM or SIGINT asks for an end; a second one ends the process at once with exitCode::interrupted, which
/// every record can stand: recovery at the next start goes on from there. SIGHUP asks for the configuration to be read
/// again; several that come before that began are one.
class Signals {
public:
    /// Blocks them in the calling thread and all that it makes, and ignores SIGPIPE. First thing in main().
    static void block() noexcept;
    /// Gives them their default actions back: for modes that serve nothing.
    static void unblock() noexcept;

    Signals();
    ~Signals();
    Signals(const Signals&) = delete;
    Signals& operator=(const Signals&) = delete;

    enum class Event { Stop, Hangup };
    /// Waits for the next one. Stop is given again and again once it was asked for.
    [[nodiscard]] Event wait();
    /// Whether an end was asked for; does not wait.
    [[nodiscard]] bool stopRequested() const;

private:
    void run();

    UniqueFd signals_, wake_;
    mutable std::mutex mutex_;
    std::condition_variable changed_;
    bool stop_ = false;    // guarded by mutex_
    bool hangup_ = false;  // guarded by mutex_
    std::thread thread_;   // last: it uses all of the above
};

}  // namespace mergen::server
