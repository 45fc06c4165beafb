#pragma once

#include <string>

#include <mergen/pluginhost/plugin_host.hpp>

#include "preflight.hpp"

namespace mergen::pluginhost {

/// Makes `info` Failed: "<file>: <step>: <cause>".
void refuse(PluginInfo& info, const std::string& stepAndCause);

/// Writes into `info` what the preflight found.
void take(PluginInfo& info, const Verdict& verdict);

}  // namespace mergen::pluginhost
