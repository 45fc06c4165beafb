#pragma once

#include <string>

/// Who may talk to the API: the one place where that is decided. `--check-config` and ApiServer both ask it.
namespace mergen::api {

/// Whether `host`, an IPv4 or IPv6 address without brackets, is reached from this host only (127.0.0.0/8, ::1). Throws
/// Error(InvalidArgument) if it is no address; names are not looked up.
[[nodiscard]] bool isLoopback(const std::string& host);

/// Refuses to serve on an address that other hosts reach unless whoever asks needs a token, or the operator says that
/// none is wanted. Throws Error(InvalidArgument) that says what to do.
void requireAccessControl(const std::string& host, bool hasTokens, bool insecure);

}  // namespace mergen::api
