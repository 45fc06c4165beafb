#include "loaded_plugin.hpp"

#include <new>
#include <span>
#include <utility>
#include <vector>

#include "guard.hpp"
#include "manifest.hpp"

namespace mergen::pluginhost {

namespace {

/// Passes lines on with the plugin's name in front of their fields.
class NamedLog final : public Log {
public:
    NamedLog(std::string plugin, Log& below) : plugin_(std::move(plugin)), below_(below) {}

    void write(LogLevel level, std::string_view event, std::span<const LogField> fields) noexcept override {
        try {
            std::vector<LogField> named{{"plugin", plugin_}};
            named.insert(named.end(), fields.begin(), fields.end());
            below_.write(level, event, named);
        } catch (const std::bad_alloc&) {
            below_.write(level, event, fields);  // better nameless than lost
        }
    }

private:
    std::string plugin_;
    Log& below_;
};

}  // namespace

/// The Host that one plugin sees.
class LoadedPlugin::Face final : public Host {
public:
    Face(Settings settings, std::string plugin, const PluginHostConfig& config, Log& log)
        : settings_(std::move(settings)), log_(std::move(plugin), log), config_(config) {}

    [[nodiscard]] const Settings& settings() const noexcept override { return settings_; }
    [[nodiscard]] Log& log() noexcept override { return log_; }
    [[nodiscard]] const HostPaths& paths() const noexcept override { return config_.paths; }
    [[nodiscard]] const std::string& instance() const noexcept override { return config_.instance; }
    [[nodiscard]] const NetworkPlan& networkPlan() const noexcept override { return config_.network; }

private:
    Settings settings_;
    NamedLog log_;
    const PluginHostConfig& config_;
};

void ObjectEnd::operator()(void* object) const noexcept {
    try {
        guarded([&] { destroy(object); });
    } catch (const Error& error) {
        log->warning("plugin.destroy.failed", {{"plugin", *what}, {"cause", error.what()}});
    }
}

LoadedPlugin::LoadedPlugin(const std::filesystem::path& file, std::string what, const PluginHostConfig& config,
                           Log& log)
    : library_(file, what), what_(std::move(what)), config_(config), log_(log) {
    object_ = {library_.create(), ObjectEnd{library_.destroy(), &what_, &log_}};
    plugin_ = asPlugin(kind(), object_.get());
}

LoadedPlugin::~LoadedPlugin() {
    stop();
}

const Settings* LoadedPlugin::settings() const noexcept {
    return face_ ? &face_->settings() : nullptr;
}

void LoadedPlugin::configure(std::map<std::string, std::string, std::less<>> given) {
    guarded(what_ + ": configure()", [&] {
        face_ =
            std::make_unique<Face>(Settings(library_.keys(), std::move(given)), kind() + "/" + name(), config_, log_);
        plugin_->configure(*face_);
    });
}

void LoadedPlugin::start() {
    guarded(what_ + ": start()", [&] { plugin_->start(); });
    started_ = true;
}

void LoadedPlugin::stop() noexcept {
    if (std::exchange(started_, false)) plugin_->stop();
}

}  // namespace mergen::pluginhost
