#include <algorithm>
#include <optional>
#include <utility>

#include <mergen/base/file.hpp>
#include <mergen/base/trust.hpp>
#include <mergen/pluginhost/plugin_host.hpp>

#include "loaded_plugin.hpp"
#include "preflight.hpp"
#include "report.hpp"
#include "trust.hpp"

namespace mergen::pluginhost {

namespace fs = std::filesystem;

std::string_view toString(PluginState state) noexcept {
    switch (state) {
        case PluginState::Available:
            return "available";
        case PluginState::Ready:
            return "ready";
        case PluginState::NotApplicable:
            return "not_applicable";
        case PluginState::Failed:
            return "failed";
    }
    return "unknown";
}

class PluginHost::Impl {
public:
    Impl(PluginHostConfig config, Log& log) : config_(std::move(config)), log_(log) {}
    Impl(const Impl&) = delete;
    Impl& operator=(const Impl&) = delete;
    ~Impl() {
        stop();
        while (!selected_.empty()) selected_.pop_back();  // a vector would end the oldest first
    }

    const std::vector<PluginInfo>& scan();
    void configure(const std::string& kind, const std::string& name,
                   std::map<std::string, std::string, std::less<>> settings);
    void start();
    void stop() noexcept;
    [[nodiscard]] std::vector<PluginInfo> plugins() const;

    template <typename Interface>
    [[nodiscard]] Interface& get(std::string_view kind, const std::string& name) const {
        for (const Selected& selected : selected_) {
            if (selected.plugin && selected.plugin->kind() == kind && selected.plugin->name() == name) {
                return *static_cast<Interface*>(selected.plugin->object());
            }
        }
        throw Error(ErrorKind::NotFound, "no plugin " + std::string(kind) + "/" + name + " is configured");
    }

private:
    /// A file as it was when it was tried out.
    struct Tried {
        TrustedFile file;
        Verdict verdict;
    };
    /// A plugin that configure() was asked for: what came of it, and the plugin unless it failed before it was
    /// configured.
    struct Selected {
        PluginInfo info;
        std::unique_ptr<LoadedPlugin> plugin;
    };

    /// Looks at one file of the folder; `known` is what is known of it from the last time.
    PluginInfo look(const fs::path& directory, const fs::path& file, const std::map<fs::path, Tried>& known);
    [[nodiscard]] const PluginInfo& choose(const std::string& kind, const std::string& name) const;
    void load(Selected& selected, std::map<std::string, std::string, std::less<>> settings);

    PluginHostConfig config_;
    Log& log_;
    std::vector<PluginInfo> found_;    // by the last scan, sorted by file name
    std::map<fs::path, Tried> tried_;  // by PluginInfo::file; trusted files of the last scan
    std::vector<Selected> selected_;   // in order of configuration
};

PluginInfo PluginHost::Impl::look(const fs::path& directory, const fs::path& file,
                                  const std::map<fs::path, Tried>& known) {
    PluginInfo info;
    info.file = file;
    const auto refuse = [&](const std::string& stepAndCause) {
        info.state = PluginState::Failed;
        info.detail = file.string() + ": " + stepAndCause;
        return info;
    };
    const auto identify = [&]() -> std::optional<TrustedFile> {
        try {
            return trustedFile(directory, file);
        } catch (const Error& error) {
            refuse(std::string("checking the file: ") + error.what());
            return std::nullopt;
        }
    };

    const std::optional<TrustedFile> trusted = identify();
    if (!trusted) return info;
    const auto before = known.find(file);
    if (before != known.end() && before->second.file == *trusted) {
        tried_.insert(*before);
    } else {
        Verdict verdict = preflight(config_.preflightProgram, trusted->path, config_.preflightTimeout);
        const std::optional<TrustedFile> after = identify();
        if (!after) return info;
        if (*after != *trusted) return refuse("checking the file: it was changed while it was tried out");
        tried_.emplace(file, Tried{*trusted, std::move(verdict)});
    }

    const Verdict& verdict = tried_.at(file).verdict;
    if (verdict.manifest) {
        info.kind = verdict.manifest->kind;
        info.name = verdict.manifest->name;
        info.version = verdict.manifest->version;
        info.keys = verdict.manifest->keys;
    }
    return verdict.refusal.empty() ? info : refuse(verdict.refusal);
}

const std::vector<PluginInfo>& PluginHost::Impl::scan() {
    const fs::path directory = trustedDirectory(config_.directory, "the plugin folder " + config_.directory.string());
    const std::map<fs::path, Tried> known = std::exchange(tried_, {});
    found_.clear();
    std::map<std::pair<std::string, std::string>, fs::path> names;
    for (const std::string& entry : listDirectory(directory)) {
        if (!entry.ends_with(".so")) continue;
        PluginInfo info = look(directory, directory / entry, known);
        if (info.state != PluginState::Failed) {
            const auto [owner, isNew] = names.try_emplace({info.kind, info.name}, info.file);
            if (!isNew) {
                info.state = PluginState::Failed;
                info.detail = info.file.string() + ": " + std::string(report::reading) + ": the name " + info.kind +
                              "/" + info.name + " is taken by " + owner->second.string();
            }
        }
        found_.push_back(std::move(info));
    }
    return found_;
}

/// The library that is kind/name, or an error that says why there is none: best, what is wrong with the one that seems
/// to be meant.
const PluginInfo& PluginHost::Impl::choose(const std::string& kind, const std::string& name) const {
    const PluginInfo* broken = nullptr;
    std::string others;
    for (const PluginInfo& info : found_) {
        const bool meant = info.kind.empty() ? info.file.filename() == "mergen-" + kind + "-" + name + ".so"
                                             : info.kind == kind && info.name == name;
        if (info.state == PluginState::Failed) {
            if (meant) broken = &info;
        } else if (meant) {
            return info;
        } else if (info.kind == kind) {
            others += (others.empty() ? "" : ", ") + info.name;
        }
    }
    const std::string asked = "plugin " + kind + "/" + name;
    if (broken != nullptr) throw Error(ErrorKind::FailedPrecondition, asked + ": " + broken->detail);
    throw Error(ErrorKind::NotFound, "there is no " + asked + " in " + config_.directory.string() + "; of the kind " +
                                         kind + (others.empty() ? " there is none" : " there is " + others));
}

void PluginHost::Impl::load(Selected& selected, std::map<std::string, std::string, std::less<>> settings) {
    PluginInfo& info = selected.info;
    const std::string what = "plugin " + info.kind + "/" + info.name + " of " + info.file.string();
    const TrustedFile tried = tried_.at(info.file).file;
    auto plugin = std::make_unique<LoadedPlugin>(tried.path, what, config_, log_);
    // The loader opens by path: what it opened is what was tried out only if the path still means that.
    const fs::path directory = info.file.parent_path();
    if (trustedFile(directory, info.file) != tried || plugin->kind() != info.kind || plugin->name() != info.name) {
        throw Error(ErrorKind::Conflict, what + ": opening the library: the file was changed while it was loaded");
    }
    plugin->configure(std::move(settings));
    info.settings = plugin->settings()->all();
    selected.plugin = std::move(plugin);
}

void PluginHost::Impl::configure(const std::string& kind, const std::string& name,
                                 std::map<std::string, std::string, std::less<>> settings) {
    for (const Selected& selected : selected_) {
        if (selected.plugin && selected.info.kind == kind && selected.info.name == name) {
            throw Error(ErrorKind::AlreadyExists, "the plugin " + kind + "/" + name + " is configured already");
        }
    }
    scan();
    Selected& selected = selected_.emplace_back(Selected{choose(kind, name), nullptr});
    try {
        load(selected, std::move(settings));
    } catch (const Error& error) {
        selected.info.state = PluginState::Failed;
        selected.info.detail = error.what();
        throw;
    }
}

void PluginHost::Impl::start() {
    for (Selected& selected : selected_) {
        if (!selected.plugin || selected.plugin->started()) continue;
        try {
            selected.plugin->start();
        } catch (const Error& error) {
            selected.info.state =
                error.kind() == ErrorKind::NotSupported ? PluginState::NotApplicable : PluginState::Failed;
            selected.info.detail = error.what();
            throw;
        }
        selected.info.state = PluginState::Ready;
        selected.info.detail.clear();
    }
}

void PluginHost::Impl::stop() noexcept {
    for (auto selected = selected_.rbegin(); selected != selected_.rend(); ++selected) {
        if (!selected->plugin || !selected->plugin->started()) continue;
        selected->plugin->stop();
        selected->info.state = PluginState::Available;
    }
}

std::vector<PluginInfo> PluginHost::Impl::plugins() const {
    std::vector<PluginInfo> all = found_;
    for (const Selected& selected : selected_) {
        const auto same = std::ranges::find(all, selected.info.file, &PluginInfo::file);
        if (same != all.end()) {
            *same = selected.info;
        } else {
            all.push_back(selected.info);  // its file is gone, the plugin is not
        }
    }
    std::ranges::sort(all, {}, &PluginInfo::file);
    return all;
}

PluginHost::PluginHost(PluginHostConfig config, Log& log) : impl_(std::make_unique<Impl>(std::move(config), log)) {}
PluginHost::~PluginHost() = default;

const std::vector<PluginInfo>& PluginHost::scan() {
    return impl_->scan();
}

void PluginHost::configure(const std::string& kind, const std::string& name,
                           std::map<std::string, std::string, std::less<>> settings) {
    impl_->configure(kind, name, std::move(settings));
}

void PluginHost::start() {
    impl_->start();
}
void PluginHost::stop() noexcept {
    impl_->stop();
}

StorageBackend& PluginHost::storage(const std::string& name) {
    return impl_->get<StorageBackend>("storage", name);
}
SupervisorBackend& PluginHost::supervisor(const std::string& name) {
    return impl_->get<SupervisorBackend>("supervisor", name);
}
NetworkBackend& PluginHost::network(const std::string& name) {
    return impl_->get<NetworkBackend>("network", name);
}
VmmBackend& PluginHost::vmm(const std::string& name) {
    return impl_->get<VmmBackend>("vmm", name);
}

std::vector<PluginInfo> PluginHost::plugins() const {
    return impl_->plugins();
}

}  // namespace mergen::pluginhost
