#pragma once

#include <string>

#include <mergen/base/fd.hpp>

namespace mergen::fake {

/// Opens the tap of this name as Firecracker does, which makes it if there is none and we may. Throws
/// std::runtime_error with Firecracker's words.
UniqueFd openTap(const std::string& name);

}  // namespace mergen::fake
