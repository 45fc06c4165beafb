#include "request_id.hpp"

#include <algorithm>

#include <mergen/api/tokens.hpp>
#include <mergen/sdk/types.hpp>

namespace mergen::api {

std::string newRequestId() {
    std::string id = Uuid::random().str();
    std::erase(id, '-');
    return id.substr(16);  // the fixed bits of a UUID stand before
}

bool isRequestId(std::string_view text) {
    return !text.empty() && text.size() <= 64 && std::ranges::all_of(text, [](char c) {
        return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '_' ||
               c == '-';
    }) && withoutTokens(text) == text;
}

}  // namespace mergen::api
