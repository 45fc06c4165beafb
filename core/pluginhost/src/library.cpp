#include "library.hpp"

#include <string>
#include <string_view>
#include <system_error>

#include <mergen/base/text.hpp>
#include <mergen/sdk/error.hpp>

namespace mergen::pluginhost {

namespace {

/// Boost wraps dlerror()'s words as "... (dlerror system message: WORDS): Bad file descriptor", where the error code is
/// made up; the words begin with the file's name most of the time, which the caller says anyway.
std::string loaderWords(const std::system_error& error, const std::filesystem::path& file) {
    std::string_view text = error.what();
    const std::string tail = "): " + error.code().message();
    if (text.ends_with(tail)) text.remove_suffix(tail.size());
    constexpr std::string_view head = "(dlerror system message: ";
    if (const auto at = text.find(head); at != std::string_view::npos) text.remove_prefix(at + head.size());
    const std::string name = file.string() + ": ";
    if (text.starts_with(name)) text.remove_prefix(name.size());
    return printable(text, 500);
}

}  // namespace

boost::dll::shared_library openLibrary(const std::filesystem::path& file) {
    try {
        return boost::dll::shared_library(file, boost::dll::load_mode::rtld_now | boost::dll::load_mode::rtld_local);
    } catch (const std::system_error& error) {
        throw Error(ErrorKind::FailedPrecondition, loaderWords(error, file));
    }
}

const mergen_manifest* findManifest(const boost::dll::shared_library& library) {
    if (!library.has(MERGEN_MANIFEST_SYMBOL)) {
        throw Error(ErrorKind::FailedPrecondition,
                    "it does not export " MERGEN_MANIFEST_SYMBOL ": it is no plugin of Mergen");
    }
    return library.get<const mergen_manifest* const>(MERGEN_MANIFEST_SYMBOL);
}

}  // namespace mergen::pluginhost
