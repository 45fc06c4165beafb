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
#include <mergen/server/vmm_choice.hpp>

namespace mergen::server {

namespace fs = std::filesystem;

namespace {

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

int refuse(const Problems& problems) {
    for (const Problem& problem : problems) std::cerr << describe(problem) << '\n';
    return exitCode::config;
}

void printNotes(const Notes& notes) {
    for (const Note& note : notes) std::cerr << "note: " << describe(note) << '\n';
}

/// Its section of the configuration; nothing if it has no settings.
void printSettings(const pluginhost::PluginInfo& plugin) {
    if (plugin.keys.empty()) return;
    const std::string section = plugin.kind + "." + plugin.name;
    std::cout << "\n[" << section << "]\n";
    for (const pluginhost::PluginKey& key : plugin.keys) {
        std::cout << "  " << key.key << (key.required ? "" : " = " + key.defaultValue) << "  (" << typeName(key.type)
                  << (key.required ? ", must be given" : "") << ")\n"
                  << "      " << variableFor(section, key.key) << '\n'
                  << wrapped(key.sentence, "      ");
    }
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
    options.addOption(Option("config", "",
                             "the configuration file; without it " + std::string(defaultConfigFile) +
                                 " if that exists, else the defaults")
                          .argument("FILE"));
    options.addOption(Option("conf-dir", "",
                             "the folder whose *.ini are read after that file, in byte order of names; without it "
                             "conf.d beside the file, if that exists")
                          .argument("FOLDER"));
    options.addOption(Option("set", "", "give one key a value, over what file, conf.d and environment say",
                             /*required=*/false)
                          .repeatable(true)
                          .argument("SECTION.KEY=VALUE"));
    options.addOption(Option("check-config", "",
                             "check the configuration and every plugin, print all that is wrong, "
                             "touch nothing, and end: 0 if all is well, else 1"));
    options.addOption(Option("print-config", "",
                             "print the configuration in force as an INI file with the origin of each value, and end"));
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
        places_.file = fs::absolute(value);
        return;
    }
    if (name == "conf-dir") {
        places_.directory = fs::absolute(value);
        return;
    }
    if (name == "set") {
        places_.assignments.push_back(value);
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
    config_ = load(problems_, notes_);
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

ServerConfig Application::load(Problems& problems, Notes& notes) {
    const ConfigInput input = readConfigInput(places_, problems);
    shown_ = nameOf(input);
    return parseConfig(input, installation_, problems, notes);
}

std::vector<pluginhost::PluginInfo> Application::resolve(pluginhost::PluginHost& host) {
    std::vector<pluginhost::PluginInfo> found = host.scan();
    resolvePlugins(config_, found, problems_, notes_);
    return found;
}

int Application::serve() {
    if (!problems_.empty()) return refuse(problems_);
    ServerLog log(STDERR_FILENO, config_.log.format, config_.log.level);
    Signals signals;
    Server server(config_, log);
    server.onReload([&log](const ServerConfig& now) { log.configure(now.log.format, now.log.level); });
    log.info("server.starting", {{"version", version()}, {"pid", ::getpid()}, {"config", shown_}});
    writeNotes(notes_, log);
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
        log.info("config.reload.started");
        server.reloadTokens();  // first, and whatever is wrong with the rest: a token is withdrawn for a reason
        server.reload([this](Problems& problems, Notes& notes) { return load(problems, notes); });
    }
    log.info("server.draining", {{"limit_ms", server.config().server.drainTimeout.count()}});
    if (!server.drain()) {
        log.warning("server.drain.incomplete",
                    {{"effect", "ending with operations in progress; the next start finishes or undoes them"}});
        ::_exit(exitCode::success);  // threads still use what the destructors would take away
    }
    log.info("server.stopped");
    return exitCode::success;
}

int Application::checkConfig() {
    static_cast<void>(loadAccess(config_, problems_));
    std::vector<std::string> refusals;
    std::vector<std::string> leftOut;
    try {
        pluginhost::PluginHost host(pluginHostConfig(config_, peekInstance(config_.paths.dataRoot)), nullLog());
        const std::vector<pluginhost::PluginInfo> found = resolve(host);
        for (const pluginhost::PluginInfo& plugin : found) {
            if (plugin.state == pluginhost::PluginState::Failed) leftOut.push_back(plugin.detail);
        }
        for (const auto& [kind, name] : pluginsToLoad(config_, found)) {
            const std::string section = kind + "." + name;
            const bool faulty = std::ranges::any_of(problems_, [&, &kind = kind](const Problem& problem) {
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
    static_cast<void>(refuse(problems_));
    for (const std::string& text : refusals) std::cerr << shown_ << ": " << printable(text, 2000) << '\n';
    for (const std::string& text : leftOut) std::cerr << "note: left out: " << printable(text, 2000) << '\n';
    printNotes(notes_);
    if (!problems_.empty() || !refusals.empty()) return exitCode::config;
    std::cout << shown_ << ": in order\n";
    return exitCode::success;
}

int Application::printConfig() {
    if (!problems_.empty()) return refuse(problems_);
    std::vector<pluginhost::PluginInfo> found;
    try {
        pluginhost::PluginHost host(pluginHostConfig(config_, peekInstance(config_.paths.dataRoot)), nullLog());
        found = resolve(host);
    } catch (const Error& error) {  // without plugins there is still the server's own part
        std::cerr << "note: the plugins are left out: " << printable(error.what(), 2000) << '\n';
    }
    printNotes(notes_);
    if (!problems_.empty()) return refuse(problems_);
    std::cout << render(config_, found);
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
        printSettings(plugin);
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
    std::cout
        << "\nExit status: " << exitCode::success << " done, " << exitCode::config << " configuration refused, "
        << exitCode::usage << " wrong option, " << exitCode::startFailed << " start failed, " << exitCode::interrupted
        << " ended by a second signal.\n"
        << "\nA value comes from, later ones winning: the default; the configuration file; conf.d; the environment; "
           "--set.\n"
        << "SIGHUP reads all of them again. Beside the variables below, MERGEN_FIRECRACKER_BIN, then "
           "FIRECRACKER_BINARY,\n"
           "give vmm.firecracker.binary a value; MGR_SYSTEMCTL_PATH is taken and has no effect.\n"
        << "\nKeys with their defaults and their environment variables, last those of the plugins in plugin_dir:\n";
    std::string section;
    for (const ConfigKey& key : configKeys()) {
        if (key.section != section) std::cout << "\n[" << key.section << "]\n";
        section = key.section;
        std::cout << "  " << key.key << " = " << key.defaultValue << "  (" << key.type << ")\n"
                  << "      " << key.variable() << '\n'
                  << wrapped(key.explanation(), "      ");
    }
    Signals::unblock();
    try {
        Problems problems;
        Notes notes;
        const ServerConfig defaults = parseConfig(ConfigInput{}, Installation::current(), problems, notes);
        pluginhost::PluginHost host(pluginHostConfig(defaults, /*instance=*/"00000000"), nullLog());
        for (const pluginhost::PluginInfo& plugin : host.scan()) printSettings(plugin);
    } catch (const Error& error) {
        std::cout << "\n(no plugins: " << printable(error.what(), 2000) << ")\n";
    }
    return exitCode::success;
}

}  // namespace mergen::server
