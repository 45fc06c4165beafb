#include <algorithm>
#include <exception>
#include <fnmatch.h>
#include <iostream>
#include <string>
#include <string_view>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

#include <mergen/base/process.hpp>
#include <mergen/base/text.hpp>
#include <mergen/sdk/error.hpp>

#include "nursery.hpp"
#include "options.hpp"
#include "report.hpp"
#include "suite.hpp"

namespace mergen::check {

namespace {

constexpr int exitKept = 0, exitBroken = 1, exitUnchecked = 2;

/// Of what the library must pass before a process maps it for good.
constexpr std::chrono::seconds preflightTimeout{30};

pluginhost::PluginInfo examine(const Options& options) {
    try {
        return pluginhost::examineLibrary(options.file, options.libexec / "mergen-preflight", preflightTimeout,
                                          options.trust);
    } catch (const Error& error) {
        if (error.kind() != ErrorKind::PermissionDenied) throw;
        throw Error(error.kind(),
                    std::string(error.what()) +
                        "; mergend would not take it from there, --no-trust-check checks it all the same");
    }
}

/// Runs workers until every promise has been looked at, however many of them the library ends.
class Inspection {
public:
    explicit Inspection(const Options& options) : options_(options) {}

    int run();

private:
    /// Refuses what mergend would refuse before it used the plugin.
    void checkSettings() const;
    /// Names the promises, and shows that the library loads and starts; false if there is no use in going on.
    bool scout();
    void inspect();

    void hear(const Message& message);
    /// What the end of a worker says of the promise that was under test, if one was.
    void settle(const Nursery::End& end);
    [[nodiscard]] bool isWanted(const std::string& promise) const;

    const Options& options_;
    pluginhost::PluginInfo plugin_;
    Nursery nursery_;
    Report report_;
    std::vector<std::string> promises_;  // still to be looked at, in the suite's order
    std::string open_;                   // begun, and not told of yet
    std::string unfit_;                  // why this host cannot run the plugin
};

bool Inspection::isWanted(const std::string& promise) const {
    return options_.filters.empty() || std::ranges::any_of(options_.filters, [&](const std::string& glob) {
               return ::fnmatch(glob.c_str(), promise.c_str(), 0) == 0;
           });
}

void Inspection::checkSettings() const {
    for (const auto& [key, value] : options_.settings) {
        const auto known = std::ranges::find(plugin_.keys, key, &pluginhost::PluginKey::key);
        if (known == plugin_.keys.end()) {
            throw Error(ErrorKind::InvalidArgument, "the plugin has no setting '" + printable(key) + "'");
        }
        try {
            Settings::check(known->type, value);
        } catch (const Error& error) {
            throw error.within("--set " + key);
        }
    }
    for (const pluginhost::PluginKey& key : plugin_.keys) {
        if (key.required && !options_.settings.contains(key.key)) {
            throw Error(ErrorKind::InvalidArgument,
                        "the setting '" + key.key + "' must be given (--set): " + key.sentence);
        }
    }
}

void Inspection::hear(const Message& message) {
    const auto close = [&](Outcome outcome) {
        std::erase(promises_, open_);
        report_.add({open_, outcome, message.text});
        open_.clear();
    };
    if (message.word == "promise") {
        if (isWanted(message.text)) promises_.push_back(message.text);
    } else if (message.word == "begin") {
        open_ = message.text;
    } else if (message.word == "unfit") {
        unfit_ = message.text;
        open_.clear();
    } else if (message.word == "failed") {
        close(Outcome::Broken);
    } else if (message.word == "skipped") {
        close(Outcome::Skipped);
    } else if (message.word == "ok" && open_ != loading) {
        close(Outcome::Kept);
    } else {
        open_.clear();
    }
}

void Inspection::settle(const Nursery::End& end) {
    if (!end.timedOut && end.status == 0 && (open_.empty() || open_ == unloading)) {
        if (!open_.empty()) report_.add({open_, Outcome::Kept, {}});
        open_.clear();
        return;
    }
    std::string text = "expected: the plugin comes to an end with it\nseen: ";
    if (end.timedOut) {
        text += "nothing happened for " + std::to_string(options_.deadline.count()) + " s";
    } else {
        text += "the process ended, with " + describeStatus(end.status);
    }
    if (!end.words.empty()) text += "\nit said:\n" + end.words;
    const std::string promise = open_.empty() ? std::string(unloading) : open_;
    std::erase(promises_, promise);
    open_.clear();
    report_.add({promise, Outcome::Broken, text});
}

bool Inspection::scout() {
    const Nursery::End end =
        nursery_.run(options_, {}, options_.deadline, [this](const Message& message) { hear(message); });
    if (!unfit_.empty()) throw Error(ErrorKind::NotSupported, "this host cannot run the plugin: " + unfit_);
    settle(end);
    return report_.allKept();
}

void Inspection::inspect() {
    const std::size_t all = promises_.size();
    while (!promises_.empty()) {
        const std::size_t before = promises_.size();
        settle(nursery_.run(options_, {.promises = promises_}, options_.deadline,
                            [this](const Message& message) { hear(message); }));
        if (promises_.size() < before) continue;
        if (report_.allKept()) {
            throw Error(ErrorKind::Internal, "the suite does not know '" + promises_.front() + "'");
        }
        return;  // the library could not be used a second time, which has been said
    }
    if (all == 0) throw Error(ErrorKind::InvalidArgument, "--filter: no promise has such a name; see --list");
}

int Inspection::run() {
    plugin_ = examine(options_);
    if (plugin_.state == pluginhost::PluginState::Failed) {
        report_.add({std::string(loading), Outcome::Broken, plugin_.detail});
    } else if (plugin_.kind != options_.kind) {
        throw Error(ErrorKind::InvalidArgument,
                    "it is a plugin of the kind " + plugin_.kind + ", not " + options_.kind);
    } else {
        checkSettings();
        if (options_.list) {
            scout();
            for (const std::string& promise : promises_) std::cout << promise << '\n';
            return exitKept;
        }
        std::cout << plugin_.kind << "/" << plugin_.name << " " << plugin_.version << ", " << options_.file.string()
                  << '\n';
        if (::geteuid() != 0) std::cout << "not as root: what needs root is skipped or fails\n";
        report_.add({std::string(loading), Outcome::Kept, {}});
        if (scout()) inspect();
    }
    if (!options_.json.empty()) report_.writeJson(options_.json, plugin_);
    std::cout << report_.summary() << '\n';
    return report_.allKept() ? exitKept : exitBroken;
}

int checkPlugin(const std::vector<std::string>& words) {
    try {
        const Options options = parseOptions(words);
        if (options.help) {
            std::cout << usage();
            return exitKept;
        }
        return Inspection(options).run();
    } catch (const std::exception& error) {
        std::cout.flush();
        std::cerr << "mergen-plugin-check: " << error.what() << '\n';
        return exitUnchecked;
    }
}

}  // namespace

}  // namespace mergen::check

int main(int count, char** words) {
    return mergen::check::checkPlugin({words + 1, words + count});
}
