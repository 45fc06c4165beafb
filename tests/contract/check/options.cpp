#include "options.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <string_view>

#include <mergen/base/text.hpp>
#include <mergen/sdk/error.hpp>

#include "suite.hpp"

namespace mergen::check {

namespace fs = std::filesystem;

namespace {

[[noreturn]] void refuse(std::string_view word, std::string_view why) {
    throw Error(ErrorKind::InvalidArgument, printable(word) + ": " + std::string(why));
}

fs::path toPath(const std::string& text) {
    return fs::absolute(text).lexically_normal();
}

/// The folder of Mergen's helper programs, seen from ours, as mergend finds it.
fs::path installedLibexec() {
    const fs::path folder = fs::read_symlink("/proc/self/exe").parent_path();
    const fs::path installed = folder.parent_path() / "libexec" / "mergen";
    return fs::is_directory(installed) ? installed : folder;
}

std::chrono::seconds toDeadline(const std::string& option, const std::string& text) {
    unsigned value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size() || value < 1 || value > 86'400) {
        refuse(option, "'" + printable(text) + "' is no number of seconds from 1 to 86400");
    }
    return std::chrono::seconds(value);
}

constexpr std::array<std::string_view, 9> valued{"--set",   "--filter",      "--deadline",       "--program",
                                                 "--guest", "--guest-ready", "--guest-stopping", "--libexec",
                                                 "--json"};
bool isValued(std::string_view option) {
    return std::ranges::find(valued, option) != valued.end();
}

/// Takes one of `valued` with its value.
void take(Options& options, const std::string& option, const std::string& value) {
    if (option == "--set") {
        const std::size_t equals = value.find('=');
        if (equals == std::string::npos || equals == 0) refuse(option, "'" + printable(value) + "' is not KEY=VALUE");
        options.settings.insert_or_assign(value.substr(0, equals), value.substr(equals + 1));
    } else if (option == "--filter") {
        for (const std::string& glob : split(value, ':')) options.filters.push_back(glob);
    } else if (option == "--deadline") {
        options.deadline = toDeadline(option, value);
    } else if (option == "--program") {
        options.program = toPath(value);
    } else if (option == "--guest") {
        options.guest = toPath(value);
    } else if (option == "--guest-ready") {
        options.signs.ready = value;
    } else if (option == "--guest-stopping") {
        options.signs.shuttingDown = value;
    } else if (option == "--libexec") {
        options.libexec = toPath(value);
    } else {
        options.json = toPath(value);
    }
}

}  // namespace

Options parseOptions(const std::vector<std::string>& words) {
    Options options;
    options.libexec = installedLibexec();
    std::vector<std::string> plain;
    for (auto word = words.begin(); word != words.end(); ++word) {
        if (!word->starts_with('-')) {
            plain.push_back(*word);
        } else if (*word == "--help" || *word == "-h") {
            options.help = true;
        } else if (*word == "--list") {
            options.list = true;
        } else if (*word == "--verbose") {
            options.verbose = true;
        } else if (*word == "--guest-keeps-nothing") {
            options.signs.writesDisks = false;
        } else if (*word == "--no-trust-check") {
            options.trust = pluginhost::Trust::Waived;
        } else {
            const std::string& option = *word;
            if (!isValued(option)) refuse(option, "there is no such option");
            if (++word == words.end()) refuse(option, "needs a value");
            take(options, option, *word);
        }
    }
    if (options.help) return options;
    if (plain.size() != 2) refuse("KIND FILE.so", "both are needed, and nothing else");
    options.kind = plain[0];
    options.file = toPath(plain[1]);
    if (std::ranges::find(suites(), options.kind, &Suite::kind) == suites().end()) {
        refuse(options.kind, "there is no such kind: storage, supervisor, network, vmm");
    }
    return options;
}

std::string usage() {
    std::string text = R"(mergen-plugin-check KIND FILE.so [OPTION...]

Shows whether a plugin library keeps what Mergen promises of its kind, on this host: the suite that Mergen's own plugins
pass. Loads the library as mergend does, in a process of its own, so that a crash or a hang is a finding too.

  KIND                 storage, supervisor, network or vmm
  --set KEY=VALUE      a setting of the plugin, as the INI file would give it; may be repeated
  --filter GLOB:...    only promises whose name matches one of these
  --list               print the promises of the kind and check none
  --deadline SECONDS   how long one promise may take (180)
  --no-trust-check     take a library that others than root and you could change, as mergend would not
  --program FILE       vmm: the program that the plugin starts; promises that need it are skipped where it is missing
  --guest FOLDER       vmm: vmlinuz and rootfs.ext4, as guest/build-rootfs makes them
  --guest-ready TEXT, --guest-stopping TEXT
                       vmm: what it prints once it is up, and once it has heard Ctrl-Alt-Del, if it is another guest
  --guest-keeps-nothing
                       vmm: it does not write to its disks; promises that need that are skipped
  --libexec FOLDER     where mergen-preflight and Mergen's other helpers are (../libexec/mergen, or beside this program)
  --json FILE          write the report as JSON, too
  --verbose            show what the plugin prints, and where in the suite a promise broke

A line per promise: ok, FAILED with what was expected and what was seen, or skipped with the reason; the last line
counts. Exit status: 0 all kept, 1 a promise is broken, 2 it could not be checked.

What a kind needs of this host:
)";
    for (const Suite& suite : suites()) {
        text +=
            "  " + std::string(suite.kind) + std::string(12 - suite.kind.size(), ' ') + std::string(suite.needs) + "\n";
    }
    return text;
}

}  // namespace mergen::check
