#include "monitor.hpp"

#include <exception>
#include <utility>

namespace mergen::engine {

namespace {

constexpr auto roundFailed = "vm.probe.round_failed";
/// So many questions are open at most.
constexpr unsigned threadCount = 16;

bool isOf(const Vm& vm, unsigned thread) {
    return std::hash<std::string>{}(vm.uuid.str()) % threadCount == thread;
}

}  // namespace

Monitor::Monitor(Log& log, const EngineConfig::Duration& interval,
                 std::function<std::vector<std::shared_ptr<Vm>>()> vms,
                 std::function<void(const std::shared_ptr<Vm>&)> ask)
    : log_(log), interval_(interval), vms_(std::move(vms)), ask_(std::move(ask)) {
    for (unsigned i = 0; i < threadCount; ++i)
        threads_.emplace_back([this, i](const std::stop_token& stop) { work(stop, i); });
}

Monitor::~Monitor() {
    for (std::jthread& thread : threads_) thread.request_stop();  // all of them before any is waited for
}

void Monitor::wake() noexcept {
    const std::lock_guard lock(mutex_);
    ++wakes_;
    woken_.notify_all();
}

bool Monitor::waitUntil(const std::stop_token& stop, Clock::time_point time, std::uint64_t since) {
    std::unique_lock lock(mutex_);
    const bool woken = woken_.wait_until(lock, stop, time, [&] { return wakes_ != since; });
    return !woken && !stop.stop_requested();
}

void Monitor::work(const std::stop_token& stop, unsigned thread) {
    // Enough that servers and threads that begin together do not ask together.
    std::minstd_rand random(static_cast<std::minstd_rand::result_type>(Clock::now().time_since_epoch().count()) +
                            thread);
    while (!stop.stop_requested()) {
        const std::uint64_t since = [&] {
            const std::lock_guard lock(mutex_);
            return wakes_;
        }();
        const std::chrono::milliseconds interval = interval_;
        if (interval.count() <= 0) {
            std::unique_lock lock(mutex_);
            woken_.wait(lock, stop, [&] { return wakes_ != since; });
            continue;
        }
        try {
            round(stop, thread, interval, since, random);
            continue;
        } catch (const std::exception& error) {
            log_.error(roundFailed, {{"cause", error.what()}});
        } catch (...) {  // a thread's entry point: no VM is worth the server
            log_.error(roundFailed, {{"cause", "an unknown exception"}});
        }
        static_cast<void>(waitUntil(stop, Clock::now() + interval, since));
    }
}

void Monitor::round(const std::stop_token& stop, unsigned thread, std::chrono::milliseconds interval,
                    std::uint64_t since, std::minstd_rand& random) {
    std::vector<std::shared_ptr<Vm>> vms = vms_();
    std::erase_if(vms, [&](const std::shared_ptr<Vm>& vm) { return !isOf(*vm, thread); });
    // Each has its own share of the interval and is asked somewhere in it.
    std::uniform_real_distribution<double> within(0, 1);
    const Clock::time_point begin = Clock::now();
    const auto at = [&](double share) { return begin + std::chrono::duration_cast<Clock::duration>(share * interval); };
    for (std::size_t i = 0; i < vms.size(); ++i) {
        const double share = (static_cast<double>(i) + within(random)) / static_cast<double>(vms.size());
        if (!waitUntil(stop, at(share), since)) return;
        ask_(vms[i]);
    }
    static_cast<void>(waitUntil(stop, at(1), since));
}

}  // namespace mergen::engine
