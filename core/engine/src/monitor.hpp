#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <random>
#include <stop_token>
#include <thread>
#include <vector>

#include <mergen/engine/engine.hpp>

#include "registry.hpp"

namespace mergen::engine {

/// When each VM is asked whether its VMM still answers: once in every round, and the VMs spread over it, so that a
/// thousand of them cost a steady trickle of questions. A few threads share the VMs by their UUIDs; each asks one VM at
/// a time, so no more questions than threads are open, and VMMs that hang delay only those of the same thread.
/// A round takes the interval, or what its thread's questions take if that is longer: each a moment where the VMM
/// answers, the question's own limit where it hangs. If all of a thousand hang for 2 s, that is some 125 s.
/// Threads: any.
class Monitor {
public:
    /// `interval` is read again before every round; 0: nobody is asked. `ask` gets the VMs of `vms`, is called under no
    /// lock, throws nothing and takes no longer than a question: all that follows from the answer is done elsewhere.
    /// A round for which `vms` throws is logged and left out. Begins at once.
    Monitor(Log& log, const EngineConfig::Duration& interval, std::function<std::vector<std::shared_ptr<Vm>>()> vms,
            std::function<void(const std::shared_ptr<Vm>&)> ask);
    /// Waits for the questions that are open.
    ~Monitor();
    Monitor(const Monitor&) = delete;
    Monitor& operator=(const Monitor&) = delete;

    /// The interval is another one: every thread begins its round anew. Whoever calls it more often than once in an
    /// interval keeps the later VMs of every round from being asked.
    void wake() noexcept;

private:
    using Clock = std::chrono::steady_clock;

    void work(const std::stop_token& stop, unsigned thread);
    /// One round over the VMs of this thread.
    void round(const std::stop_token& stop, unsigned thread, std::chrono::milliseconds interval, std::uint64_t since,
               std::minstd_rand& random);
    /// False if it is to stop, or wake() was called since `since`, before `time` came.
    bool waitUntil(const std::stop_token& stop, Clock::time_point time, std::uint64_t since);

    Log& log_;
    const EngineConfig::Duration& interval_;
    const std::function<std::vector<std::shared_ptr<Vm>>()> vms_;
    const std::function<void(const std::shared_ptr<Vm>&)> ask_;
    std::mutex mutex_;
    std::condition_variable_any woken_;
    std::uint64_t wakes_ = 0;            // guarded by mutex_
    std::vector<std::jthread> threads_;  // last: they end before what they use
};

}  // namespace mergen::engine
