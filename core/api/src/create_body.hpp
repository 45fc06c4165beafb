#pragma once

#include <string_view>

#include <mergen/engine/vm.hpp>

namespace mergen::api {

/// Reads the body of `POST /v1/vms`: mergen-fire's members, and `id` and `name`. All that can be said without looking
/// at the host or at other VMs is checked here. Throws Error(InvalidArgument) about the member, with its value and the
/// rule.
[[nodiscard]] engine::CreateRequest parseCreateBody(std::string_view text);

}  // namespace mergen::api
