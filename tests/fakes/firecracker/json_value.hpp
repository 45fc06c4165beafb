#pragma once

#include <map>
#include <string>
#include <variant>
#include <vector>

#include "serde.hpp"

namespace mergen::fake {

/// Any JSON, as the metadata store keeps it: members in order of their names. Numbers stay as they were written.
class JsonValue {
public:
    /// An empty object.
    JsonValue() = default;

    static JsonValue read(JsonReader& reader);

    /// Changes it as RFC 7396 has it: members of `patch` take the place of its own, null removes them.
    void merge(const JsonValue& patch);

    [[nodiscard]] std::string json() const;

private:
    using Members = std::map<std::string, JsonValue>;
    using Elements = std::vector<JsonValue>;

    explicit JsonValue(std::string scalar) : value_(std::move(scalar)) {}

    std::variant<Members, Elements, std::string> value_;  ///< a scalar is its text
};

}  // namespace mergen::fake
