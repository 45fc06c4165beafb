#pragma once

#include <memory>
#include <optional>
#include <sys/types.h>

#include <mergen/api/tokens.hpp>
#include <mergen/server/config.hpp>
#include <mergen/server/problem.hpp>

namespace mergen::server {

/// What `[server]` names outside the configuration file to say who may ask.
struct Access {
    std::shared_ptr<api::TokenFile> tokens;  ///< null: none is configured
    std::optional<gid_t> socketGroup;        ///< none: the server's own
};

/// Reads the token file and looks the group up; appends what is wrong to `problems`, with its line, and what it gives
/// must then not be used. Changes nothing.
[[nodiscard]] Access loadAccess(const ServerConfig& config, Problems& problems);

}  // namespace mergen::server
