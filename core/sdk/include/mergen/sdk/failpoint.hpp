#pragma once

#include <string_view>

#include <mergen/sdk/export.hpp>

/// `MERGEN_FAILPOINT("network.linux.after_tap");` names a place at which a test can make the code fail. In builds
/// without `MERGEN_WITH_FAILPOINTS` it is nothing at all.
///
/// The environment variable MERGEN_FAILPOINTS arms them: `name=action` separated by `;`, where an action is
///   error(TEXT)   throws Error(Internal, TEXT)
///   nospace       throws Error(ResourceExhausted, ...) with ENOSPC
///   crash         the process kills itself with SIGKILL, as `kill -9` would
///   delay(MS)     sleeps
/// and may be preceded by a count: `2*error(no)` fires twice and is then spent. A name may end with `*`.
#ifdef MERGEN_WITH_FAILPOINTS
#define MERGEN_FAILPOINT(name) ::mergen::failpoint::hit(name)
#else
#define MERGEN_FAILPOINT(name) static_cast<void>(0)
#endif

namespace mergen::failpoint {

/// Called by MERGEN_FAILPOINT. Threads: any. Costs one relaxed atomic load while nothing is armed.
MERGEN_SDK_API void hit(std::string_view name);

/// Replaces what is armed; same syntax as MERGEN_FAILPOINTS; an empty text disarms all. Throws Error(InvalidArgument)
/// on a text that cannot be read, and then changes nothing.
MERGEN_SDK_API void arm(std::string_view spec);

}  // namespace mergen::failpoint
