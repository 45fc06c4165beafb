#include <algorithm>
#include <charconv>
#include <functional>
#include <limits>
#include <set>
#include <sstream>
#include <system_error>

#include <Poco/Exception.h>
#include <Poco/JSON/ParseHandler.h>
#include <Poco/JSON/Parser.h>
#include <Poco/JSON/Stringifier.h>
#include <Poco/JSONString.h>
#include <Poco/String.h>

#include <mergen/base/json.hpp>
#include <mergen/base/text.hpp>
#include <mergen/sdk/error.hpp>

namespace mergen::json {

namespace {

using Poco::Dynamic::Var;
using Poco::JSON::Array;
using Poco::JSON::Object;

constexpr std::size_t shownBytes = 80;  // of a refused value, in an error's text

std::string join(const std::string& path, const std::string& name) {
    const std::string shown = printable(name, shownBytes);
    return path.empty() ? shown : path + "." + shown;
}

std::string element(const std::string& path, std::size_t index) {
    return path + "[" + std::to_string(index) + "]";
}

[[noreturn]] void refuse(const std::string& path, const std::string& text) {
    throw Error(ErrorKind::InvalidArgument, path.empty() ? text : path + ": " + text).about(path);
}

bool isDigit(char c) noexcept {
    return c >= '0' && c <= '9';
}

/// Whether the number `token` can be kept as it is written. Its syntax is the parser's business, not ours.
bool numberFits(std::string_view token) noexcept {
    const char* const last = token.data() + token.size();
    std::errc error{};
    if (token.find_first_of(".eE") != std::string_view::npos) {
        double value = 0;
        error = std::from_chars(token.data(), last, value).ec;
    } else if (token.front() == '-') {
        std::int64_t value = 0;
        error = std::from_chars(token.data(), last, value).ec;
    } else {
        std::uint64_t value = 0;
        error = std::from_chars(token.data(), last, value).ec;
    }
    return error != std::errc::result_out_of_range;
}

/// What Poco's parser loses before a handler can see it: the size of a number (2^64 becomes 0) and a NUL in a key (the
/// key ends there). Looks at tokens only; whether the text is JSON at all is said by the parser afterwards. `pathAt`
/// tells which member's value begins at an offset.
void checkTokens(std::string_view text, const std::function<std::string(std::size_t)>& pathAt) {
    bool quoted = false;
    for (std::size_t i = 0; i < text.size();) {
        const char c = text[i];
        if (quoted) {
            if (c == '\\') {
                if (text.substr(i + 1, 5) == "u0000") {
                    throw Error(ErrorKind::InvalidArgument, "not valid JSON for us: \\u0000 (NUL) in a string");
                }
                i += 2;
                continue;
            }
            quoted = c != '"';
            ++i;
        } else if (c == '-' || isDigit(c)) {
            const std::size_t end = std::min(text.find_first_not_of("+-.0123456789eE", i), text.size());
            const std::string_view token = text.substr(i, end - i);
            if (!numberFits(token)) {
                refuse(pathAt(i), "the number " + printable(token, shownBytes) +
                                      " is out of range: whole numbers have 64 bits, others are IEEE 754 doubles");
            }
            i = end;
        } else {
            quoted = c == '"';
            ++i;
        }
    }
}

/// Builds the values as Poco's own handler does, and stops at the first thing that we do not take.
class StrictHandler final : public Poco::JSON::ParseHandler {
public:
    explicit StrictHandler(const Limits& limits) : ParseHandler(/*preserveObjectOrder=*/true), limits_(limits) {}

    void startObject() override {
        open(/*array=*/false);
        ParseHandler::startObject();
    }
    void endObject() override {
        frames_.pop_back();
        ParseHandler::endObject();
    }
    void startArray() override {
        open(/*array=*/true);
        ParseHandler::startArray();
    }
    void endArray() override {
        frames_.pop_back();
        ParseHandler::endArray();
    }
    void key(const std::string& name) override {
        checkString(name);
        Frame& frame = frames_.back();
        frame.key = name;
        if (!frame.keys.insert(name).second) refuse(path(), "duplicate member; every name may stand once");
        ParseHandler::key(name);
    }
    void null() override {
        count();
        ParseHandler::null();
    }
    void value(int number) override { scalar(number); }
    void value(unsigned number) override { scalar(number); }
    void value(Poco::Int64 number) override { scalar(number); }
    void value(Poco::UInt64 number) override { scalar(number); }
    void value(double number) override { scalar(number); }
    void value(bool flag) override { scalar(flag); }
    void value(const std::string& text) override {
        checkString(text);
        scalar(text);
    }

    /// Of the member that is being read.
    [[nodiscard]] std::string path() const {
        std::string text;
        for (const Frame& frame : frames_) {
            text = frame.array ? element(text, frame.next == 0 ? 0 : frame.next - 1) : join(text, frame.key);
        }
        return text;
    }

private:
    struct Frame {
        bool array;
        std::size_t next = 0;  // index of the element to come
        std::string key;
        std::set<std::string> keys;
    };

    template <typename T>
    void scalar(const T& item) {
        count();
        ParseHandler::value(item);
    }

    void open(bool array) {
        if (!frames_.empty()) count();
        if (frames_.size() >= limits_.depth) {
            refuse(path(), "nested deeper than " + std::to_string(limits_.depth) + " levels");
        }
        frames_.push_back(Frame{array, 0, {}, {}});
    }

    void count() {
        if (++members_ > limits_.members) {
            throw Error(ErrorKind::InvalidArgument,
                        "more than " + std::to_string(limits_.members) + " members and elements");
        }
        if (!frames_.empty() && frames_.back().array) ++frames_.back().next;
    }

    void checkString(const std::string& text) const {
        if (text.size() > limits_.stringBytes) {
            refuse(path(), "a string of " + std::to_string(text.size()) + " bytes; at most " +
                               std::to_string(limits_.stringBytes) + " are taken");
        }
    }

    const Limits limits_;
    std::size_t members_ = 0;
    std::vector<Frame> frames_;
};

/// The path of the member whose value begins at `offset`: that at which the parser stands at the end of what is before.
std::string pathAt(std::string_view text, std::size_t offset, const Limits& limits) {
    const Poco::SharedPtr<StrictHandler> handler(new StrictHandler(limits));
    try {
        Poco::JSON::Parser parser(handler);
        parser.setDepth(limits.depth + 2);
        static_cast<void>(parser.parse(std::string(text.substr(0, offset)) + "null"));
    } catch (const Poco::Exception& error) {
        static_cast<void>(error);  // as the text ends too soon
    }
    return handler->path();
}

/// How a double is written so that it is read as one again.
std::string doubleText(const Var& value) {
    std::ostringstream text;
    Poco::JSON::Stringifier::stringify(value, text);
    const std::string digits = text.str();
    return digits + (digits.find_first_of(".eE") == std::string::npos ? ".0" : "");
}

/// `text` with U+FFFD for every byte that belongs to no well-formed UTF-8 sequence. Poco writes strings byte by byte as
/// they are; as all that it adds is ASCII, this can be done to the whole text at last.
std::string cleanUtf8(std::string text) {
    if (isCleanUtf8(text)) return text;
    std::string clean;
    clean.reserve(text.size() + 16);
    const std::string_view rest(text);
    for (std::size_t i = 0; i < rest.size();) {
        std::size_t length = 1;
        while (length <= 4 && i + length <= rest.size() && !isCleanUtf8(rest.substr(i, length))) ++length;
        if (length <= 4 && i + length <= rest.size()) {
            clean += rest.substr(i, length);
            i += length;
        } else {
            clean += "\xef\xbf\xbd";
            ++i;
        }
    }
    return clean;
}

/// Whether it stands in JSON as it is.
bool isPlain(std::string_view text) noexcept {
    return std::ranges::all_of(text, [](char c) { return c >= ' ' && c <= '~' && c != '"' && c != '\\'; });
}

/// Poco's Stringifier writes an empty array over three lines and 1.0 as 1; so it is asked for single values only, and
/// not for those of which most documents are made: it goes through a text letter by letter.
class Writer {
public:
    explicit Writer(unsigned indent) : indent_(indent) {}

    void object(const Object& object) {
        list('{', '}', object.getNames(), [&](const std::string& name) {
            string(name);
            out_ += indent_ == 0 ? ":" : ": ";
            value(object.get(name));
        });
    }

    void array(const Array& array) {
        list('[', ']', array, [&](const Var& item) { value(item); });
    }

    [[nodiscard]] std::string text() const { return cleanUtf8(indent_ == 0 ? out_ : out_ + "\n"); }

private:
    template <typename Items, typename Each>
    void list(char open, char close, const Items& items, const Each& each) {
        out_ += open;
        ++level_;
        bool first = true;
        for (const auto& item : items) {
            if (!first) out_ += ',';
            first = false;
            newLine();
            each(item);
        }
        --level_;
        if (!first) newLine();
        out_ += close;
    }

    void string(const std::string& text) {
        if (isPlain(text)) {
            out_.append(1, '"').append(text).append(1, '"');
        } else {
            out_ += Poco::toJSON(text);
        }
    }

    void value(const Var& item) {
        if (item.type() == typeid(Object::Ptr)) {
            object(*item.extract<Object::Ptr>());
        } else if (item.type() == typeid(Array::Ptr)) {
            array(*item.extract<Array::Ptr>());
        } else if (item.type() == typeid(Object)) {
            object(item.extract<Object>());
        } else if (item.type() == typeid(Array)) {
            array(item.extract<Array>());
        } else if (item.type() == typeid(double)) {
            out_ += doubleText(item);
        } else if (item.type() == typeid(std::string)) {
            string(item.extract<std::string>());
        } else if (item.isBoolean() || (item.isInteger() && item.type() != typeid(char))) {
            out_ += item.toString();
        } else {
            std::ostringstream text;
            Poco::JSON::Stringifier::stringify(item, text);
            out_ += text.str();
        }
    }

    void newLine() {
        if (indent_ != 0) out_.append(1, '\n').append(std::size_t{indent_} * level_, ' ');
    }

    const unsigned indent_;
    std::size_t level_ = 0;
    std::string out_;
};

/// A refused value as an error shows it.
std::string shown(const Var& value) {
    if (value.type() == typeid(Object::Ptr)) return "an object";
    if (value.type() == typeid(Array::Ptr)) return "an array";
    if (value.type() == typeid(double)) return doubleText(value);
    std::ostringstream text;
    Poco::JSON::Stringifier::stringify(value, text);
    return printable(text.str(), shownBytes);
}

std::string unknownMember(const std::string& meant) {
    return "unknown member, did you mean " + meant + "?";
}

/// A name as those who write it in another fashion mean it: driveId, drive_id and drive-id are one.
std::string lettersOf(std::string_view name) {
    std::string letters = Poco::toLower(std::string(name));
    std::erase_if(letters, [](char c) { return c == '_' || c == '-'; });
    return letters;
}

}  // namespace

Object::Ptr parseObject(std::string_view text, const Limits& limits) {
    if (text.size() > limits.bytes) {
        throw Error(ErrorKind::InvalidArgument, "JSON text of " + std::to_string(text.size()) + " bytes; at most " +
                                                    std::to_string(limits.bytes) + " are taken");
    }
    if (!isCleanUtf8(text)) throw Error(ErrorKind::InvalidArgument, "not valid JSON: not UTF-8, or with a NUL byte");
    checkTokens(text, [&](std::size_t offset) { return pathAt(text, offset, limits); });
    // Poco's parser says of any other value that its stack is empty.
    const std::size_t begin = text.find_first_not_of(" \t\r\n");
    if (begin != std::string_view::npos && text[begin] != '{')
        throw Error(ErrorKind::InvalidArgument, "the JSON text is not an object");
    try {
        Poco::JSON::Parser parser(new StrictHandler(limits));  // owned by the parser's SharedPtr
        parser.setDepth(limits.depth + 2);                     // our handler refuses first, with a path
        return parser.parse(std::string(text)).extract<Object::Ptr>();
    } catch (const Poco::Exception& error) {
        throw Error(ErrorKind::InvalidArgument, "not valid JSON: " + printable(error.message(), shownBytes));
    }
}

std::string render(const Object& object, unsigned indent) {
    Writer writer(indent);
    writer.object(object);
    return writer.text();
}

std::string render(const Array& array, unsigned indent) {
    Writer writer(indent);
    writer.array(array);
    return writer.text();
}

Object::Ptr object() {
    return new Object(Poco::JSON_PRESERVE_KEY_ORDER);
}

Reader::Reader(const Object& object, std::string path) : object_(object), path_(std::move(path)) {}

std::string Reader::pathOf(const std::string& name) const {
    return join(path_, name);
}

std::optional<Var> Reader::member(const std::string& name) {
    if (std::ranges::find(known_, name) == known_.end()) known_.push_back(name);
    if (!object_.has(name)) return std::nullopt;
    Var value = object_.get(name);
    if (value.isEmpty()) return std::nullopt;  // null
    return value;
}

bool Reader::has(const std::string& name) {
    return member(name).has_value();
}

std::optional<std::int64_t> Reader::integer(const std::string& name, std::int64_t min, std::int64_t max) {
    const std::optional<Var> value = member(name);
    if (!value) return std::nullopt;
    const auto refused = [&] {
        refuse(pathOf(name),
               shown(*value) + " is not a whole number from " + std::to_string(min) + " to " + std::to_string(max));
    };
    // isInteger() is true of a bool too, and convert() would make 12 of "12" and 1 of 1.7.
    if (!value->isInteger() || value->isBoolean()) refused();
    // The only integers beyond Int64 that a parsed text can hold.
    if (value->type() == typeid(Poco::UInt64) &&
        value->extract<Poco::UInt64>() > static_cast<Poco::UInt64>(std::numeric_limits<std::int64_t>::max())) {
        refused();
    }
    const std::int64_t number = value->convert<Poco::Int64>();
    if (number < min || number > max) refused();
    return number;
}

std::int64_t Reader::requiredInteger(const std::string& name, std::int64_t min, std::int64_t max) {
    const std::optional<std::int64_t> value = integer(name, min, max);
    if (!value) {
        refuseMissing(name, "a whole number from " + std::to_string(min) + " to " + std::to_string(max));
    }
    return *value;
}

std::optional<bool> Reader::boolean(const std::string& name) {
    const std::optional<Var> value = member(name);
    if (!value) return std::nullopt;
    if (!value->isBoolean()) refuse(pathOf(name), shown(*value) + " is neither true nor false");
    return value->extract<bool>();
}

std::optional<std::string> Reader::string(const std::string& name, std::size_t maxBytes) {
    const std::optional<Var> value = member(name);
    if (!value) return std::nullopt;
    if (!value->isString()) refuse(pathOf(name), shown(*value) + " is not a string");
    std::string text = value->convert<std::string>();
    if (text.size() > maxBytes) {
        refuse(pathOf(name), shown(*value) + " has " + std::to_string(text.size()) + " bytes; at most " +
                                 std::to_string(maxBytes) + " are taken");
    }
    return text;
}

std::string Reader::requiredString(const std::string& name, std::size_t maxBytes) {
    std::optional<std::string> text = string(name, maxBytes);
    if (!text) refuseMissing(name, "a string");
    if (text->empty())
        refuse(pathOf(name), "\"\" is empty; a string of 1 to " + std::to_string(maxBytes) + " bytes is required");
    return *std::move(text);
}

Object::Ptr Reader::object(const std::string& name) {
    const std::optional<Var> value = member(name);
    if (!value) return {};
    Object::Ptr found = object_.getObject(name);
    if (found.isNull()) refuse(pathOf(name), shown(*value) + " is not an object");
    return found;
}

std::map<std::string, std::string> Reader::stringMap(const std::string& name, std::size_t maxMembers,
                                                     std::size_t maxBytes) {
    const Object::Ptr found = object(name);
    if (found.isNull()) return {};
    if (found->size() > maxMembers) {
        refuse(pathOf(name), "has " + std::to_string(found->size()) + " members; at most " +
                                 std::to_string(maxMembers) + " are taken");
    }
    std::map<std::string, std::string> texts;
    Reader members(*found, pathOf(name));
    for (const std::string& key : found->getNames()) {
        std::optional<std::string> text = members.string(key, maxBytes);
        if (!text) refuse(members.pathOf(key), "null is not a string");
        texts.emplace(key, *std::move(text));
    }
    return texts;
}

void Reader::objects(const std::string& name, std::size_t maxElements, const std::function<void(Reader&)>& each) {
    const std::optional<Var> value = member(name);
    if (!value) return;
    const Array::Ptr array = object_.getArray(name);
    if (array.isNull()) refuse(pathOf(name), shown(*value) + " is not an array");
    if (array->size() > maxElements) {
        refuse(pathOf(name), "has " + std::to_string(array->size()) + " elements; at most " +
                                 std::to_string(maxElements) + " are taken");
    }
    for (unsigned i = 0; i < array->size(); ++i) {
        const std::string path = element(pathOf(name), i);
        const Object::Ptr item = array->getObject(i);
        if (item.isNull()) refuse(path, shown(array->get(i)) + " is not an object");
        Reader reader(*item, path);
        each(reader);
        reader.finish();
    }
}

void Reader::passOver() {
    known_ = object_.getNames();
}

void Reader::refuseMissing(const std::string& name, const std::string& wanted) const {
    for (const std::string& there : object_.getNames()) {
        if (there != name && lettersOf(there) == lettersOf(name)) refuse(pathOf(there), unknownMember(name));
    }
    refuse(pathOf(name), "missing; " + wanted + " is required");
}

void Reader::finish() const {
    for (const std::string& name : object_.getNames()) {
        if (std::ranges::find(known_, name) != known_.end()) continue;
        const std::string near = nearestWord(name, known_);
        if (!near.empty()) refuse(pathOf(name), unknownMember(near));
        std::string hint = "unknown member, known are";
        for (const std::string& word : known_) hint += " " + word;
        refuse(pathOf(name), hint);
    }
}

}  // namespace mergen::json
