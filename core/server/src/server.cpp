#include <algorithm>
#include <cerrno>
#include <chrono>
#include <ctime>
#include <unistd.h>
#include <utility>

#include <systemd/sd-daemon.h>

#include <mergen/api/access.hpp>
#include <mergen/base/file.hpp>
#include <mergen/base/trust.hpp>
#include <mergen/sdk/error.hpp>
#include <mergen/server/folders.hpp>
#include <mergen/server/server.hpp>
#include <mergen/server/vmm_choice.hpp>

namespace mergen::server {

namespace {

using std::chrono::milliseconds;

/// Tells systemd, if it started us with Type=notify; nothing otherwise. A failure changes nothing for us: sd_notify(3)
/// itself advises to ignore it.
void notify(const std::string& state) {
    static_cast<void>(::sd_notify(/*unset_environment=*/0, state.c_str()));
}

/// For Type=notify-reload, which wants the time at which the reload began beside the word.
void notifyReloading() {
    timespec now{};
    ::clock_gettime(CLOCK_MONOTONIC, &now);
    const std::int64_t microseconds = std::int64_t{now.tv_sec} * 1'000'000 + now.tv_nsec / 1000;
    notify("RELOADING=1\nMONOTONIC_USEC=" + std::to_string(microseconds));
}

std::vector<api::PluginRow> pluginRows(const std::vector<pluginhost::PluginInfo>& plugins) {
    std::vector<api::PluginRow> rows;
    for (const pluginhost::PluginInfo& plugin : plugins) {
        rows.push_back({plugin.kind,
                        plugin.name,
                        plugin.version,
                        plugin.file.string(),
                        std::string(pluginhost::toString(plugin.state)),
                        plugin.detail,
                        {plugin.settings.begin(), plugin.settings.end()}});
    }
    return rows;
}

}  // namespace

std::string version() {
    return MERGEN_VERSION;
}

pluginhost::PluginHostConfig pluginHostConfig(const ServerConfig& config, std::string instance) {
    const PathsSection& paths = config.paths;
    return {.directory = paths.pluginDir,
            .preflightProgram = paths.libexecDir / "mergen-preflight",
            .preflightTimeout = config.backends.preflightTimeout,
            .paths = {.configRoot = paths.configRoot,
                      .dataRoot = paths.dataRoot,
                      .runRoot = paths.runRoot,
                      .libexec = paths.libexecDir},
            .instance = std::move(instance),
            .network = {.guests = config.network.guestCidr,
                        .portStart = config.network.portStart,
                        .portEnd = config.network.portEnd}};
}

engine::EngineConfig engineConfig(const ServerConfig& config, std::string instance) {
    return {.instance = std::move(instance),
            .configRoot = config.paths.configRoot,
            .dataRoot = config.paths.dataRoot,
            .runRoot = config.paths.runRoot,
            .imageRoots = config.paths.imageRoots,
            .guestNetwork = config.network.guestCidr,
            .portStart = config.network.portStart,
            .portEnd = config.network.portEnd,
            .uidStart = config.vm.uidStart,
            .uidCount = config.vm.uidCount,
            .maxVms = config.vm.maxVms,
            .startTimeout = config.vm.startTimeout,
            .stopGrace = config.vm.stopGrace,
            .killGrace = config.vm.killGrace,
            .controlTimeout = config.vm.controlTimeout,
            .probeInterval = config.vm.probeInterval,
            .probeTimeout = config.vm.probeTimeout,
            .probeFailures = config.vm.probeFailures,
            .consoleLimit = config.vm.consoleLimit,
            .eventsPerVm = config.vm.eventsPerVm,
            .unitPrefix = config.vm.unitPrefix,
            .vmm = config.backends.vmms.front()};
}

Server::Server(ServerConfig config, Log& log) : config_(std::move(config)), log_(log) {}

Server::~Server() {
    removePortFile();
}

Problems Server::prepare() {
    prepareFolders(config_.paths, log_);
    dataLock_ = std::make_unique<RootLock>(config_.paths.dataRoot, "data root");
    runLock_ = std::make_unique<RootLock>(config_.paths.runRoot, "run root");
    instance_ = loadInstance(config_.paths.dataRoot);
    const std::filesystem::path& helpers = config_.paths.libexecDir;  // programs that we start as who we are
    static_cast<void>(trustedDirectory(helpers, "the folder " + helpers.string() + " of [paths] libexec_dir"));
    plugins_ = std::make_unique<pluginhost::PluginHost>(pluginHostConfig(config_, instance_), log_);
    Problems problems;
    Notes notes;
    resolvePlugins(config_, plugins_->scan(), problems, notes);
    access_ = loadAccess(config_, problems);
    writeNotes(notes, log_);
    return problems;
}

bool Server::start(const std::function<bool()>& stopRequested) {
    // Whoever waits for the file must not read the port of an earlier server that was killed.
    if (const auto& file = config_.server.portFile;
        !file.empty() && ::unlink(file.c_str()) != 0 && errno != ENOENT && errno != ENOTDIR) {
        throw Error::fromErrno(errno, "cannot remove the port_file of an earlier server, " + file.string());
    }
    const std::pair<const char*, void (Server::*)()> steps[] = {{"STATUS=Starting plugins", &Server::loadPlugins},
                                                                {"STATUS=Recovering VMs", &Server::makeEngine},
                                                                {"STATUS=Opening the API", &Server::serve}};
    for (const auto& [status, step] : steps) {
        if (stopRequested()) return false;
        notify(status);
        (this->*step)();
    }
    return true;
}

void Server::loadPlugins() {
    for (const pluginhost::PluginInfo& plugin : plugins_->plugins()) {
        if (plugin.state != pluginhost::PluginState::Failed) continue;
        log_.warning("plugin.refused",
                     {{"file", plugin.file.string()}, {"cause", plugin.detail}, {"effect", "the library is left out"}});
    }
    loaded_ = pluginsToLoad(config_, plugins_->plugins());
    for (const auto& [kind, name] : loaded_) plugins_->configure(kind, name, config_.settingsOf(kind, name));
    plugins_->start();
}

void Server::makeEngine() {
    engine::Backends backends{.storage = plugins_->storage(config_.backends.storage),
                              .supervisor = plugins_->supervisor(config_.backends.supervisor),
                              .network = plugins_->network(config_.backends.network),
                              .vmms = {},
                              .storageName = config_.backends.storage,
                              .supervisorName = config_.backends.supervisor,
                              .networkName = config_.backends.network};
    for (const auto& [kind, name] : loaded_) {
        if (kind == "vmm") backends.vmms.emplace(name, &plugins_->vmm(name));
    }
    engine::EngineConfig settings = engineConfig(config_, instance_);
    if (config_.backends.vmmAuto()) {
        VmmChoice choice = chooseVmm(backends.vmms);
        log_.info("vmm.chosen", {{"vmm", choice.name}, {"message", choice.reason}});
        settings.vmm = std::move(choice.name);
        settings.vmmChoice = std::move(choice.reason);
    }
    engine_ = std::make_unique<engine::Engine>(std::move(settings), std::move(backends), log_);
    engine_->recover();
}

void Server::serve() {
    const api::ApiConfig config{.host = config_.server.listen.host,
                                .port = config_.server.listen.port,
                                .socket = config_.socketPath(),
                                .socketGroup = access_.socketGroup,
                                .tokens = access_.tokens,
                                .vmUsers = ::geteuid() == 0 ? api::UidRange{config_.vm.uidStart, config_.vm.uidCount}
                                                            : api::UidRange{},  // else VMs run as we do
                                .insecure = config_.server.insecure,
                                .threads = config_.server.threads,
                                .maxQueued = config_.server.maxQueued,
                                .readTimeout = config_.server.readTimeout,
                                .maxBody = static_cast<std::size_t>(config_.server.maxBody.count),
                                .version = version()};
    // Nothing is loaded or unloaded any more, so that API threads need not ask the host, which knows one thread only.
    api_ = std::make_unique<api::ApiServer>(
        config, *engine_, [rows = pluginRows(plugins_->plugins())] { return rows; }, log_);
    const std::string url = config.host.empty() ? "unix:" + config.socket.string()
                                                : "http://" + toString(ListenAddress{config.host, api_->port()});
    logAccess();
    if (!config_.server.portFile.empty()) {
        writeFileAtomically(config_.server.portFile, std::to_string(api_->port()) + "\n", 0644);
        portFileWritten_ = true;
    }
    log_.info("server.ready", {{"message", "mergend " + version() + " listening on " + url},
                               {"version", version()},
                               {"url", url},
                               {"socket", config.socket.string()},
                               {"instance", instance_}});
    notify("READY=1\nSTATUS=Listening on " + url);
}

void Server::logAccess() const {
    const ServerSection& server = config_.server;
    if (const auto socket = config_.socketPath(); !socket.empty()) {
        const gid_t group = access_.socketGroup.value_or(::getegid());
        log_.info("api.socket", {{"path", socket.string()}, {"mode", "0660"}, {"gid", group}});
    }
    if (server.listen.host.empty()) return;
    const std::string address = toString(ListenAddress{server.listen.host, api_->port()});
    const bool tokens = access_.tokens != nullptr;
    if (api::isLoopback(server.listen.host)) {
        log_.info("api.loopback", {{"address", address},
                                   {"effect", "only this host is served: ':PORT' and 'localhost:PORT' mean loopback"},
                                   {"access", tokens ? "with a token" : "every user of this host, without a token"}});
    } else if (tokens) {
        log_.warning("api.cleartext", {{"address", address},
                                       {"effect",
                                        "other hosts are served with a token, which travels unencrypted: put "
                                        "TLS before it, or trust the network"}});
    } else {
        log_.warning("api.insecure", {{"address", address},
                                      {"effect",
                                       "INSECURE: whoever reaches this address can do all that the server "
                                       "can, as insecure = true and no token_file is set"}});
    }
}

void Server::reloadTokens() {
    if (access_.tokens == nullptr) return;
    try {
        access_.tokens->reload();
    } catch (const std::exception& error) {
        log_.error("api.tokens.kept", {{"cause", error.what()}, {"effect", "the tokens read before stay valid"}});
        return;
    }
    const std::size_t count = access_.tokens->current()->size();
    const std::string file = access_.tokens->path().string();
    const LogField fields[] = {
        {"file", file}, {"tokens", count}, {"effect", count == 0 ? "no request over TCP is let in any more" : ""}};
    log_.write(count == 0 ? LogLevel::Warning : LogLevel::Info, "api.tokens.reloaded", fields);
}

void Server::onReload(std::function<void(const ServerConfig&)> action) {
    onReload_.push_back(std::move(action));
}

void Server::reload(const Reading& read) {
    notifyReloading();
    Problems problems;
    Notes notes;
    ServerConfig next = read(problems, notes);
    // As they were found at the start: a library that has been replaced since is looked at by the next one.
    const std::vector<pluginhost::PluginInfo> plugins = plugins_->plugins();
    resolvePlugins(next, plugins, problems, notes);
    if (problems.empty()) {
        writeNotes(notes, log_);
        takeOver(next);
        sayWaiting(next, plugins);
        log_.info("config.reload.done");
    } else {
        for (const Problem& problem : problems) log_.error("config.reload.problem", {{"message", describe(problem)}});
        log_.error("config.reload.refused", {{"problems", problems.size()}, {"effect", "nothing has changed"}});
    }
    notify("READY=1");
}

void Server::takeOver(const ServerConfig& next) {
    // No rule of parseConfig() is over a key that is reloadable and one that is not, so that the mixture is in order.
    std::vector<const ConfigKey*> changed;
    for (const ConfigKey& key : configKeys()) {
        if (!key.traits.reloadable) continue;
        if (key.write(config_) != key.write(next)) changed.push_back(&key);
        key.read(config_, key.write(next));
        config_.origins[key.path()] = next.origins.at(key.path());
    }
    engine_->reconfigure(engineConfig(config_, instance_));
    for (const auto& action : onReload_) action(config_);
    for (const ConfigKey* const key : changed) {
        log_.info("config.reloaded", {{"key", key->path()},
                                      {"value", key->write(config_)},
                                      {"source", describe(config_.origins.at(key->path()))}});
    }
}

void Server::sayWaiting(const ServerConfig& next, std::span<const pluginhost::PluginInfo> plugins) {
    const auto say = [this](const std::string& key, const std::string& now, const std::string& then) {
        if (now == then) return;
        log_.warning("config.reload.waits",
                     {{"key", key}, {"in_force", now}, {"given", then}, {"effect", "holds from the next start on"}});
    };
    for (const ConfigKey& key : configKeys()) say(key.path(), key.write(config_), key.write(next));
    for (const pluginhost::PluginInfo& plugin : plugins) {
        if (plugin.state != pluginhost::PluginState::Ready) continue;
        const auto given = next.settingsOf(plugin.kind, plugin.name);
        for (const pluginhost::PluginKey& key : plugin.keys) {
            const auto now = plugin.settings.find(key.key);
            const auto then = given.find(key.key);
            say(plugin.kind + "." + plugin.name + "." + key.key,
                now == plugin.settings.end() ? key.defaultValue : now->second,
                then == given.end() ? key.defaultValue : then->second);
        }
    }
}

bool Server::drain() {
    notify("STOPPING=1\nSTATUS=Draining");
    removePortFile();
    const auto end = std::chrono::steady_clock::now() + config_.server.drainTimeout;
    const auto left = [end] {
        return std::max(milliseconds(0),
                        std::chrono::duration_cast<milliseconds>(end - std::chrono::steady_clock::now()));
    };
    api_->stop(left());
    if (!engine_->drain(left())) return false;
    api_.reset();
    engine_.reset();
    plugins_.reset();
    runLock_.reset();
    dataLock_.reset();
    return true;
}

void Server::removePortFile() noexcept {
    if (portFileWritten_) ::unlink(config_.server.portFile.c_str());
    portFileWritten_ = false;
}

}  // namespace mergen::server
