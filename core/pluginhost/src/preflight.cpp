#include "preflight.hpp"

#include <csignal>
#include <string>
#include <sys/wait.h>
#include <unistd.h>
#include <utility>

#include <mergen/base/process.hpp>
#include <mergen/base/text.hpp>

#include "report.hpp"

namespace mergen::pluginhost {

namespace {

/// A report of 256 settings with the longest texts: 256 * 3 KiB.
constexpr std::size_t outputLimit = 1U << 20U;

/// What the library or the C++ runtime said on standard error before the end, on one line.
std::string lastWords(std::string_view errors) {
    std::string words;
    for (const std::string& line : split(errors, '\n')) {
        const std::string_view said = trim(line);
        if (said.empty()) continue;
        words += (words.empty() ? "" : "; ") + std::string(said);
    }
    return words.empty() ? "" : " (it said: " + printable(words, 300) + ")";
}

std::string describeDeath(int status) {
    std::string text = "it ended the process that tried it, with " + describeStatus(status);
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS) text += ", as a file that is cut short does";
    return text;
}

}  // namespace

Verdict preflight(const std::filesystem::path& program, const std::filesystem::path& file,
                  std::chrono::milliseconds timeout) {
    SpawnOptions options;
    options.arguments = {program.string(), file.string()};
    // The library must meet what it will meet in this process: the same search path for what it depends on, above all.
    for (char** variable = ::environ; *variable != nullptr; ++variable) options.environment.emplace_back(*variable);
    options.newSession = true;
    const RunResult result = run(options, timeout, outputLimit);

    report::Report report;
    try {
        report = report::parse(result.output);
    } catch (const Error& error) {
        return {std::nullopt, std::string("trying it out: ") + error.what()};
    }
    Verdict verdict{std::move(report.manifest), {}};
    const std::string step = (report.step.empty() ? "before it was opened" : report.step) + ": ";
    if (report.refusal) {
        verdict.refusal = step + *report.refusal;
    } else if (result.timedOut) {
        verdict.refusal = step + "it did not come to an end within " + std::to_string(timeout.count()) + " ms" +
                          lastWords(result.errors);
    } else if (result.status != 0 || !report.done) {
        verdict.refusal = step + describeDeath(result.status) + lastWords(result.errors);
    }
    return verdict;
}

}  // namespace mergen::pluginhost
