#include "fresh_namespaces.hpp"

#include <system_error>
#include <utility>

namespace mergen::network {

namespace {

FreshNamespace make(const FreshNamespaces::Furnish& furnish) {
    std::optional<Rtnetlink> inside;
    NetNamespace space = NetNamespace::create([&] {
        inside.emplace();
        if (furnish) furnish(*inside);
    });
    return {std::move(space), *std::move(inside)};
}

}  // namespace

void FreshNamespaces::keepOne() {
    {
        const std::lock_guard lock(mutex_);
        asked_ = true;
    }
    try {
        thread_ = std::jthread([this](const std::stop_token& stop) { work(stop); });
    } catch (const std::system_error& error) {  // the host gives no more threads
        report_(error);
    }
}

void FreshNamespaces::stop() noexcept {
    thread_ = {};
    const std::lock_guard lock(mutex_);
    kept_.reset();
}

FreshNamespace FreshNamespaces::take() {
    std::optional<FreshNamespace> kept;
    {
        const std::lock_guard lock(mutex_);
        kept = std::exchange(kept_, std::nullopt);
        asked_ = true;
    }
    changed_.notify_all();
    return kept ? *std::move(kept) : make({});
}

bool FreshNamespaces::hasOne() const {
    const std::lock_guard lock(mutex_);
    return kept_.has_value();
}

std::optional<FreshNamespace> FreshNamespaces::makeFurnished() const noexcept {
    try {
        return make(furnish_);
    } catch (const std::exception& error) {
        report_(error);
        return std::nullopt;
    }
}

void FreshNamespaces::work(const std::stop_token& stop) {
    const auto isAsked = [this] { return asked_; };
    std::unique_lock lock(mutex_);
    while (changed_.wait(lock, stop, isAsked)) {
        asked_ = false;
        if (changed_.wait_for(lock, stop, quiet_, isAsked)) continue;
        if (stop.stop_requested()) return;
        lock.unlock();
        std::optional<FreshNamespace> made = makeFurnished();
        lock.lock();
        kept_ = std::move(made);
        if (kept_) asked_ = false;
    }
}

}  // namespace mergen::network
