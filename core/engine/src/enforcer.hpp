#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <stop_token>
#include <thread>
#include <vector>

#include "registry.hpp"

namespace mergen::engine {

/// Where the server acts on a VM by itself and that takes long (a kill, a start): on a few threads of its own, so that
/// neither the questions to the other VMs nor the settling of their ends wait for it. A VM waits here once at most.
/// Threads: any.
class Enforcer {
public:
    using Action = std::function<void(const std::shared_ptr<Vm>&)>;

    /// `action` finds out for itself what is due. It is called under no lock and throws nothing.
    explicit Enforcer(Action action);
    /// Waits for the actions that have begun; the others are left.
    ~Enforcer();
    Enforcer(const Enforcer&) = delete;
    Enforcer& operator=(const Enforcer&) = delete;

    /// Does nothing if the VM waits already. One whose action has begun may wait for another.
    void add(const std::shared_ptr<Vm>& vm);

private:
    void work(const std::stop_token& stop);

    const Action action_;
    std::mutex mutex_;
    std::condition_variable_any added_;
    std::deque<std::shared_ptr<Vm>> waiting_;  // guarded by mutex_
    std::vector<std::jthread> threads_;        // last: they end before what they use
};

}  // namespace mergen::engine
