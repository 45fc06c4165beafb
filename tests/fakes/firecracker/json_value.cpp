#include "json_value.hpp"

namespace mergen::fake {
namespace {

constexpr const char* null = "null";

}  // namespace

JsonValue JsonValue::read(JsonReader& reader) {
    JsonValue result;
    switch (reader.next()) {
        case '{': {
            Members members;
            reader.members([&](const std::string& name) { members.insert_or_assign(name, read(reader)); });
            result.value_ = std::move(members);
            return result;
        }
        case '[': {
            Elements elements;
            reader.array([&](JsonReader& each) { elements.push_back(read(each)); });
            result.value_ = std::move(elements);
            return result;
        }
        default:
            return JsonValue(reader.scalar());
    }
}

void JsonValue::merge(const JsonValue& patch) {
    const auto* const changes = std::get_if<Members>(&patch.value_);
    if (changes == nullptr) {
        value_ = patch.value_;
        return;
    }
    if (!std::holds_alternative<Members>(value_)) value_ = Members();
    auto& members = std::get<Members>(value_);
    for (const auto& [name, change] : *changes) {
        const auto* const scalar = std::get_if<std::string>(&change.value_);
        if (scalar != nullptr && *scalar == null) {
            members.erase(name);
        } else {
            members[name].merge(change);
        }
    }
}

std::string JsonValue::json() const {
    if (const auto* const scalar = std::get_if<std::string>(&value_)) return *scalar;
    std::string text;
    if (const auto* const elements = std::get_if<Elements>(&value_)) {
        for (const JsonValue& each : *elements) text += (text.empty() ? "" : ",") + each.json();
        return "[" + text + "]";
    }
    for (const auto& [name, member] : std::get<Members>(value_))
        text += (text.empty() ? "" : ",") + quoted(name) + ":" + member.json();
    return "{" + text + "}";
}

}  // namespace mergen::fake
