#pragma once

#include <mergen/sdk/error.hpp>

#include "documents.hpp"

namespace mergen::engine {

/// An error about a member of the GuestSpec that was made of `record`, as one about the member of the request that it
/// comes from: "disks[1].limit" becomes "drives[0].rateLimiter".
[[nodiscard]] Error inRequestWords(const Error& error, const VmRecord& record);

}  // namespace mergen::engine
