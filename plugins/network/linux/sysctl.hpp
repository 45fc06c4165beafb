#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace mergen::network {

/// The text of a key below /proc/sys/net of the calling thread's namespace, trimmed; nothing if there is no such key.
[[nodiscard]] std::optional<std::string> readSysctl(const std::string& key);
/// Throws Error with path and errno.
void writeSysctl(const std::string& key, std::string_view value);
/// Turns IPv6 off on a link ("all", "default": on every one, on new ones). A kernel without IPv6 has no such key, and
/// nothing to turn off.
void disableIpv6(const std::string& link);

}  // namespace mergen::network
