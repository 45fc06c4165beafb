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
/// of the older programs, MERGEN_<SECTION>_<KEY>. Adds the variables MERGEN_… that are none of these, which may be for
/// plugins, to `others`. `source` is the layer's Origin::source.
[[nodiscard]] std::vector<IniSection> readEnvironment(const ConfigInput& input, std::size_t source,
                                                      std::vector<PendingVariable>& others, Problems& problems,
                                                      Notes& notes);

/// Every variable that means something to the server itself, without those of plugins.
[[nodiscard]] std::vector<std::string> knownVariables();

/// Whether a value from the environment or the command line can stand in a file; else a problem, or a note if the
/// origin is not strict, has been added.
bool checkOutsideValue(std::string_view value, const Origin& origin, const std::string& where, Problems& problems,
                       Notes& notes);

/// The note for a value that was passed over.
[[nodiscard]] Note ignored(const Origin& origin, const std::string& where, const std::string& reason);

}  // namespace mergen::server
