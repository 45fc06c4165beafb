#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace mergen {

/// The line of `console`, the end of what a VM printed, with which the guest's kernel says that it panicked: printable
/// and bounded. Nothing if there is none, or if a kernel has begun to boot since. What a guest prints is the guest's
/// word: it can only speak of itself.
[[nodiscard]] std::optional<std::string> panicOf(std::string_view console);

}  // namespace mergen
