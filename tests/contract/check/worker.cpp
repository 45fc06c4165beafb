#include "worker.hpp"

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <memory>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <gtest/gtest.h>

#include <mergen/base/file.hpp>
#include <mergen/sdk/error.hpp>

#include "isolation.hpp"
#include "suite.hpp"

namespace mergen::check {

namespace {

class Reporter {
public:
    explicit Reporter(const Task& task) : task_(task) {}

    void say(std::string_view word, std::string text = {}) const {
        writeAll(task_.report, Message{std::string(word), std::move(text)}.line(), "the report");
    }
    /// From here on, what is printed and what the process dies of belong to this promise.
    void begin(std::string_view promise) const {
        static_cast<void>(std::fflush(nullptr));
        if (task_.output >= 0) static_cast<void>(::ftruncate(task_.output, 0));
        say("begin", std::string(promise));
    }

private:
    const Task& task_;
};

/// "PutWritesIt" of GoogleTest's "PutWritesIt/0".
std::string promiseOf(const testing::TestInfo& info) {
    const std::string name = info.name();
    return name.substr(0, name.find('/'));
}

/// Turns what GoogleTest says into our report.
class Listener final : public testing::EmptyTestEventListener {
public:
    Listener(const Reporter& reporter, bool verbose) : reporter_(reporter), verbose_(verbose) {}

    void OnTestStart(const testing::TestInfo& info) override {
        text_.clear();
        reporter_.begin(promiseOf(info));
    }
    void OnTestPartResult(const testing::TestPartResult& part) override {
        if (part.passed()) return;
        if (!text_.empty()) text_ += '\n';
        if (verbose_ && part.file_name() != nullptr && !part.skipped()) {
            text_ += std::filesystem::path(part.file_name()).filename().string() + ":" +
                     std::to_string(part.line_number()) + ": ";
        }
        text_ += part.summary();
    }
    void OnTestEnd(const testing::TestInfo& info) override {
        const testing::TestResult& result = *info.result();
        reporter_.say(result.Failed() ? "failed" : result.Skipped() ? "skipped" : "ok", text_);
    }

private:
    const Reporter& reporter_;
    bool verbose_;
    std::string text_;
};

/// The process goes down with its parent, writes no core, and has the plugin's words where they can be found.
void settleIn(const Task& task) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    const rlimit none{0, 0};
    ::setrlimit(RLIMIT_CORE, &none);
    if (task.output >= 0) {
        ::dup2(task.output, STDOUT_FILENO);
        ::dup2(task.output, STDERR_FILENO);
    }
}

/// Lets GoogleTest know its cases: those of the kind whose suite is in use.
void initialise(const std::string& filter) {
    int count = 1;
    std::string name = "mergen-plugin-check";
    char* words[] = {name.data(), nullptr};
    GTEST_FLAG_SET(output, "");  // the environment's wishes are about other programs
    testing::InitGoogleTest(&count, static_cast<char**>(words));
    GTEST_FLAG_SET(filter, filter);
}

std::string filterOf(const std::vector<std::string>& promises) {
    std::string filter;
    for (const std::string& promise : promises) filter += (filter.empty() ? "*." : ":*.") + promise + "/0";
    return filter;
}

void namePromises(const Reporter& reporter) {
    const testing::UnitTest& all = *testing::UnitTest::GetInstance();
    for (int suite = 0; suite < all.total_test_suite_count(); ++suite) {
        const testing::TestSuite& one = *all.GetTestSuite(suite);
        for (int test = 0; test < one.total_test_count(); ++test) {
            reporter.say("promise", promiseOf(*one.GetTestInfo(test)));
        }
    }
}

/// Whether it starts; says so.
bool tryStart(const Suite& suite, const Subject& subject, const Reporter& reporter) {
    reporter.begin(starting);
    try {
        suite.tryOut(subject);
    } catch (const Error& error) {
        reporter.say(error.kind() == ErrorKind::NotSupported ? "unfit" : "failed", error.what());
        return false;
    } catch (const std::exception& error) {
        reporter.say("failed", std::string("it throws what is no mergen::Error: ") + error.what());
        return false;
    }
    reporter.say("ok");
    return true;
}

}  // namespace

std::string Message::line() const {
    std::string line = word + '\t' + text;
    std::ranges::replace(line, '\n', lineBreak);
    return line + '\n';
}

Message Message::parse(std::string_view line) {
    const std::size_t tab = std::min(line.find('\t'), line.size());
    Message message{std::string(line.substr(0, tab)), std::string(line.substr(std::min(tab + 1, line.size())))};
    std::ranges::replace(message.text, lineBreak, '\n');
    return message;
}

void work(const Options& options, const Task& task) {
    settleIn(task);
    const Reporter reporter(task);
    if (options.kind == "network" && ::geteuid() == 0) {
        try {
            isolateNetwork();
        } catch (const Error& error) {
            reporter.say("unfit", error.what());
            std::exit(EXIT_FAILURE);
        }
    }
    int status = EXIT_SUCCESS;
    try {
        reporter.begin(loading);
        auto library = std::make_unique<pluginhost::PluginLibrary>(options.file, options.kind + " plugin");
        reporter.say("ok");

        const Suite& suite = *std::ranges::find(suites(), options.kind, &Suite::kind);
        const Subject subject{library.get(),   options.settings, options.program,
                              options.libexec, options.guest,    options.signs};
        suite.use(subject);
        initialise(filterOf(task.promises));
        if (task.promises.empty()) {
            namePromises(reporter);
            if (!options.list) static_cast<void>(tryStart(suite, subject, reporter));
        } else {
            testing::TestEventListeners& listeners = testing::UnitTest::GetInstance()->listeners();
            delete listeners.Release(listeners.default_result_printer());
            listeners.Append(new Listener(reporter, options.verbose));  // GoogleTest owns it
            [[maybe_unused]] const int told = RUN_ALL_TESTS();          // by the listener, one by one
            reporter.begin(unloading);                                  // it is kept if the process comes to a good end
        }
        library.reset();
    } catch (const Error& error) {
        reporter.say("failed", error.what());
        status = EXIT_FAILURE;
    }
    std::exit(status);  // with what the library has left to the end of the process
}

}  // namespace mergen::check
