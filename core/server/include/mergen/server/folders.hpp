#pragma once

#include <mergen/sdk/log.hpp>
#include <mergen/server/config.hpp>

namespace mergen::server {

/// Makes the three base folders that are missing, and `<data_root>/images` if that is where images are: config_root
/// 0750, data_root 0751, run_root 0711. Each VM's own uid must reach its folder below the last two, and nothing else.
///
/// Throws Error(PermissionDenied) if a base folder belongs to neither root nor us, if others may write to it, or if, as
/// root, a folder on the way to data_root or run_root cannot be passed by the VMs' uids: better here than as a VM that
/// does not start. Warns of image roots that do not exist, and of global hooks, which nothing
/// runs yet.
void prepareFolders(const PathsSection& paths, Log& log);

}  // namespace mergen::server
