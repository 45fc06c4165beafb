#pragma once

#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <mergen/sdk/error.hpp>

namespace mergen::api {

/// The path and query of a request, percent-decoded exactly once, after they were taken apart: an encoded '/' separates
/// nothing.
struct Target {
    std::vector<std::string> segments;         ///< "/v1/vms/a" is v1, vms, a; "/v1/" is v1 and an empty one
    std::map<std::string, std::string> query;  ///< parameters as they were sent, '+' is a plus
};

/// Throws Error(InvalidArgument) for a '%' that is not followed by two hexadecimal digits and for a parameter that
/// stands twice.
[[nodiscard]] Target parseTarget(std::string_view text);

/// Refuses parameters other than `known` (Error(InvalidArgument) with the nearest).
void checkParameters(const Target& target, std::span<const std::string> known);

/// A boolean as mergen-fire reads it (Go's strconv.ParseBool): 1 t T true TRUE True 0 f F false FALSE False. Throws
/// Error(InvalidArgument) about `name` for anything else.
[[nodiscard]] bool parseBool(const std::string& name, std::string_view text);

/// A whole number from min to max in decimal digits, likewise.
[[nodiscard]] std::uint64_t parseNumber(const std::string& name, std::string_view text, std::uint64_t min,
                                        std::uint64_t max);

}  // namespace mergen::api
