#include "arguments.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <map>
#include <string_view>

namespace mergen::fake {
namespace {

namespace fs = std::filesystem;

struct Known {
    std::string_view name;
    bool takesValue, repeatable;
};

constexpr std::array<Known, 13> known{{
    {"id", true, false},
    {"exec-file", true, false},
    {"uid", true, false},
    {"gid", true, false},
    {"chroot-base-dir", true, false},
    {"netns", true, false},
    {"daemonize", false, false},
    {"new-pid-ns", false, false},
    {"cgroup", true, true},
    {"resource-limit", true, true},
    {"cgroup-version", true, false},
    {"parent-cgroup", true, false},
    {"version", false, false},
}};

template <typename Number>
Number toNumber(const std::string& text, const std::string& refusal) {
    Number value{};
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (text.empty() || error != std::errc() || end != text.data() + text.size()) throw Refusal(refusal + text);
    return value;
}

using Given = std::multimap<std::string, std::string, std::less<>>;

std::string required(const Given& given, const std::string& name) {
    const auto found = given.find(name);
    if (found == given.end())
        throw Refusal("Failed to parse arguments: Argument '" + name + "' required, but not found.");
    return found->second;
}

fs::path canonical(const std::string& path) {
    std::error_code error;
    fs::path result = fs::canonical(path, error);
    if (error) throw Refusal("Failed to canonicalize path " + path + ": " + error.message());
    return result;
}

/// Neither absolute nor with "." or "..".
bool isPlain(const fs::path& path) {
    return !path.is_absolute() &&
           std::ranges::none_of(path, [](const fs::path& part) { return part == "." || part == ".."; });
}

std::pair<std::string, std::string> halves(const std::string& text, const std::string& refusal) {
    const std::size_t equals = text.find('=');
    if (equals == std::string::npos || equals + 1 == text.size() || text.find('=', equals + 1) != std::string::npos)
        throw Refusal(refusal + text);
    return {text.substr(0, equals), text.substr(equals + 1)};
}

void readCgroups(const Given& given, JailerArguments& arguments) {
    const auto [begin, end] = given.equal_range("cgroup");
    for (auto at = begin; at != end; ++at) {
        auto [file, value] = halves(at->second, "Invalid format for cgroups: ");
        if (!isPlain(file) || file.find('.') == std::string::npos) throw Refusal("Cgroup invalid file: " + at->second);
        arguments.cgroups.emplace_back(std::move(file), std::move(value));
    }
}

void readLimits(const Given& given, JailerArguments& arguments) {
    const auto [begin, end] = given.equal_range("resource-limit");
    for (auto at = begin; at != end; ++at) {
        const auto [name, value] = halves(at->second, "Invalid format for resources limits: ");
        const auto number = toNumber<std::uint64_t>(value, "Invalid limit value for resource: ");
        if (name == "no-file") {
            arguments.openFiles = number;
        } else if (name == "fsize") {
            arguments.fileSize = number;
        } else {
            throw Refusal("Invalid resource argument: " + name);
        }
    }
}

Given read(const std::vector<std::string>& words, std::vector<std::string>& extra) {
    Given given;
    for (std::size_t i = 0; i < words.size(); ++i) {
        std::string name = words[i];
        if (name == "--") {
            extra.assign(words.begin() + static_cast<std::ptrdiff_t>(i) + 1, words.end());
            return given;
        }
        const bool isOption = name.starts_with("--");
        if (isOption) name.erase(0, 2);
        const auto* const found = std::ranges::find(known, std::string_view(name), &Known::name);
        if (!isOption || found == known.end()) {
            throw Refusal("Failed to parse arguments: Found argument '" + name +
                          "' which wasn't expected, or isn't valid in this context.");
        }
        if (!found->repeatable && given.contains(name))
            throw Refusal("Failed to parse arguments: The argument '" + name + "' was provided more than once.");
        std::string value;
        if (found->takesValue) {
            if (i + 1 >= words.size() || words[i + 1].starts_with("--")) {
                throw Refusal("Failed to parse arguments: The argument '" + name +
                              "' requires a value, but none was supplied.");
            }
            value = words[++i];
        }
        given.emplace(std::move(name), std::move(value));
    }
    return given;
}

}  // namespace

JailerArguments parseJailerArguments(const std::vector<std::string>& words) {
    JailerArguments arguments;
    const Given given = read(words, arguments.extra);
    if (given.contains("version")) {
        arguments.version = true;
        return arguments;
    }
    // Of no use to Mergen: its launcher enters the namespace, keeps the standard descriptors, and answers for the
    // process.
    for (const char* const never : {"netns", "daemonize", "new-pid-ns"}) {
        if (given.contains(never)) throw Refusal(std::string("Mergen must not say --") + never);
    }
    arguments.id = required(given, "id");
    const bool goodId = !arguments.id.empty() && arguments.id.size() <= 64 &&
                        std::ranges::all_of(arguments.id, [](unsigned char c) { return c == '-' || std::isalnum(c); });
    if (!goodId) throw Refusal("Invalid instance ID: " + arguments.id);
    arguments.execFile = canonical(required(given, "exec-file"));
    if (!fs::is_regular_file(arguments.execFile)) throw Refusal(arguments.execFile.string() + " is not a file");
    arguments.base = canonical(required(given, "chroot-base-dir"));  // the real one has a default that is not Mergen's
    if (!fs::is_directory(arguments.base)) throw Refusal(arguments.base.string() + " is not a directory");
    arguments.uid = toNumber<std::uint32_t>(required(given, "uid"), "Invalid uid: ");
    arguments.gid = toNumber<std::uint32_t>(required(given, "gid"), "Invalid gid: ");
    if (const auto parent = given.find("parent-cgroup"); parent != given.end()) {
        arguments.parentCgroup = parent->second;
        if (!isPlain(parent->second))
            throw Refusal("Parent cgroup path is invalid. Path should not be absolute or contain '..' or '.'");
    }
    if (const auto version = given.find("cgroup-version"); version != given.end()) {
        arguments.cgroupVersion = toNumber<unsigned>(version->second, "Invalid cgroup version: ");
        if (arguments.cgroupVersion != 1 && arguments.cgroupVersion != 2)
            throw Refusal(version->second + " is an invalid cgroup version specifier");
    }
    readCgroups(given, arguments);
    readLimits(given, arguments);
    if (std::ranges::find(arguments.extra, "--id") != arguments.extra.end())
        throw Refusal("--id is the jailer's to pass on, not to be given twice");
    return arguments;
}

}  // namespace mergen::fake
