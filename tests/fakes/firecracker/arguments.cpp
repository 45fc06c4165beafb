#include "arguments.hpp"

#include <algorithm>
#include <cstdlib>
#include <iterator>
#include <map>
#include <string_view>

namespace mergen::fake {
namespace {

struct Known {
    std::string_view name;
    bool takesValue;
};

constexpr Known known[] = {
    {"api-sock", true},
    {"boot-timer", false},
    {"config-file", true},
    {"describe-snapshot", true},
    {"enable-pci", false},
    {"help", false},
    {"http-api-max-payload-size", true},
    {"id", true},
    {"level", true},
    {"log-path", true},
    {"metadata", true},
    {"metrics-path", true},
    {"mmds-size-limit", true},
    {"module", true},
    {"no-api", false},
    {"no-seccomp", false},
    {"parent-cpu-time-us", true},
    {"seccomp-filter", true},
    {"show-level", false},
    {"show-log-origin", false},
    {"snapshot-version", false},
    {"start-time-cpu-us", true},
    {"start-time-us", true},
    {"version", false},
};

}  // namespace

Arguments parseArguments(int argc, char** argv) {
    std::map<std::string, std::string, std::less<>> given;
    for (int i = 1; i < argc; ++i) {
        std::string_view word = argv[i];
        const bool isOption = word.starts_with("--");
        if (isOption) word.remove_prefix(2);
        const auto* const found =
            std::find_if(std::begin(known), std::end(known), [&](const Known& each) { return each.name == word; });
        if (!isOption || found == std::end(known)) {
            throw BadArguments("Found argument '" + std::string(word) +
                               "' which wasn't expected, or isn't valid in this context.");
        }
        if (given.contains(word))
            throw BadArguments("The argument '" + std::string(word) + "' was provided more than once.");
        std::string value;
        if (found->takesValue) {
            if (i + 1 >= argc || std::string_view(argv[i + 1]).starts_with("--")) {
                throw BadArguments("The argument '" + std::string(word) + "' requires a value, but none was supplied.");
            }
            value = argv[++i];
        }
        given.emplace(word, std::move(value));
    }
    if (given.contains("no-api") && !given.contains("config-file"))
        throw BadArguments("Argument 'config-file' required, but not found.");
    if (given.contains("no-seccomp") && given.contains("seccomp-filter"))
        throw BadArguments("Argument 'seccomp-filter' cannot be used together with argument 'no-seccomp'.");

    Arguments arguments;
    const auto take = [&given](std::string_view name, std::string& target) {
        if (const auto found = given.find(name); found != given.end()) target = found->second;
    };
    take("api-sock", arguments.apiSocket);
    take("id", arguments.id);
    take("config-file", arguments.configFile);
    take("metadata", arguments.metadata);
    take("level", arguments.level);
    std::string limit;
    take("http-api-max-payload-size", limit);
    if (!limit.empty()) arguments.maxBody = static_cast<std::size_t>(std::atoll(limit.c_str()));
    arguments.api = !given.contains("no-api");
    arguments.version = given.contains("version");
    arguments.help = given.contains("help");
    arguments.snapshotVersion = given.contains("snapshot-version");
    return arguments;
}

}  // namespace mergen::fake
