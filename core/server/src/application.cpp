#include "application.hpp"

#include <algorithm>
#include <iostream>
#include <sstream>
#include <unistd.h>

#include <Poco/Exception.h>
#include <Poco/Util/HelpFormatter.h>
#include <Poco/Util/Option.h>
#include <Poco/Util/OptionSet.h>

#include <mergen/api/tokens.hpp>
#include <mergen/base/text.hpp>
#include <mergen/pluginhost/plugin_host.hpp>
#include <mergen/sdk/error.hpp>
#include <mergen/sdk/plugin.hpp>
#include <mergen/server/access.hpp>
#include <mergen/server/exit_code.hpp>
#include <mergen/server/instance.hpp>
#include <mergen/server/log.hpp>
#include <mergen/server/server.hpp>
#include <mergen/server/signals.hpp>

namespace mergen::server {

namespace fs = std::filesystem;

namespace {

constexpr const char* defaultFile = "/etc/mergen/mergen.ini";

int usageError(const std::string& text) {
    std::cerr << "mergend: " << printable(text) << "\nTry 'mergend --help'.\n";
    return exitCode::usage;
}

std::string_view typeName(mergen_key_type type) noexcept {
    switch (type) {
        case MERGEN_KEY_STRING:
            return "text";
        case MERGEN_KEY_INTEGER:
            return "integer";
        case MERGEN_KEY_BOOLEAN:
            return "boolean";
        case MERGEN_KEY_DURATION:
            return "duration";
        case MERGEN_KEY_SIZE:
            return "size";
        case MERGEN_KEY_PATH:
            return "path";
    }
    return "text";
}

/// `text` in lines of at most 100 columns, each after `indent`.
std::string wrapped(std::string_view text, const std::string& indent) {
    std::string result;
    std::string line = indent;
    for (const std::string& word : split(text, ' ')) {
        if (line.size() > indent.size() && line.size() + 1 + word.size() > 100) {
            result += line + "\n";
            line = indent;
        }
        line += (line.size() > indent.size() ? " " : "") + word;
    }
    return result + line + "\n";
}

/// Columns as wide as their widest cell, but for the last.
std::string table(const std::vector<std::vector<std::string>>& rows) {
    std::vector<std::size_t> widths;
    for (const auto& row : rows) {
        widths.resize(std::max(widths.size(), row.size()), 0);
        for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
    }
    std::string text;
    for (const auto& row : rows) {
        for (std::size_t i = 0; i < row.size(); ++i) {
            text += row[i];
            if (i + 1 < row.size()) text += std::string(widths[i] - row[i].size() + 2, ' ');
        }
        text += '\n';
    }
    return text;
}

}  // namespace

int Application::execute(int argc, char** argv) {
    try {
        init(argc, argv);
    } catch (const Poco::Exception& error) {
        return usageError(error.displayText());
    }
    return Poco::Util::Application::run();
}

void Application::defineOptions(Poco::Util::OptionSet& options) {
    using Poco::Util::Option;
    Poco::Util::Application::defineOptions(options);  // not ServerApplication's: --daemon, --umask, --pidfile
    options.addOption(
        Option("config", "",
               "the configuration file; without it " + std::string(defaultFile) + " if that exists, else the defaults")
            .argument("FILE"));
    options.addOption(Option("check-config", "",
                             "check the configuration file and every plugin, print all that is wrong, "
                             "touch nothing, and end: 0 if all is well, else 1"));
    options.addOption(Option("print-config", "", "print the configuration in force as an INI file, and end"));
    options.addOption(Option("list-plugins", "", "print the plugins found with their settings, and end"));
    options.addOption(Option("new-token", "",
                             "print a new token for the API and, on a second line, what belongs into the token_file to "
                             "let it in; nothing is kept")
                          .argument("NAME"));
    options.addOption(Option("version", "V", "print the version, and end"));
    options.addOption(Option("help", "h", "print this, and end"));
}

void Application::handleOption(const std::string& name, const std::string& value) {
    if (name == "config") {
        file_ = fs::absolute(value);
        return;
    }
    if (name == "new-token") {
        mode_ = Mode::NewToken;
        tokenName_ = value;
        return;
    }
    const std::pair<const char*, Mode> modes[] = {{"check-config", Mode::CheckConfig},
                                                  {"print-config", Mode::PrintConfig},
                                                  {"list-plugins", Mode::ListPlugins},
                                                  {"version", Mode::Version},
                                                  {"help", Mode::Help}};
    for (const auto& [option, mode] : modes) {
        if (name == option) mode_ = mode;
    }
    if (mode_ == Mode::Help || mode_ == Mode::Version) stopOptionsProcessing();
}

int Application::main(const std::vector<std::string>& arguments) {
    if (mode_ == Mode::Help) return printHelp();
    if (mode_ == Mode::Version) {
        std::cout << "mergend " << version() << " (plugin SDK " << MERGEN_SDK_MAJOR << "." << MERGEN_SDK_MINOR << ", "
                  << buildFingerprint() << ")\n";
        return exitCode::success;
    }
    if (!arguments.empty()) return usageError("'" + arguments.front() + "' is no option");
    if (mode_ == Mode::NewToken) return printNewToken();
    if (mode_ != Mode::Serve) Signals::unblock();
    try {
        load();
    } catch (const Error& error) {
        std::cerr << error.what() << '\n';
        return exitCode::config;
    }
    switch (mode_) {
        case Mode::CheckConfig:
            return checkConfig();
        case Mode::PrintConfig:
            return printConfig();
        case Mode::ListPlugins:
            return listPlugins();
        case Mode::Serve:
        case Mode::NewToken:
        case Mode::Help:
        case Mode::Version:
            break;
    }
    return serve();
}

void Application::load() {
    std::string text;
    std::error_code ignored;
    if (file_ || fs::exists(defaultFile, ignored)) {
        shown_ = file_.value_or(defaultFile);
        text = readConfigFile(shown_);
    } else {
        shown_ = "(defaults)";
    }
    config_ = parseConfig(text, Installation::current(), problems_);
}

int Application::refuse(const Problems& problems) const {
    for (const Problem& problem : problems) std::cerr << describe(problem, shown_) << '\n';
    return exitCode::config;
}

int Application::serve() {
    if (!problems_.empty()) return refuse(problems_);
    ServerLog log(STDERR_FILENO, config_.log.format, config_.log.level);
    Signals signals;
    Server server(config_, log);
    log.info("server.starting", {{"version", version()}, {"pid", ::getpid()}, {"config", shown_.string()}});
    try {
        if (const Problems problems = server.prepare(); !problems.empty()) return refuse(problems);
        if (!server.start([&signals] { return signals.stopRequested(); })) {
            log.info("server.stopped", {{"reason", "asked to stop while it started"}});
            return exitCode::success;
        }
    } catch (const std::exception& error) {  // Error, or what Poco and the standard library throw
        log.error("server.start.failed", {{"cause", error.what()}});
        return exitCode::startFailed;
    }
    while (signals.wait() == Signals::Event::Hangup) {
        server.reloadTokens();
        log.info("server.hangup", {{"effect", "a changed configuration is read at the next start"}});
    }
    log.info("server.draining", {{"limit_ms", config_.server.drainTimeout.count()}});
    if (!server.drain()) {
        log.warning("server.drain.incomplete",
                    {{"effect", "ending with operations in progress; the next start finishes or undoes them"}});
        ::_exit(exitCode::success);  // threads still use what the destructors would take away
    }
    log.info("server.stopped");
    return exitCode::success;
}

int Application::checkConfig() {
    Problems problems = std::move(problems_);
    static_cast<void>(loadAccess(config_, problems));
    std::vector<std::string> refusals;
    std::vector<std::string> notes;
    try {
        pluginhost::PluginHost host(pluginHostConfig(config_, peekInstance(config_.paths.dataRoot)), nullLog());
        const auto& found = host.scan();
        checkPluginSections(config_, found, problems);
        for (const pluginhost::PluginInfo& plugin : found) {
            if (plugin.state == pluginhost::PluginState::Failed) notes.push_back(plugin.detail);
        }
        for (const auto& [kind, name] : config_.backends.all()) {
            const std::string section = kind + "." + name;
            const bool faulty = std::ranges::any_of(problems, [&, &kind = kind](const Problem& problem) {
                return problem.where.starts_with(section + ".") || problem.where == "backends." + kind;
            });
            if (faulty) continue;  // said already, with its line
            try {
                host.configure(kind, name, config_.settingsOf(kind, name));
            } catch (const Error& error) {
                refusals.push_back("[" + section + "]: " + error.what());
            }
        }
    } catch (const Error& error) {
        refusals.emplace_back(error.what());
    }
    static_cast<void>(refuse(problems));
    for (const std::string& text : refusals) std::cerr << shown_.string() << ": " << printable(text, 2000) << '\n';
    for (const std::string& text : notes) std::cerr << "note: left out: " << printable(text, 2000) << '\n';
    if (!problems.empty() || !refusals.empty()) return exitCode::config;
    std::cout << shown_.string() << ": in order\n";
    return exitCode::success;
}

int Application::printConfig() {
    if (!problems_.empty()) return refuse(problems_);
    std::cout << render(config_);
    return exitCode::success;
}

int Application::listPlugins() {
    if (!problems_.empty()) return refuse(problems_);
    std::vector<pluginhost::PluginInfo> plugins;
    try {
        pluginhost::PluginHost host(pluginHostConfig(config_, peekInstance(config_.paths.dataRoot)), nullLog());
        plugins = host.scan();
    } catch (const Error& error) {
        std::cerr << error.what() << '\n';
        return exitCode::startFailed;
    }
    std::vector<std::vector<std::string>> rows = {{"KIND", "NAME", "VERSION", "STATE", "FILE"}};
    for (const pluginhost::PluginInfo& plugin : plugins) {
        rows.push_back({plugin.kind, plugin.name, plugin.version, std::string(pluginhost::toString(plugin.state)),
                        plugin.file.string()});
    }
    std::cout << table(rows);
    for (const pluginhost::PluginInfo& plugin : plugins) {
        if (!plugin.detail.empty())
            std::cout << '\n' << plugin.file.string() << ":\n" << wrapped(plugin.detail, "    ");
        if (plugin.keys.empty()) continue;
        std::cout << "\n[" << plugin.kind << '.' << plugin.name << "]\n";
        for (const pluginhost::PluginKey& key : plugin.keys) {
            std::cout << "  " << key.key << (key.required ? "" : " = " + key.defaultValue) << "  ("
                      << typeName(key.type) << (key.required ? ", must be given" : "") << ")\n"
                      << wrapped(key.sentence, "      ");
        }
    }
    return exitCode::success;
}

int Application::printNewToken() const {
    try {
        const api::NewToken made = api::newToken(tokenName_);
        std::cout << made.token << '\n' << made.line << '\n';
        return exitCode::success;
    } catch (const Error& error) {
        if (error.kind() == ErrorKind::InvalidArgument) return usageError(error.what());
        std::cerr << "mergend: " << error.what() << '\n';
        return exitCode::startFailed;
    }
}

int Application::printHelp() const {
    Poco::Util::HelpFormatter formatter(options());
    formatter.setUnixStyle(true);
    formatter.setCommand("mergend");
    formatter.setUsage("[OPTION]...");
    formatter.setHeader(
        "Runs microVMs and serves their REST API. SIGTERM and SIGINT drain and leave the VMs running; a "
        "second one ends the server at once.");
    formatter.setWidth(100);
    formatter.setAutoIndent();
    formatter.format(std::cout);
    std::cout << "\nExit status: " << exitCode::success << " done, " << exitCode::config << " configuration refused, "
              << exitCode::usage << " wrong option, " << exitCode::startFailed << " start failed, "
              << exitCode::interrupted << " ended by a second signal.\n"
              << "\nKeys of the configuration file with their defaults (those of plugins: --list-plugins):\n";
    std::string section;
    for (const ConfigKey& key : configKeys()) {
        if (key.section != section) std::cout << "\n[" << key.section << "]\n";
        section = key.section;
        std::cout << "  " << key.key << " = " << key.defaultValue << "  (" << key.type << ")\n"
                  << wrapped(key.sentence, "      ");
    }
    return exitCode::success;
}

}  // namespace mergen::server
