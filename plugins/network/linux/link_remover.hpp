#pragma once

#include <future>
#include <mutex>
#include <vector>

#include "rtnetlink.hpp"

namespace mergen::network {

/// Removes links of this host, and returns as soon as they are out of sight: nobody finds them, no packet comes by them
/// and their names are free. The request itself returns only when the kernel has let go of the last memory of the link,
/// many milliseconds later (netdev_run_todo of net/core/dev.c waits for all of RCU); that is waited for by a thread.
///
/// Works in the network namespace of the calling threads, which must be one. Threads: any.
class LinkRemover {
public:
    /// Removes the link, if it is there. Throws as Rtnetlink::removeLink().
    void remove(Rtnetlink& host, const Link& link);
    /// Waits until nothing is in progress.
    void finish() noexcept;

private:
    void keep(std::future<void> removal);

    std::mutex mutex_;
    std::vector<std::future<void>> going_;  // out of sight; guarded by mutex_
};

}  // namespace mergen::network
