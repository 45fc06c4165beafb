#pragma once

#include <string>
#include <string_view>
#include <vector>

#include <mergen/server/config.hpp>
#include <mergen/server/config_input.hpp>
#include <mergen/server/ini.hpp>

/// The environment as a layer of the configuration.
namespace mergen::server {

/// What the environment says of the server's own keys, from what is weakest to what wins: MERGEN_STATE_DIR, the names
/// of the older programs, MERGEN_<SECTION>_<KEY>. What may be for a plugin (other MERGEN_…, isOldPluginVariable()) is
/// added to `others`. `source` is the layer's Origin::source.
[[nodiscard]] std::vector<IniSection> readEnvironment(const ConfigInput& input, std::size_t source,
                                                      std::vector<PendingVariable>& others, Problems& problems,
                                                      Notes& notes);

/// A variable of an older program for a plugin's setting.
[[nodiscard]] bool isOldPluginVariable(std::string_view name);

/// Every variable that means something to the server itself, without those of plugins.
[[nodiscard]] std::vector<std::string> knownVariables();

}  // namespace mergen::server
