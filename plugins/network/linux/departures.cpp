#include "departures.hpp"

#include <algorithm>
#include <utility>

namespace mergen::network {

Departures::Departures(Work work, Report report, std::chrono::milliseconds linger)
    : work_(std::move(work)),
      report_(std::move(report)),
      linger_(linger),
      thread_([this](const std::stop_token& stop) { this->work(stop); }) {}

Departures::~Departures() = default;  // the thread ends when nobody is left

void Departures::add(Guest guest) {
    const std::lock_guard lock(mutex_);
    std::erase_if(departing_, [&](const Departing& one) {
        if (!one.error || one.guest.owner != guest.owner) return false;
        guest.addresses.insert(one.guest.addresses.begin(), one.guest.addresses.end());
        guest.links.insert(one.guest.links.begin(), one.guest.links.end());
        return true;
    });
    departing_.push_back({.guest = std::move(guest), .error = {}});
    changed_.notify_all();
}

void Departures::await(const OwnerTag& owner, const std::set<Ipv4Address>& addresses) {
    const auto isMeant = [&](const Departing& one) {
        const auto isHis = [&](Ipv4Address address) { return one.guest.addresses.contains(address); };
        return one.guest.owner == owner || std::ranges::any_of(addresses, isHis);
    };
    Lock lock(mutex_);
    for (Departing& one : departing_) {
        if (isMeant(one)) one.error.reset();
    }
    hurry(lock, [&] {
        return std::ranges::none_of(departing_, [&](const Departing& one) { return isMeant(one) && !one.error; });
    });
    const auto failed = std::ranges::find_if(departing_, isMeant);
    if (failed != departing_.end()) throw *failed->error;
}

void Departures::awaitAll() {
    Lock lock(mutex_);
    hurry(lock,
          [&] { return std::ranges::all_of(departing_, [](const Departing& one) { return one.error.has_value(); }); });
}

void Departures::hurry(Lock& lock, const std::function<bool()>& done) {
    ++hurried_;
    changed_.notify_all();
    changed_.wait(lock, done);
    --hurried_;
}

std::optional<Error> Departures::attempt(const std::vector<Guest>& guests) const {
    try {
        work_(guests);
    } catch (const Error& error) {
        return error;
    } catch (const std::exception& error) {
        return Error(ErrorKind::Internal, error.what());
    }
    return std::nullopt;
}

bool Departures::awaitWork(Lock& lock, const std::stop_token& stop) {
    const auto isNext = [](const Departing& one) { return !one.error; };
    const auto hasWork = [&] { return std::ranges::any_of(departing_, isNext); };
    changed_.wait(lock, stop, hasWork);
    changed_.wait_for(lock, stop, linger_, [&] { return hurried_ != 0 || !hasWork(); });
    return hasWork();
}

void Departures::work(const std::stop_token& stop) {
    Lock lock(mutex_);
    while (awaitWork(lock, stop)) {
        try {
            workOff(lock);
        } catch (const std::exception&) {  // memory is short: whoever was at hand is tried again
            if (!lock.owns_lock()) lock.lock();
            for (Departing& one : departing_) one.taken = false;
            if (stop.stop_requested()) return;  // the next server does it
            constexpr std::chrono::seconds pause{1};
            changed_.wait_for(lock, stop, pause, [] { return false; });
        }
    }
}

void Departures::workOff(Lock& lock) {
    std::vector<Guest> guests;
    for (Departing& one : departing_) {
        if (one.error) continue;
        one.taken = true;
        guests.push_back(one.guest);
    }
    lock.unlock();

    // One guest's trouble is not the others'.
    std::vector<std::optional<Error>> errors(guests.size(), attempt(guests));
    if (errors.front() && guests.size() > 1) {
        std::ranges::transform(guests, errors.begin(), [&](const Guest& one) { return attempt({one}); });
    }
    for (std::size_t i = 0; i < guests.size(); ++i) {
        if (errors[i]) report_(guests[i].owner, *errors[i]);
    }

    lock.lock();
    auto error = errors.begin();  // in the order of `guests`: nobody takes away what the thread is at
    std::erase_if(departing_, [&](Departing& one) {
        if (!std::exchange(one.taken, false)) return false;
        one.error = *error++;
        return !one.error.has_value();
    });
    changed_.notify_all();
}

}  // namespace mergen::network
