#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <Poco/Dynamic/Var.h>
#include <Poco/JSON/Array.h>
#include <Poco/JSON/Object.h>

/// JSON as Mergen takes it: Poco's parser behind checks that it lacks. Poco 1.11 takes duplicate keys (the last wins),
/// reads 18446744073709551616 as 0, 1.7 as the integer 1 and "12" as 12, and lets \u0000 into strings.
namespace mergen::json {

struct Limits {
    std::size_t bytes = 1U << 20U;
    std::size_t depth = 32;
    std::size_t members = 10'000;  ///< of all objects and arrays together
    std::size_t stringBytes = 64U << 10U;
};

/// Parses one object that fills `text`. Throws Error(InvalidArgument) with the reason for anything else: bad syntax,
/// trailing bytes, invalid UTF-8, NUL in a string, a number out of the range of its kind, a duplicate key (named), or
/// more than `limits`. The order of keys is kept.
[[nodiscard]] Poco::JSON::Object::Ptr parseObject(std::string_view text, const Limits& limits = {});

/// Compact (`indent` 0) or indented text; the latter ends with a newline. Bytes that are not UTF-8 become U+FFFD.
[[nodiscard]] std::string render(const Poco::JSON::Object& object, unsigned indent = 0);
[[nodiscard]] std::string render(const Poco::JSON::Array& array, unsigned indent = 0);

/// A new object that keeps the order in which members are set.
[[nodiscard]] Poco::JSON::Object::Ptr object();

/// Reads the members of one object by name and type, and at last refuses what nobody asked for. Every error is
/// Error(InvalidArgument) about the member's path ("ports[0].host") and states value and rule.
///
///     Reader body(*object, "");
///     auto vcpu = body.integer("vcpu", 1, 32).value_or(1);
///     auto kernel = body.requiredString("kernel", 4096);
///     body.finish();  // "kernal: unknown member, did you mean kernel?"
///
/// A member that is null counts as absent. Threads: one. The object must outlive the reader.
class Reader {
public:
    Reader(const Poco::JSON::Object& object, std::string path);

    [[nodiscard]] bool has(const std::string& name);
    [[nodiscard]] std::optional<std::int64_t> integer(const std::string& name, std::int64_t min, std::int64_t max);
    [[nodiscard]] std::int64_t requiredInteger(const std::string& name, std::int64_t min, std::int64_t max);
    [[nodiscard]] std::optional<bool> boolean(const std::string& name);
    [[nodiscard]] std::optional<std::string> string(const std::string& name, std::size_t maxBytes);
    /// Present and not empty.
    [[nodiscard]] std::string requiredString(const std::string& name, std::size_t maxBytes);
    [[nodiscard]] Poco::JSON::Object::Ptr object(const std::string& name);
    /// An object whose values are all strings of at most `maxBytes`, with at most `maxMembers` members.
    [[nodiscard]] std::map<std::string, std::string> stringMap(const std::string& name, std::size_t maxMembers,
                                                               std::size_t maxBytes);
    /// Calls `each` with a reader of every element, which must be an object, and finishes that reader.
    void objects(const std::string& name, std::size_t maxElements, const std::function<void(Reader&)>& each);

    /// Refuses the object because a member is not there; `wanted`: what is required, "a string". A member of that name
    /// but for case, '_' and '-' is what is refused instead: it was hardly meant otherwise.
    [[noreturn]] void refuseMissing(const std::string& name, const std::string& wanted) const;

    /// Refuses members that were not asked for, naming the nearest that was.
    void finish() const;

    /// Takes the members that were not asked for as known: for an answer that may have more than is looked at.
    void passOver();

    /// The path of a member, for errors that the caller finds itself.
    [[nodiscard]] std::string pathOf(const std::string& name) const;

private:
    [[nodiscard]] std::optional<Poco::Dynamic::Var> member(const std::string& name);
    const Poco::JSON::Object& object_;
    std::string path_;
    std::vector<std::string> known_;
};

}  // namespace mergen::json
