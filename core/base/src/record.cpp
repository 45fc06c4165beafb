#include <algorithm>

#include <mergen/base/json.hpp>
#include <mergen/base/record.hpp>
#include <mergen/base/text.hpp>
#include <mergen/sdk/error.hpp>

namespace mergen {

namespace {

constexpr bool isLetter(char c) noexcept {
    return c >= 'a' && c <= 'z';
}
constexpr bool isNameCharacter(char c) noexcept {
    return isLetter(c) || (c >= '0' && c <= '9') || c == '.' || c == '-' || c == '_';
}

}  // namespace

bool isDocumentName(std::string_view name) noexcept {
    return !name.empty() && name.size() <= 64 && isLetter(name.front()) && std::ranges::all_of(name, isNameCharacter);
}

std::string documentFault(std::string_view name, std::string_view content, std::size_t limit) {
    const std::string shown(name);
    if (content.size() > limit) return shown + " is larger than " + std::to_string(limit) + " bytes";
    if (!isCleanUtf8(content)) return shown + " is not UTF-8 text, or holds a NUL byte";
    if (!name.ends_with(".json")) return {};
    if (content.empty()) return shown + " is empty";
    // Wider than what the API takes, so that a document made of several accepted bodies is accepted too.
    const json::Limits limits{.bytes = limit, .depth = 64, .members = 100'000, .stringBytes = limit};
    try {
        static_cast<void>(json::parseObject(content, limits));
    } catch (const Error& error) {
        if (error.kind() != ErrorKind::InvalidArgument) throw;
        return shown + " is not one JSON object: " + error.what();
    }
    return {};
}

void checkRecord(const Record& record, std::size_t documentLimit) {
    const auto refuse = [&](const std::string& why) {
        throw Error(ErrorKind::InvalidArgument, "cannot store the record '" + record.id.str() + "': " + why);
    };
    if (!record.documents.contains("meta.json")) refuse("it has no document meta.json");
    for (const auto& [name, content] : record.documents) {
        if (!isDocumentName(name)) {
            refuse("'" + printable(name) +
                   "' is no document name (1 to 64 of a-z, 0-9, '.', '-', '_', beginning with a letter)");
        }
        if (const std::string fault = documentFault(name, content, documentLimit); !fault.empty()) refuse(fault);
    }
}

}  // namespace mergen
