#include "head.hpp"

#include <algorithm>
#include <charconv>
#include <optional>

#include <Poco/String.h>

#include <mergen/base/text.hpp>

namespace mergen::api::http {

namespace {

constexpr std::size_t maxMethod = 32;

bool isDigit(char c) noexcept {
    return c >= '0' && c <= '9';
}

/// tchar of RFC 9110, 5.6.2.
bool isToken(char c) noexcept {
    if (isDigit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')) return true;
    return std::string_view("!#$%&'*+-.^_`|~").find(c) != std::string_view::npos;
}

/// Characters that a field's value may have: HTAB, SP, VCHAR, obs-text.
bool isFieldText(char c) noexcept {
    const auto byte = static_cast<unsigned char>(c);
    return c == '\t' || (byte >= 0x20 && byte != 0x7f);
}

std::string_view trimBlanks(std::string_view text) noexcept {
    const std::size_t begin = text.find_first_not_of(" \t");
    if (begin == std::string_view::npos) return {};
    return text.substr(begin, text.find_last_not_of(" \t") - begin + 1);
}

bool same(std::string_view a, std::string_view b) {
    return Poco::icompare(std::string(a), std::string(b)) == 0;
}

/// Takes the text up to CRLF from `rest`. HeadScanner has made sure that every line ends so.
std::string_view takeLine(std::string_view& rest) {
    const std::size_t end = rest.find("\r\n");
    const std::string_view line = rest.substr(0, end);
    rest.remove_prefix(end + 2);
    return line;
}

Refusal bad(std::string detail) {
    return {400, std::move(detail)};
}

std::optional<Refusal> readRequestLine(std::string_view line, Head& head) {
    const std::size_t first = line.find(' ');
    const std::size_t last = line.rfind(' ');
    if (first == std::string_view::npos || first == last) {
        return bad("the request line is not 'METHOD target HTTP/1.1'");
    }
    const std::string_view method = line.substr(0, first);
    const std::string_view target = line.substr(first + 1, last - first - 1);
    const std::string_view version = line.substr(last + 1);
    if (method.empty() || method.size() > maxMethod || !std::ranges::all_of(method, isToken)) {
        return bad("the method is no token of at most 32 characters");
    }
    const bool isVersion = version.size() == 8 && version.starts_with("HTTP/") && isDigit(version[5]) &&
                           version[6] == '.' && isDigit(version[7]);
    if (!isVersion) return bad("the request line does not end with an HTTP version");
    if (version[5] != '1' || version[7] > '1') {
        return Refusal{505, std::string(version) + " is not spoken here; HTTP/1.1 is"};
    }
    if (target.size() > maxTarget) return Refusal{414, "the request target has more than 8192 bytes"};
    const bool visible = std::ranges::all_of(target, [](char c) { return c > 0x20 && c < 0x7f && c != '#'; });
    if (target.empty() || target.front() != '/' || !visible) {
        return bad("the request target is not a path of visible ASCII characters that begins with '/'");
    }
    head.method = method;
    head.target = target;
    head.http10 = version[7] == '0';
    return std::nullopt;
}

std::optional<Refusal> readField(std::string_view line, Head& head) {
    if (head.fields.size() == maxFields) return Refusal{431, "more than 100 header fields"};
    if (line.front() == ' ' || line.front() == '\t')
        return bad("a header field begins with a blank (folded lines are refused)");
    const std::size_t colon = line.find(':');
    if (colon == std::string_view::npos) return bad("a header line has no colon");
    const std::string_view name = line.substr(0, colon);
    if (name.empty() || !std::ranges::all_of(name, isToken)) {
        return bad("'" + printable(name, 60) + "' is no name of a header field");
    }
    const std::string_view value = trimBlanks(line.substr(colon + 1));
    if (!std::ranges::all_of(value, isFieldText)) {
        return bad("the value of " + std::string(name) + " has a control character");
    }
    head.fields.emplace_back(name, value);
    return std::nullopt;
}

/// The fields that say where this message ends and the next begins (RFC 9112, 6).
std::optional<Refusal> readFraming(Head& head) {
    std::vector<std::string> hosts;
    std::vector<std::string> lengths;
    std::vector<std::string> codings;
    bool close = head.http10;  // HTTP/1.0's own keep-alive is not worth its traps
    for (const auto& [name, value] : head.fields) {
        if (same(name, "Host")) {
            hosts.push_back(value);
        } else if (same(name, "Content-Length")) {
            lengths.push_back(value);
        } else if (same(name, "Transfer-Encoding")) {
            codings.push_back(value);
        } else if (same(name, "Connection")) {
            for (const std::string& option : split(value, ',')) {
                if (same(trimBlanks(option), "close")) close = true;
            }
        } else if (same(name, "Expect")) {
            if (!same(value, "100-continue")) return Refusal{417, "only 'Expect: 100-continue' can be met"};
            head.expectsContinue = !head.http10;
        }
    }
    if (hosts.size() > 1) return bad("more than one Host");
    if (hosts.empty() && !head.http10) return bad("HTTP/1.1 needs a Host");
    if (lengths.size() > 1) return bad("more than one Content-Length");
    if (!codings.empty()) {
        if (!lengths.empty()) return bad("Transfer-Encoding beside Content-Length");
        if (head.http10) return bad("Transfer-Encoding in HTTP/1.0");
        if (codings.size() > 1 || !same(codings.front(), "chunked")) {
            return bad("a Transfer-Encoding other than 'chunked'");
        }
        return Refusal{411, "a body needs a Content-Length; chunked ones are not taken"};
    }
    if (!lengths.empty()) {
        const std::string& text = lengths.front();
        const bool digits = !text.empty() && std::ranges::all_of(text, isDigit);
        const char* const last = text.data() + text.size();
        if (!digits || std::from_chars(text.data(), last, head.contentLength).ec != std::errc()) {
            return bad("Content-Length is no number of bytes");
        }
        head.hasContentLength = true;
    }
    head.keepAlive = !close;
    return std::nullopt;
}

}  // namespace

std::variant<std::size_t, Refusal> HeadScanner::scan(std::string_view input) {
    for (; scanned_ < input.size(); ++scanned_) {
        if (scanned_ >= maxHead) break;
        if (input[scanned_] != '\n') continue;
        if (scanned_ == 0 || input[scanned_ - 1] != '\r') return bad("a line of the head does not end with CR LF");
        if (scanned_ == lineBegin_ + 1) return scanned_ + 1;
        lineBegin_ = scanned_ + 1;
    }
    if (lineBegin_ == 0 && scanned_ > maxTarget + maxMethod + 16) {
        return Refusal{414, "the request line has more than 8192 bytes"};
    }
    if (scanned_ >= maxHead) return Refusal{431, "the head of the request has more than 16384 bytes"};
    return std::size_t{0};
}

std::variant<Head, Refusal> parseHead(std::string_view text) {
    Head head;
    if (auto refused = readRequestLine(takeLine(text), head)) return *std::move(refused);
    for (std::string_view line = takeLine(text); !line.empty(); line = takeLine(text)) {
        if (auto refused = readField(line, head)) return *std::move(refused);
    }
    if (auto refused = readFraming(head)) return *std::move(refused);
    return head;
}

}  // namespace mergen::api::http
