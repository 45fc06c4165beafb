#include <algorithm>

#include <mergen/base/text.hpp>
#include <mergen/server/problem.hpp>

namespace mergen::server {

std::string describe(const Problem& problem, const std::filesystem::path& file) {
    std::string text = file.string();
    if (problem.line != 0) text += ":" + std::to_string(problem.line);
    text += ": ";
    if (!problem.where.empty()) text += problem.where + ": ";
    text += problem.reason;
    if (!problem.suggestion.empty()) text += "; did you mean '" + problem.suggestion + "'?";
    return printable(text, /*limit=*/2000);
}

void sortByLine(Problems& problems) {
    // Line 0, "no single line", becomes the largest number.
    std::ranges::stable_sort(problems, {}, [](const Problem& problem) { return problem.line - 1; });
}

}  // namespace mergen::server
