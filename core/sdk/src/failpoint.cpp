#include <atomic>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstdlib>
#include <mutex>
#include <optional>
#include <signal.h>
#include <string>
#include <thread>
#include <unistd.h>
#include <vector>

#include <mergen/sdk/error.hpp>
#include <mergen/sdk/failpoint.hpp>

namespace mergen::failpoint {

namespace {

struct Point {
    std::string name;  // without the final '*'
    bool prefix = false;
    std::optional<unsigned> left;  // none: fires always
    enum class Action { Error, NoSpace, Crash, Delay } action = Action::Error;
    std::string text;
    std::chrono::milliseconds delay{};
};

struct Registry {
    Registry() {
        if (const char* spec = std::getenv("MERGEN_FAILPOINTS")) set(spec);
    }
    void set(std::string_view spec);

    std::mutex mutex;
    std::vector<Point> points;
    std::atomic<bool> armed{false};
};

Registry& registry() {
    static Registry instance;
    return instance;
}

[[noreturn]] void refuse(std::string_view item) {
    throw Error(ErrorKind::InvalidArgument,
                "cannot read the failpoint '" + std::string(item) +
                    "': NAME=[COUNT*]error(TEXT), NAME=[COUNT*]nospace, NAME=[COUNT*]crash or NAME=[COUNT*]delay(MS)");
}

template <typename Number>
Number number(std::string_view digits, std::string_view item) {
    Number value{};
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
    if (error != std::errc() || end != digits.data() + digits.size()) refuse(item);
    return value;
}

Point parsePoint(std::string_view item) {
    const std::size_t equals = item.find('=');
    if (equals == 0 || equals == std::string_view::npos) refuse(item);
    Point point;
    point.name = item.substr(0, equals);
    if (point.name.back() == '*') {
        point.prefix = true;
        point.name.pop_back();
    }
    std::string_view action = item.substr(equals + 1);
    const std::size_t open = action.find('(');
    if (const std::size_t star = action.substr(0, open).find('*'); star != std::string_view::npos) {
        point.left = number<unsigned>(action.substr(0, star), item);
        action.remove_prefix(star + 1);
    }
    const auto argument = [&](std::string_view verb) -> std::optional<std::string_view> {
        if (!action.starts_with(verb) || action.size() < verb.size() + 2 || action[verb.size()] != '(' ||
            action.back() != ')') {
            return std::nullopt;
        }
        return action.substr(verb.size() + 1, action.size() - verb.size() - 2);
    };
    if (action == "crash") {
        point.action = Point::Action::Crash;
    } else if (action == "nospace") {
        point.action = Point::Action::NoSpace;
    } else if (const auto text = argument("error")) {
        point.action = Point::Action::Error;
        point.text = *text;
    } else if (const auto ms = argument("delay")) {
        point.action = Point::Action::Delay;
        point.delay = std::chrono::milliseconds(number<unsigned>(*ms, item));
    } else {
        refuse(item);
    }
    return point;
}

void Registry::set(std::string_view spec) {
    std::vector<Point> parsed;
    while (!spec.empty()) {
        const std::size_t end = spec.find(';');
        const std::string_view item = spec.substr(0, end);
        if (!item.empty()) parsed.push_back(parsePoint(item));
        spec.remove_prefix(end == std::string_view::npos ? spec.size() : end + 1);
    }
    const std::lock_guard lock(mutex);
    points = std::move(parsed);
    armed.store(!points.empty(), std::memory_order_relaxed);
}

}  // namespace

void arm(std::string_view spec) {
    registry().set(spec);
}

void hit(std::string_view name) {
    Registry& all = registry();
    if (!all.armed.load(std::memory_order_relaxed)) return;
    Point fired;
    {
        const std::lock_guard lock(all.mutex);
        bool found = false;
        for (Point& point : all.points) {
            const bool matches = point.prefix ? name.starts_with(point.name) : name == point.name;
            if (!matches || (point.left && *point.left == 0)) continue;
            if (point.left) --*point.left;
            fired = point;
            found = true;
            break;
        }
        if (!found) return;
    }
    switch (fired.action) {
        case Point::Action::Crash:
            ::kill(::getpid(), SIGKILL);
            std::abort();
        case Point::Action::Delay:
            std::this_thread::sleep_for(fired.delay);
            return;
        case Point::Action::NoSpace:
            throw Error::fromErrno(ENOSPC, "failpoint " + std::string(name));
        case Point::Action::Error:
            throw Error(ErrorKind::Internal, "failpoint " + std::string(name) + ": " + fired.text);
    }
}

}  // namespace mergen::failpoint
