#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

/// JSON read into a struct as Firecracker's reader does it: in one go, stopping at the first fault, with that fault in
/// its words and at its place ("missing field `state` at line 1 column 2"). What is read may be nested 127 deep; who is
/// asked cannot be made to run out of stack.
namespace mergen::fake {

/// The text of a fault, with its place.
class JsonFault : public std::runtime_error {
public:
    using std::runtime_error::runtime_error;
};

class JsonReader;

/// One member of a struct.
struct JsonField {
    const char* name;
    bool required;
    std::function<void(JsonReader&)> read;
};

class JsonReader {
public:
    explicit JsonReader(std::string_view text) : text_(text) {}

    /// An object as the struct `type`. Unknown members are refused, or passed over if `lenient`.
    void object(const char* type, const std::vector<JsonField>& fields, bool lenient = false);
    /// An array; `each` reads one element.
    void array(const std::function<void(JsonReader&)>& each);
    /// A whole number of at most `max`; `type` as Rust calls it ("u8").
    std::uint64_t integer(std::uint64_t max, const char* type);
    bool boolean();
    std::string string();
    /// A string that Firecracker takes for the place of a file.
    std::string path();
    /// One of these words.
    std::string variant(const std::vector<const char*>& words);
    /// Passes over a null and says so.
    bool null();
    /// Passes over any value, however deep.
    void skip();
    /// The byte that the next value begins with; EOF's -1 at the end.
    int next() { return peek(); }
    /// An object of any members; `each` gets a name and has to read the value.
    void members(const std::function<void(const std::string& name)>& each);
    /// A value that is neither object nor array, as JSON.
    std::string scalar();
    /// Nothing but blanks may follow.
    void end();

    /// A fault that the reader's user finds in a value that has been read. Firecracker's reader has looked for the end
    /// of the object by then.
    [[noreturn]] void faultOfValue(const std::string& text);
    /// The same, where Firecracker finds it while it reads the value.
    [[noreturn]] void faultInValue(const std::string& text) const { fault(text); }

private:
    /// A fault at the present place.
    [[noreturn]] void fault(const std::string& text) const { throw at(text, index_); }
    [[nodiscard]] JsonFault at(const std::string& text, std::size_t index) const;
    /// A fault at the byte that is looked at.
    [[noreturn]] void here(const std::string& text) const;
    int peek();
    /// Passes over the bracket that an object or an array begins with. `leave()` at its end.
    void enter();
    void leave() { --depth_; }
    /// An object's names; `each` has to read the colon and the value.
    void names(const std::function<void(const std::string& name)>& each);
    void colon();
    /// Passes over a member's name and its colon.
    void skipName();
    /// Passes over what ends behind a value and the comma that the next value follows. `open` has the brackets around
    /// that value, outermost first, and loses those that are closed.
    void skipToNext(std::string& open);
    void expectIdent(std::string_view rest);
    std::string parseString();
    std::string parseNumber();
    [[noreturn]] void invalidType(const std::string& expected);

    std::string_view text_;
    std::size_t index_ = 0;
    std::size_t depth_ = 0;  ///< objects and arrays around the present place
};

/// `text` as a JSON string, with its quotes.
std::string quoted(std::string_view text);

}  // namespace mergen::fake
