#pragma once

#include <functional>
#include <future>
#include <thread>
#include <type_traits>
#include <utility>

#include <mergen/base/fd.hpp>

namespace mergen::network {

/// A network namespace, kept alive by a descriptor: one that has no name and no process in it ends with the last such
/// object, also when the process is killed (network_namespaces(7)).
class NetNamespace {
public:
    /// Makes an empty one, without a name; `inside`, if given, is called in it.
    [[nodiscard]] static NetNamespace create(const std::function<void()>& inside = {});
    /// The one that the calling thread is in.
    [[nodiscard]] static NetNamespace current();
    /// `fd` must be of a network namespace (nsfs).
    explicit NetNamespace(UniqueFd fd) noexcept : fd_(std::move(fd)) {}

    [[nodiscard]] int fd() const noexcept { return fd_.get(); }

    /// Moves the calling thread into it for good. Never on a thread that does anything else afterwards: see run().
    void enter() const;

    /// Runs `work` inside, on a thread that ends with it, and gives its result or throws what it threw. setns(2) binds
    /// a thread, and a thread of the server's pool must not find itself in a guest's namespace.
    template <typename Work>
    auto run(Work work) const {
        return onHelperThread([this, &work] {
            enter();
            return work();
        });
    }

    /// Runs `work` on a thread that ends with it.
    template <typename Work>
    static auto onHelperThread(Work work) {
        std::packaged_task<std::invoke_result_t<Work>()> task(std::move(work));
        auto result = task.get_future();
        std::jthread(std::move(task)).join();
        return result.get();
    }

private:
    UniqueFd fd_;
};

}  // namespace mergen::network
