#include <algorithm>
#include <charconv>
#include <limits>
#include <optional>
#include <set>
#include <string_view>

#include <mergen/base/text.hpp>
#include <mergen/launcher/command.hpp>
#include <mergen/sdk/error.hpp>

namespace mergen::launcher {

namespace {

[[noreturn]] void refuse(std::string_view option, std::string_view why) {
    throw Error(ErrorKind::InvalidArgument, "mergen-vm: " + std::string(option) + ": " + std::string(why));
}

template <typename Number>
Number toNumber(std::string_view option, std::string_view text, Number min, Number max) {
    Number value{};
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size() || value < min || value > max) {
        refuse(option,
               "'" + printable(text) + "' is no number from " + std::to_string(min) + " to " + std::to_string(max));
    }
    return value;
}

std::uint32_t toId(std::string_view option, std::string_view text) {
    // 2^32-1 means "leave as it is" to setresuid(2): as an id it would silently keep root.
    return toNumber<std::uint32_t>(option, text, 0, std::numeric_limits<std::uint32_t>::max() - 1);
}

std::filesystem::path toPath(std::string_view option, const std::string& text) {
    if (!text.starts_with('/')) refuse(option, "'" + printable(text) + "' is no absolute path");
    return text;
}

InheritedTap toTap(const std::string& text) {
    const std::size_t equals = text.rfind('=');
    if (equals == std::string::npos) refuse("--tap", "'" + printable(text) + "' is not NAME=DESCRIPTOR");
    return {IfName::parse(text.substr(0, equals)), toNumber<int>("--tap", text.substr(equals + 1), 3, 63)};
}

std::chrono::milliseconds toMilliseconds(std::string_view option, std::string_view text) {
    constexpr std::int64_t day = 24 * 3600 * 1000;
    return std::chrono::milliseconds(toNumber<std::int64_t>(option, text, 0, day));
}

/// The same of the options about restarts.
bool takeRestart(Command& command, const std::string& option, const std::string& value) {
    RestartPlan& restart = command.spec.restart;
    if (option == "--restart") {
        const auto policy = parseRestartPolicy(value);
        if (!policy) refuse(option, "'" + printable(value) + "' is none of no, on-failure, always");
        restart.policy = *policy;
    } else if (option == "--max-restarts") {
        restart.maxRestarts = toNumber<unsigned>(option, value, 0, std::numeric_limits<unsigned>::max());
    } else if (option == "--again") {
        if (restart.arguments.empty()) toPath(option, value);
        restart.arguments.push_back(value);
    } else if (option == "--stale") {
        restart.stale.push_back(toPath(option, value));
    } else if (option == "--restart-delay") {
        command.backoff.first = toMilliseconds(option, value);
    } else if (option == "--restart-delay-max") {
        command.backoff.most = toMilliseconds(option, value);
    } else if (option == "--restart-reset") {
        command.backoff.lasting = toMilliseconds(option, value);
    } else {
        return false;
    }
    return true;
}

/// Takes one option with its value into `command`; false if there is no such option.
bool take(Command& command, const std::string& option, const std::string& value) {
    ProcessSpec& spec = command.spec;
    if (option == "--dir") {
        command.directory = toPath(option, value);
    } else if (option == "--owner") {
        const auto owner = OwnerTag::parse(value);
        if (!owner) refuse(option, "'" + printable(value) + "' is not mergen:<instance>:<uuid>");
        spec.owner = *owner;
    } else if (option == "--netns") {
        spec.netns = toPath(option, value);
    } else if (option == "--pid-namespace") {
        if (value != "new") refuse(option, "'" + printable(value) + "' is not new");
        spec.pidNamespace = true;
    } else if (option == "--uid") {
        spec.credentials.uid = toId(option, value);
    } else if (option == "--gid") {
        spec.credentials.gid = toId(option, value);
    } else if (option == "--groups") {
        for (const std::string& group : split(value, ',')) spec.groups.push_back(toId(option, group));
    } else if (option == "--tap") {
        const InheritedTap tap = toTap(value);
        const bool taken =
            std::ranges::any_of(spec.taps, [&](const InheritedTap& other) { return other.fd == tap.fd; });
        if (taken) refuse(option, "descriptor " + std::to_string(tap.fd) + " is given twice");
        spec.taps.push_back(tap);
    } else if (option == "--console") {
        spec.console = toPath(option, value);
    } else if (option == "--console-limit") {
        spec.consoleLimit.count =
            toNumber<std::uint64_t>(option, value, 1, std::uint64_t{std::numeric_limits<std::int64_t>::max()});
    } else if (option == "--cwd") {
        spec.workingDirectory = toPath(option, value);
    } else if (option == "--env") {
        if (value.find('=') == std::string::npos || value.starts_with('=')) {
            refuse(option, "'" + printable(value) + "' is not KEY=VALUE");
        }
        spec.environment.push_back(value);
    } else {
        return takeRestart(command, option, value);
    }
    return true;
}

}  // namespace

Command parseCommand(const std::vector<std::string>& words) {
    Command command;
    std::set<std::string, std::less<>> given;
    std::size_t at = 0;
    for (; at < words.size() && words[at] != "--"; at += 2) {
        const std::string& option = words[at];
        if (at + 1 >= words.size()) refuse(option, "needs a value");
        if (!take(command, option, words[at + 1])) refuse(printable(option), "there is no such option");
        const bool repeatable = option == "--tap" || option == "--env" || option == "--again" || option == "--stale";
        if (!given.insert(option).second && !repeatable) refuse(option, "given twice");
    }
    for (const std::string_view needed :
         {"--dir", "--owner", "--uid", "--gid", "--console", "--console-limit", "--cwd"}) {
        if (!given.contains(needed)) refuse(needed, "missing");
    }
    if (command.spec.restart.policy != RestartPolicy::No && !given.contains("--again")) refuse("--again", "missing");
    if (at + 1 >= words.size()) refuse("--", "needs a program after it");
    command.spec.arguments.assign(words.begin() + static_cast<std::ptrdiff_t>(at) + 1, words.end());
    toPath("--", command.spec.arguments.front());
    return command;
}

}  // namespace mergen::launcher
