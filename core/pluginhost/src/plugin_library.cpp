#include <string_view>
#include <utility>

#include <mergen/base/trust.hpp>
#include <mergen/pluginhost/plugin_library.hpp>

#include "examine.hpp"
#include "guard.hpp"
#include "library.hpp"
#include "manifest.hpp"
#include "report.hpp"
#include "trust.hpp"

namespace mergen::pluginhost {

namespace fs = std::filesystem;

void refuse(PluginInfo& info, const std::string& stepAndCause) {
    info.state = PluginState::Failed;
    info.detail = info.file.string() + ": " + stepAndCause;
}

void take(PluginInfo& info, const Verdict& verdict) {
    if (verdict.manifest) {
        info.kind = verdict.manifest->kind;
        info.name = verdict.manifest->name;
        info.version = verdict.manifest->version;
        info.keys = verdict.manifest->keys;
    }
    if (!verdict.refusal.empty()) refuse(info, verdict.refusal);
}

PluginInfo examineLibrary(const fs::path& file, const fs::path& preflightProgram, std::chrono::milliseconds timeout,
                          Trust trust) {
    PluginInfo info;
    info.file = file;
    fs::path path = file;
    try {
        if (trust == Trust::Checked) {
            const fs::path folder = file.parent_path();
            path = trustedFile(trustedDirectory(folder, "the plugin folder " + folder.string()), file).path;
        }
    } catch (const Error& error) {
        throw error.within(file.string() + ": " + std::string(report::checking));
    }
    take(info, preflight(preflightProgram, path, timeout));
    return info;
}

PluginLibrary::PluginLibrary(const fs::path& file, std::string what) : what_(std::move(what)) {
    const auto step = [&](std::string_view name) { return what_ + ": " + std::string(name); };
    library_ = guarded(step(report::opening), [&] { return openLibrary(file); });
    guarded(step(report::reading), [&] {
        manifest_ = findManifest(library_);
        ManifestCopy copy = readManifest(manifest_);
        kind_ = std::move(copy.kind);
        name_ = std::move(copy.name);
    });
}

void* PluginLibrary::create() const {
    const std::string step = what_ + ": " + std::string(report::creating);
    void* const object = guarded(step, manifest_->create);
    if (object == nullptr) throw Error(ErrorKind::FailedPrecondition, step + ": it gives no object (NULL)");
    return object;
}

}  // namespace mergen::pluginhost
