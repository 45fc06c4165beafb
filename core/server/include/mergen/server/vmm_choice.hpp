#pragma once

#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <mergen/pluginhost/plugin_host.hpp>
#include <mergen/sdk/vmm.hpp>
#include <mergen/server/config.hpp>

/// `vmm = auto`: Firecracker where its program is and KVM runs guests, QEMU elsewhere.
namespace mergen::server {

/// Kind and name of all plugins to load, in the order in which they start: those that the configuration names, and with
/// `vmm = auto` those of Firecracker and QEMU that are among `found`. Throws NotFound if there is neither.
[[nodiscard]] std::vector<std::pair<std::string, std::string>> pluginsToLoad(
    const ServerConfig& config, std::span<const pluginhost::PluginInfo> found);

struct VmmChoice {
    std::string name;
    std::string reason;  ///< "auto: qemu, because …"
};

/// The VMM for new VMs of those that `vmm = auto` has loaded and started.
[[nodiscard]] VmmChoice chooseVmm(const std::map<std::string, VmmBackend*>& loaded);

}  // namespace mergen::server
