#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include <mergen/sdk/error.hpp>
#include <mergen/sdk/types.hpp>

namespace mergen::network {

/// Guests that are gone from the host and whose traces in the kernel are not: a link that goes with its namespace, and
/// flows, which cost a walk over all of them; nobody who stops a VM has to wait for that. A thread does it, in one go
/// for all who come within a while. Who needs one of these guests' addresses, or the same VM again, has it done at once
/// and waits.
///
/// What is not done when the server is killed is found by its tag. Threads: any.
class Departures {
public:
    struct Guest {
        OwnerTag owner;
        std::set<Ipv4Address> addresses;
        std::set<std::string> links{};  ///< of the host, which may be left
    };
    /// Takes away what is left of these guests; again is as good as once. One thread at a time calls it, under no lock.
    using Work = std::function<void(const std::vector<Guest>&)>;
    /// Is told why something of a guest stays, until it is tried again. As Work.
    using Report = std::function<void(const OwnerTag&, const Error&)>;

    /// `linger`: so long the thread waits for more to come, unless somebody needs it done.
    Departures(Work work, Report report, std::chrono::milliseconds linger);
    /// Has all that is left done.
    ~Departures();
    Departures(const Departures&) = delete;
    Departures& operator=(const Departures&) = delete;

    /// Returns at once.
    void add(Guest guest);
    /// Returns when nothing is left of this VM nor of any that had one of these addresses. What failed before is tried
    /// once more; throws its error if it fails again.
    void await(const OwnerTag& owner, const std::set<Ipv4Address>& addresses);
    /// Returns when nobody is left who has not failed.
    void awaitAll();

private:
    struct Departing {
        Guest guest;
        bool taken = false;          ///< the thread is at it
        std::optional<Error> error;  ///< it failed, and is not tried until somebody asks
    };

    using Lock = std::unique_lock<std::mutex>;
    void work(const std::stop_token& stop);
    /// One go for all who are to be taken away; leaves the lock while it works.
    void workOff(Lock& lock);
    /// Waits until there is something to do that must not wait longer; false if there is nothing more to come.
    bool awaitWork(Lock& lock, const std::stop_token& stop);
    /// Has the thread begin at once, and waits for `done`.
    void hurry(Lock& lock, const std::function<bool()>& done);
    /// What the work for this guest throws, or for all of `guests` together.
    [[nodiscard]] std::optional<Error> attempt(const std::vector<Guest>& guests) const;

    const Work work_;
    const Report report_;
    const std::chrono::milliseconds linger_;
    std::mutex mutex_;
    std::condition_variable_any changed_;
    // Guarded by mutex_.
    std::vector<Departing> departing_;
    unsigned hurried_ = 0;  ///< so many wait
    std::jthread thread_;   // last: it uses all of these
};

}  // namespace mergen::network
