#pragma once

#include <string>
#include <vector>

#include "raw_client.hpp"

namespace mergen::api::test {

/// A body of POST /v1/vms that must be refused.
struct BadBody {
    std::string name;   ///< for failures; each has its own
    std::string field;  ///< that the refusal names; "" if it is about the body as a whole
    std::string rule;   ///< a part of the refusal's text that says what was expected or found
    std::string body;
};

/// All of them.
[[nodiscard]] std::vector<BadBody> badBodies();

/// `reply` is the refusal of `bad`: 400 with the field and the rule.
void expectRefused(const BadBody& bad, const Reply& reply);

/// A good body with `members` in front of its required ones.
[[nodiscard]] std::string with(const std::string& members);

/// `count` copies of `text`, joined by commas.
[[nodiscard]] std::string times(std::size_t count, const std::string& text);

/// "p0":"v","p1":"v",...
[[nodiscard]] std::string numbered(std::size_t count, const std::string& value = "v");

}  // namespace mergen::api::test
