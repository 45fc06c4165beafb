#include <algorithm>

#include <mergen/base/json.hpp>
#include <mergen/base/json_text.hpp>

namespace mergen::json {

namespace {

/// Stands in JSON as it is.
constexpr bool isPlain(char c) noexcept {
    return c >= ' ' && c <= '~' && c != '"' && c != '\\';
}

}  // namespace

void append(std::string& to, std::string_view text) {
    if (std::ranges::all_of(text, isPlain)) {
        to += '"';
        to += text;
        to += '"';
    } else {
        append(to, Poco::Dynamic::Var(std::string(text)));
    }
}

void append(std::string& to, const Poco::Dynamic::Var& value) {
    Poco::JSON::Array one;
    one.add(value);
    const std::string text = render(one);
    to.append(text, 1, text.size() - 2);  // without its brackets
}

void append(std::string& to, const std::unique_ptr<ObjectText>& object) {
    to += object->str();
}

void append(std::string& to, const std::unique_ptr<ArrayText>& array) {
    to += array->str();
}

}  // namespace mergen::json
