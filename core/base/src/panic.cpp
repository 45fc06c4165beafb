#include <mergen/base/panic.hpp>
#include <mergen/base/text.hpp>

namespace mergen {

std::optional<std::string> panicOf(std::string_view console) {
    constexpr std::string_view said = "Kernel panic - not syncing";
    constexpr std::string_view boots = "Linux version ";  // the first line of a kernel
    constexpr std::size_t longest = 200;
    // The kernel says it twice: what is wrong before the trace, and "---[ end Kernel panic ..." after it.
    std::size_t begin = console.rfind(boots);
    begin = begin == std::string_view::npos ? 0 : begin + boots.size();
    const std::size_t found = console.find(said, begin);
    if (found == std::string_view::npos) return std::nullopt;
    const std::string_view line = console.substr(found, console.find_first_of("\r\n", found) - found);
    return printable(line, longest);
}

}  // namespace mergen
