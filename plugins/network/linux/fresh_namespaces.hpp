#pragma once

#include <chrono>
#include <condition_variable>
#include <exception>
#include <functional>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

#include "net_namespace.hpp"
#include "rtnetlink.hpp"

namespace mergen::network {

/// A network namespace without a name, and a socket in it.
struct FreshNamespace {
    NetNamespace space;
    Rtnetlink inside;
};

/// Gives out new network namespaces. To make one takes the kernel half a millisecond: so one is kept ready, and made
/// anew when nobody has taken one for a while. Whoever takes several in a row has the others made on the spot.
///
/// The one that is kept has no name and no process: it ends with this object, and with the server however that ends.
/// Threads: any, for take() and hasOne(); one at a time for the others.
class FreshNamespaces {
public:
    /// Called in the one that is to be kept, on a thread of its own, with what can be done to it ahead. One that is
    /// made on the spot is bare.
    using Furnish = std::function<void(Rtnetlink& inside)>;

    /// Is told why none is kept; whoever needs one is told by take(). On that thread.
    using Report = std::function<void(const std::exception&)>;

    /// `quiet`: so long nobody must have taken one before another is made ready.
    FreshNamespaces(Furnish furnish, Report report, std::chrono::milliseconds quiet)
        : furnish_(std::move(furnish)), report_(std::move(report)), quiet_(quiet) {}
    ~FreshNamespaces() { stop(); }
    FreshNamespaces(const FreshNamespaces&) = delete;
    FreshNamespaces& operator=(const FreshNamespaces&) = delete;

    /// From now on one is kept ready, until stop(); once, before that is called. Where none can be made, none is kept,
    /// and it is tried again after the next take().
    void keepOne();
    void stop() noexcept;
    /// The one that is kept, or one made now.
    [[nodiscard]] FreshNamespace take();
    /// Whether one is ready. It may be taken in the next moment: for tests.
    [[nodiscard]] bool hasOne() const;

private:
    void work(const std::stop_token& stop);
    [[nodiscard]] std::optional<FreshNamespace> makeFurnished() const noexcept;

    const Furnish furnish_;
    const Report report_;
    const std::chrono::milliseconds quiet_;
    mutable std::mutex mutex_;
    std::condition_variable_any changed_;
    // Guarded by mutex_.
    std::optional<FreshNamespace> kept_;
    bool asked_ = false;   ///< keepOne() or take() was called since the thread last looked
    std::jthread thread_;  // last: it uses all of these
};

}  // namespace mergen::network
