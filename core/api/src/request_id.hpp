#pragma once

#include <string>
#include <string_view>

namespace mergen::api {

inline constexpr auto requestIdHeader = "X-Request-Id";

/// A new id for one request: 16 hexadecimal digits from the kernel's random source.
[[nodiscard]] std::string newRequestId();

/// Whether a client's own X-Request-Id may be used as it is: 1 to 64 of A-Z, a-z, 0-9, '.', '_', '-', and no token. It
/// goes into log lines and headers.
[[nodiscard]] bool isRequestId(std::string_view text);

}  // namespace mergen::api
