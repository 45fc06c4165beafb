#include "serde.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>

namespace mergen::fake {
namespace {

constexpr int endOfText = -1;
constexpr std::size_t tooDeep = 128;

bool isDigit(int c) {
    return c >= '0' && c <= '9';
}

char closing(char bracket) {
    return bracket == '{' ? '}' : ']';
}

/// "`a`", "`a` or `b`", "one of `a`, `b`, `c`"
std::string alternatives(const std::vector<const char*>& words) {
    std::string text = words.size() > 2 ? "one of " : "";
    for (std::size_t i = 0; i < words.size(); ++i) {
        if (i > 0) text += words.size() == 2 ? " or " : ", ";
        text += "`" + std::string(words[i]) + "`";
    }
    return text;
}

void appendUtf8(std::string& text, unsigned code) {
    if (code < 0x80) {
        text += static_cast<char>(code);
    } else if (code < 0x800) {
        text += static_cast<char>(0xc0U | (code >> 6U));
        text += static_cast<char>(0x80U | (code & 0x3fU));
    } else {
        text += static_cast<char>(0xe0U | (code >> 12U));
        text += static_cast<char>(0x80U | ((code >> 6U) & 0x3fU));
        text += static_cast<char>(0x80U | (code & 0x3fU));
    }
}

}  // namespace

JsonFault JsonReader::at(const std::string& text, std::size_t index) const {
    const std::string_view before = text_.substr(0, std::min(index, text_.size()));
    const std::size_t lines = static_cast<std::size_t>(std::count(before.begin(), before.end(), '\n'));
    const std::size_t newline = before.rfind('\n');
    const std::size_t column = newline == std::string_view::npos ? before.size() : before.size() - newline - 1;
    return JsonFault(text + " at line " + std::to_string(lines + 1) + " column " + std::to_string(column));
}

void JsonReader::faultOfValue(const std::string& text) {
    if (const int c = peek(); c == '}' || c == ']') ++index_;
    fault(text);
}

void JsonReader::here(const std::string& text) const {
    throw at(text, std::min(index_ + 1, text_.size()));
}

int JsonReader::peek() {
    while (index_ < text_.size() && std::string_view(" \t\r\n").find(text_[index_]) != std::string_view::npos) ++index_;
    return index_ < text_.size() ? static_cast<unsigned char>(text_[index_]) : endOfText;
}

void JsonReader::expectIdent(std::string_view rest) {
    ++index_;
    for (const char c : rest) {
        if (index_ >= text_.size()) here("EOF while parsing a value");
        if (text_[index_++] != c) fault("expected ident");
    }
}

std::string JsonReader::parseString() {
    std::string value;
    ++index_;
    while (true) {
        if (index_ >= text_.size()) fault("EOF while parsing a string");
        const char c = text_[index_++];
        if (c == '"') return value;
        if (static_cast<unsigned char>(c) < 0x20)
            fault("control character (\\u0000-\\u001F) found while parsing a string");
        if (c != '\\') {
            value += c;
            continue;
        }
        if (index_ >= text_.size()) fault("EOF while parsing a string");
        const char escape = text_[index_++];
        constexpr std::string_view escapes = "\"\\/bfnrt", meanings = "\"\\/\b\f\n\r\t";
        if (const std::size_t found = escapes.find(escape); found != std::string_view::npos) {
            value += meanings[found];
        } else if (escape == 'u' && index_ + 4 <= text_.size()) {
            appendUtf8(value,
                       static_cast<unsigned>(std::strtoul(std::string(text_.substr(index_, 4)).c_str(), nullptr, 16)));
            index_ += 4;
        } else {
            fault("invalid escape");
        }
    }
}

std::string JsonReader::parseNumber() {
    const std::size_t begin = index_;
    if (text_[index_] == '-') ++index_;
    if (index_ >= text_.size()) here("EOF while parsing a value");
    if (!isDigit(text_[index_])) here("invalid number");
    while (index_ < text_.size() && isDigit(text_[index_])) ++index_;
    if (index_ < text_.size() && text_[index_] == '.') {
        ++index_;
        while (index_ < text_.size() && isDigit(text_[index_])) ++index_;
    }
    if (index_ < text_.size() && (text_[index_] == 'e' || text_[index_] == 'E')) {
        ++index_;
        if (index_ < text_.size() && (text_[index_] == '+' || text_[index_] == '-')) ++index_;
        while (index_ < text_.size() && isDigit(text_[index_])) ++index_;
    }
    return std::string(text_.substr(begin, index_ - begin));
}

void JsonReader::invalidType(const std::string& expected) {
    const int c = peek();
    std::string found;
    if (c == 'n') {
        expectIdent("ull");
        found = "null";
    } else if (c == 't' || c == 'f') {
        expectIdent(c == 't' ? "rue" : "alse");
        found = std::string("boolean `") + (c == 't' ? "true" : "false") + "`";
    } else if (c == '-' || isDigit(c)) {
        const std::string number = parseNumber();
        const bool whole = number.find_first_of(".eE") == std::string::npos;
        found = (whole ? "integer `" : "floating point `") + number + "`";
    } else if (c == '"') {
        found = "string " + quoted(parseString());
    } else if (c == '[') {
        found = "sequence";
    } else if (c == '{') {
        found = "map";
    } else if (c == endOfText) {
        here("EOF while parsing a value");
    } else {
        here("expected value");
    }
    fault("invalid type: " + found + ", expected " + expected);
}

void JsonReader::object(const char* type, const std::vector<JsonField>& fields, bool lenient) {
    const int first = peek();
    if (first == '[') {
        ++index_;
        if (peek() == ']') ++index_;
        fault("invalid length 0, expected struct " + std::string(type) + " with " + std::to_string(fields.size()) +
              (fields.size() == 1 ? " element" : " elements"));
    }
    if (first != '{') invalidType("struct " + std::string(type));
    std::vector<bool> seen(fields.size(), false);
    names([&](const std::string& key) {
        const auto field =
            std::find_if(fields.begin(), fields.end(), [&](const JsonField& f) { return key == f.name; });
        if (field == fields.end() && !lenient) {
            std::vector<const char*> names;
            for (const JsonField& each : fields) names.push_back(each.name);
            fault("unknown field `" + key + "`, expected " + alternatives(names));
        }
        if (field == fields.end()) {
            colon();
            skip();
            return;
        }
        auto known = seen[static_cast<std::size_t>(field - fields.begin())];
        if (known) fault("duplicate field `" + key + "`");
        known = true;
        colon();
        field->read(*this);
    });
    for (std::size_t i = 0; i < fields.size(); ++i) {
        if (fields[i].required && !seen[i]) fault("missing field `" + std::string(fields[i].name) + "`");
    }
}

void JsonReader::enter() {
    if (++depth_ == tooDeep) here("recursion limit exceeded");
    ++index_;
}

void JsonReader::names(const std::function<void(const std::string& name)>& each) {
    enter();
    for (bool more = false;; more = true) {
        int c = peek();
        if (c == '}') break;
        if (c == endOfText) here("EOF while parsing an object");
        if (more) {
            if (c != ',') here("expected `,` or `}`");
            ++index_;
            c = peek();
            if (c == '}') here("trailing comma");
            if (c == endOfText) here("EOF while parsing a value");
        }
        if (c != '"') here("key must be a string");
        each(parseString());
    }
    ++index_;
    leave();
}

void JsonReader::colon() {
    const int c = peek();
    if (c == endOfText) here("EOF while parsing an object");
    if (c != ':') here("expected `:`");
    ++index_;
}

void JsonReader::members(const std::function<void(const std::string& name)>& each) {
    names([&](const std::string& name) {
        colon();
        each(name);
    });
}

std::string JsonReader::scalar() {
    switch (peek()) {
        case '"':
            return quoted(parseString());
        case 't':
        case 'f':
            return boolean() ? "true" : "false";
        case 'n':
            null();
            return "null";
        case endOfText:
            here("EOF while parsing a value");
        default:
            if (const int c = peek(); c != '-' && !isDigit(c)) here("expected value");
            return parseNumber();
    }
}

void JsonReader::array(const std::function<void(JsonReader&)>& each) {
    if (peek() != '[') invalidType("a sequence");
    enter();
    for (bool more = false;; more = true) {
        const int c = peek();
        if (c == ']') break;
        if (c == endOfText) here("EOF while parsing a list");
        if (more) {
            if (c != ',') here("expected `,` or `]`");
            ++index_;
            if (peek() == ']') here("trailing comma");
        }
        each(*this);
    }
    ++index_;
    leave();
}

std::uint64_t JsonReader::integer(std::uint64_t max, const char* type) {
    const int c = peek();
    if (c != '-' && !isDigit(c)) invalidType(type);
    const std::string number = parseNumber();
    if (number.find_first_of(".eE") != std::string::npos)
        fault("invalid type: floating point `" + number + "`, expected " + type);
    errno = 0;
    const std::uint64_t value = std::strtoull(number.c_str(), nullptr, 10);
    if (c == '-' || errno != 0 || value > max) fault("invalid value: integer `" + number + "`, expected " + type);
    return value;
}

bool JsonReader::boolean() {
    const int c = peek();
    if (c != 't' && c != 'f') invalidType("a boolean");
    expectIdent(c == 't' ? "rue" : "alse");
    return c == 't';
}

std::string JsonReader::string() {
    if (peek() != '"') invalidType("a string");
    return parseString();
}

std::string JsonReader::path() {
    if (peek() != '"') invalidType("path string");
    return parseString();
}

std::string JsonReader::variant(const std::vector<const char*>& words) {
    const int c = peek();
    if (c == endOfText) here("EOF while parsing a value");
    if (c != '"') here("expected value");
    std::string word = parseString();
    if (std::none_of(words.begin(), words.end(), [&](const char* known) { return word == known; }))
        fault("unknown variant `" + word + "`, expected " + alternatives(words));
    return word;
}

bool JsonReader::null() {
    if (peek() != 'n') return false;
    expectIdent("ull");
    return true;
}

void JsonReader::skip() {
    std::string open;
    do {
        const int c = peek();
        if (c != '{' && c != '[') {
            static_cast<void>(scalar());
            skipToNext(open);
            continue;
        }
        ++index_;
        open += static_cast<char>(c);
        if (peek() == closing(open.back())) {
            skipToNext(open);
        } else if (c == '{') {
            skipName();
        }
    } while (!open.empty());
}

void JsonReader::skipToNext(std::string& open) {
    while (!open.empty() && peek() == closing(open.back())) {
        ++index_;
        open.pop_back();
    }
    if (open.empty()) return;
    const bool object = open.back() == '{';
    const int c = peek();
    if (c == endOfText) here(object ? "EOF while parsing an object" : "EOF while parsing a list");
    if (c != ',') here(object ? "expected `,` or `}`" : "expected `,` or `]`");
    ++index_;
    if (object) skipName();
}

void JsonReader::skipName() {
    const int c = peek();
    if (c == endOfText) here("EOF while parsing an object");
    if (c != '"') here("key must be a string");
    static_cast<void>(parseString());
    colon();
}

void JsonReader::end() {
    if (peek() != endOfText) here("trailing characters");
}

std::string quoted(std::string_view text) {
    std::string result = "\"";
    for (const char c : text) {
        if (c == '"' || c == '\\') {
            result += '\\';
            result += c;
        } else if (c == '\n') {
            result += "\\n";
        } else if (static_cast<unsigned char>(c) < 0x20) {
            char escaped[8];
            std::snprintf(escaped, sizeof(escaped), "\\u%04x", static_cast<unsigned>(c));
            result += escaped;
        } else {
            result += c;
        }
    }
    return result + "\"";
}

}  // namespace mergen::fake
