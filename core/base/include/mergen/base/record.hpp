#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include <mergen/sdk/storage.hpp>

/// The rules that `Record` of the SDK states, for storage backends: what one of them takes, every one takes.
namespace mergen {

/// Whether `name` may name a document: 1 to 64 of a-z, 0-9, '.', '-', '_', beginning with a letter. Such a name is safe
/// as a file name: it has no '/', is neither "." nor "..", and is not hidden.
[[nodiscard]] bool isDocumentName(std::string_view name) noexcept;

/// Why `content` cannot be the document `name`, as a sentence that names it; empty if it can. At most `limit` bytes of
/// UTF-8 without NUL; a name that ends in ".json" asks for one JSON object that fills the text.
[[nodiscard]] std::string documentFault(std::string_view name, std::string_view content, std::size_t limit);

/// Throws Error(InvalidArgument) unless `record` has a "meta.json" and all its documents keep the rules above: what
/// put() begins with.
void checkRecord(const Record& record, std::size_t documentLimit);

}  // namespace mergen
