#pragma once

#include <string_view>

#include <mergen/engine/vm.hpp>

namespace mergen::api {

/// Reads the body of `PATCH /v1/vms/{id}`. Throws Error(InvalidArgument) about the member, with its value and the rule.
[[nodiscard]] engine::ChangeRequest parseChangeBody(std::string_view text);

}  // namespace mergen::api
