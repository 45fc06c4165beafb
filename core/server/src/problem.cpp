#include <algorithm>
#include <tuple>

#include <mergen/base/text.hpp>
#include <mergen/server/problem.hpp>

namespace mergen::server {

namespace {

constexpr std::size_t maxLineBytes = 2000;

}  // namespace

std::string describe(const Origin& origin) {
    switch (origin.kind) {
        case Origin::Kind::Default:
            return "default";
        case Origin::Kind::Profile:
            return "profile " + origin.name;
        case Origin::Kind::File:
            return origin.name + (origin.line == 0 ? "" : ":" + std::to_string(origin.line));
        case Origin::Kind::Environment:
            return "environment variable " + origin.name;
        case Origin::Kind::CommandLine:
            return "--set";
    }
    return {};
}

std::string describe(const Problem& problem) {
    std::string text;
    if (problem.origin.kind != Origin::Kind::Default) text = describe(problem.origin) + ": ";
    if (!problem.where.empty()) text += problem.where + ": ";
    text += problem.reason;
    if (!problem.suggestion.empty()) text += "; did you mean '" + problem.suggestion + "'?";
    return printable(text, maxLineBytes);
}

void sortByOrigin(Problems& problems) {
    // Line 0, "no single line", becomes the largest number.
    std::ranges::stable_sort(problems, {}, [](const Problem& problem) {
        const Origin& origin = problem.origin;
        return std::tuple(origin.kind == Origin::Kind::Default, origin.source, origin.line - 1);
    });
}

std::string describe(const Note& note) {
    return printable(describe(note.origin) + ": " + note.text, maxLineBytes);
}

void writeNotes(const Notes& notes, Log& log) {
    for (const Note& note : notes) {
        const std::string source = describe(note.origin);  // a field borrows it
        const LogField fields[] = {{"source", source}, {"message", note.text}};
        log.write(note.level, note.event, fields);
    }
}

}  // namespace mergen::server
