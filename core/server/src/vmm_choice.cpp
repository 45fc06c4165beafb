#include <algorithm>
#include <array>

#include <mergen/sdk/error.hpp>
#include <mergen/server/vmm_choice.hpp>

namespace mergen::server {

namespace {
/// The one that is preferred first.
constexpr std::array candidates = {"firecracker", "qemu"};
}  // namespace

std::vector<std::pair<std::string, std::string>> pluginsToLoad(const ServerConfig& config,
                                                               std::span<const pluginhost::PluginInfo> found) {
    std::vector<std::pair<std::string, std::string>> all = config.backends.all();
    if (!config.backends.vmmAuto()) return all;
    const std::size_t others = all.size();
    for (const char* name : candidates) {
        const bool there = std::ranges::any_of(found, [&](const pluginhost::PluginInfo& plugin) {
            return plugin.kind == "vmm" && plugin.name == name && plugin.state != pluginhost::PluginState::Failed;
        });
        if (there) all.emplace_back("vmm", name);
    }
    if (all.size() > others) return all;
    throw Error(ErrorKind::NotFound,
                "backends.vmm = auto, but neither a firecracker nor a qemu plugin can be loaded from " +
                    config.paths.pluginDir.string());
}

VmmChoice chooseVmm(const std::map<std::string, VmmBackend*>& loaded) {
    const auto firecracker = loaded.find("firecracker");
    const auto qemu = loaded.find("qemu");
    if (firecracker == loaded.end()) return {"qemu", "auto: qemu, because there is no firecracker plugin"};
    const VmmFitness fitness = firecracker->second->fitness();
    if (fitness.fit) return {"firecracker", "auto: firecracker, because " + fitness.reason};
    if (qemu == loaded.end())
        return {"firecracker", "auto: firecracker, because there is no qemu plugin, although " + fitness.reason};
    return {"qemu", "auto: qemu, because firecracker does not fit: " + fitness.reason};
}

}  // namespace mergen::server
