#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <mutex>
#include <set>
#include <system_error>
#include <unistd.h>
#include <utility>
#include <vector>

#include <spdlog/logger.h>
#include <spdlog/sinks/base_sink.h>

#include <mergen/base/text.hpp>
#include <mergen/server/log.hpp>

namespace mergen::server {

namespace {

constexpr std::size_t maxValueBytes = 4096;
constexpr std::size_t maxNameBytes = 128;
constexpr std::size_t maxLineBytes = 16384;

/// Characters that a terminal or a reader of the line would not see for what they are.
bool isHidden(char32_t code) noexcept {
    return code < 0x20 || (code >= 0x7f && code <= 0x9f) ||  // C0, DEL, C1
           code == 0x061c || (code >= 0x200b && code <= 0x200f) || (code >= 0x2028 && code <= 0x202e) ||
           (code >= 0x2060 && code <= 0x206f) || code == 0xfeff || (code >= 0xfff9 && code <= 0xfffb) ||
           (code >= 0xe0000 && code <= 0xe007f);  // bidirectional, zero-width, line separators, tags
}

struct Character {
    char32_t code = 0xfffd;  ///< of a byte that begins no valid sequence
    std::size_t length = 1;
};

/// The first character of a text that is not empty. Relies on isCleanUtf8() for what is valid, save for NUL.
Character firstCharacter(std::string_view text) noexcept {
    const auto lead = static_cast<unsigned char>(text.front());
    if (lead < 0x80) return {lead, 1};
    const std::size_t length = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
    if (length > text.size() || !isCleanUtf8(text.substr(0, length))) return {};
    char32_t code = lead & (0xffU >> (length + 1));
    for (std::size_t i = 1; i < length; ++i) code = (code << 6U) | (static_cast<unsigned char>(text[i]) & 0x3fU);
    return {code, length};
}

/// \uXXXX, and a surrogate pair beyond the basic plane, as JSON has no longer form.
void appendEscape(std::string& out, char32_t code) {
    constexpr std::string_view digits = "0123456789abcdef";
    const auto append = [&](char32_t unit) {
        out += "\\u";
        for (int shift = 12; shift >= 0; shift -= 4) out += digits[(unit >> static_cast<unsigned>(shift)) & 0xfU];
    };
    if (code >= 0x10000) {
        append(0xd800 + ((code - 0x10000) >> 10U));
        code = 0xdc00 + ((code - 0x10000) & 0x3ffU);
    }
    append(code);
}

/// `text` between quotes; both formats share the escapes, so that either can be read back by a JSON reader.
void appendQuoted(std::string& out, std::string_view text, std::size_t limit) {
    const std::string_view whole = text;
    out += '"';
    while (!text.empty()) {
        const Character next = firstCharacter(text);
        const std::size_t done = whole.size() - text.size();
        if (done + next.length > limit) break;
        if (next.code == '"' || next.code == '\\') {
            out += '\\';
            out += static_cast<char>(next.code);
        } else if (next.code == '\n') {
            out += "\\n";
        } else if (isHidden(next.code) || (next.code == 0xfffd && next.length == 1)) {
            appendEscape(out, next.code);
        } else {
            out += text.substr(0, next.length);
        }
        text.remove_prefix(next.length);
    }
    if (!text.empty()) out += "...(+" + std::to_string(text.size()) + " bytes)";
    out += '"';
}

/// Names of events and fields come from code, plugins' code too: what is not a name's character becomes '_'.
std::string cleanName(std::string_view name) {
    std::string clean(name.substr(0, maxNameBytes));
    for (char& c : clean) {
        const bool good = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
                          c == '_' || c == '-';
        if (!good) c = '_';
    }
    return clean.empty() ? "_" : clean;
}

void appendString(std::string& out, LogFormat format, std::string_view text) {
    const bool plain =
        format != LogFormat::Json && !text.empty() && text.size() <= maxValueBytes &&
        std::ranges::all_of(text, [](char c) { return c > 0x20 && c < 0x7f && c != '"' && c != '=' && c != '\\'; });
    if (plain) {
        out += text;
    } else {
        appendQuoted(out, text, maxValueBytes);
    }
}

void appendValue(std::string& out, LogFormat format, const LogField::Value& value) {
    if (const auto* text = std::get_if<std::string_view>(&value)) return appendString(out, format, *text);
    if (const auto* number = std::get_if<std::int64_t>(&value)) {
        out += std::to_string(*number);
    } else if (const auto* real = std::get_if<double>(&value)) {
        std::array<char, 32> digits{};
        const auto [end, error] = std::to_chars(digits.data(), digits.data() + digits.size(), *real);
        // JSON has no infinity and no NaN.
        out += std::isfinite(*real) && error == std::errc() ? std::string(digits.data(), end) : "null";
    } else {
        out += std::get<bool>(value) ? "true" : "false";
    }
}

std::string_view upperName(LogLevel level) noexcept {
    switch (level) {
        case LogLevel::Debug:
            return "DEBUG";
        case LogLevel::Info:
            return "INFO";
        case LogLevel::Warning:
            return "WARN";
        case LogLevel::Error:
            return "ERROR";
    }
    return "ERROR";
}

/// SGR sequence of ECMA-48.
std::string_view colourOf(LogLevel level) noexcept {
    switch (level) {
        case LogLevel::Debug:
            return "\x1b[36m";  // cyan
        case LogLevel::Info:
            return "\x1b[34m";  // blue
        case LogLevel::Warning:
            return "\x1b[33m";  // yellow
        case LogLevel::Error:
            return "\x1b[31m";  // red
    }
    return {};
}

spdlog::level::level_enum spdlogLevel(LogLevel level) noexcept {
    switch (level) {
        case LogLevel::Debug:
            return spdlog::level::debug;
        case LogLevel::Info:
            return spdlog::level::info;
        case LogLevel::Warning:
            return spdlog::level::warn;
        case LogLevel::Error:
            return spdlog::level::err;
    }
    return spdlog::level::err;
}

/// Writes each line by one write(2) and passes spdlog's own formatting by: a pattern cannot escape.
class DescriptorSink final : public spdlog::sinks::base_sink<std::mutex> {
public:
    explicit DescriptorSink(int fd) : fd_(fd) {}

private:
    void sink_it_(const spdlog::details::log_msg& message) override {
        line_.assign(message.payload.data(), message.payload.size());
        line_ += '\n';
        std::string_view rest = line_;
        while (!rest.empty()) {
            const ssize_t wrote = ::write(fd_, rest.data(), rest.size());
            if (wrote < 0 && errno == EINTR) continue;
            if (wrote <= 0) throw std::system_error(errno, std::generic_category(), "cannot write the log");
            rest.remove_prefix(static_cast<std::size_t>(wrote));
        }
    }
    void flush_() override {}

    const int fd_;
    std::string line_;  // kept for its memory; guarded by base_sink's mutex
};

}  // namespace

std::string_view toString(LogFormat format) noexcept {
    switch (format) {
        case LogFormat::Json:
            return "json";
        case LogFormat::Text:
            return "text";
        case LogFormat::Console:
            return "console";
    }
    return "json";
}

std::optional<LogFormat> parseLogFormat(std::string_view text) noexcept {
    for (const LogFormat format : {LogFormat::Json, LogFormat::Text, LogFormat::Console}) {
        if (text == toString(format)) return format;
    }
    return std::nullopt;
}

std::string_view toString(LogLevel level) noexcept {
    switch (level) {
        case LogLevel::Debug:
            return "debug";
        case LogLevel::Info:
            return "info";
        case LogLevel::Warning:
            return "warn";
        case LogLevel::Error:
            return "error";
    }
    return "error";
}

std::optional<LogLevel> parseLogLevel(std::string_view text) noexcept {
    for (const LogLevel level : {LogLevel::Debug, LogLevel::Info, LogLevel::Warning, LogLevel::Error}) {
        if (text == toString(level)) return level;
    }
    return std::nullopt;
}

std::string formatLogLine(LogFormat format, LogLevel level, std::chrono::system_clock::time_point time,
                          std::string_view event, std::span<const LogField> fields, bool coloured) {
    const bool json = format == LogFormat::Json;
    std::string line;
    if (json) {
        line = "{\"time\":\"" + rfc3339(time) + "\",\"level\":\"" + std::string(toString(level)) + "\",\"event\":\"" +
               cleanName(event) + "\"";
    } else {
        const bool colour = coloured && format == LogFormat::Console;
        line = "[";
        if (colour) line += colourOf(level);
        line += upperName(level);
        if (colour) line += "\x1b[0m";
        line += "] " + rfc3339(time) + " " + cleanName(event);
    }
    const auto appendField = [&](std::string_view key, const LogField::Value& value) {
        if (json) {
            line += ",\"";
            line += key;
            line += "\":";
        } else {
            line += ' ';
            line += key;
            line += '=';
        }
        appendValue(line, format, value);
    };
    // A name that is there already would let one field pass for another.
    std::set<std::string, std::less<>> used = {"time", "level", "event", "fields_dropped"};
    std::int64_t dropped = 0;
    for (const LogField& field : fields) {
        if (line.size() > maxLineBytes) {
            ++dropped;
            continue;
        }
        std::string key = cleanName(field.key);
        while (!used.insert(key).second) key += '_';
        appendField(key, field.value);
    }
    if (dropped > 0) appendField("fields_dropped", dropped);
    if (json) line += '}';
    return line;
}

bool wantsColours(int fd) noexcept {
    const char* const no = std::getenv("NO_COLOR");
    return ::isatty(fd) == 1 && (no == nullptr || *no == '\0');
}

ServerLog::ServerLog(int fd, LogFormat format, LogLevel level)
    : format_(format),
      coloured_(wantsColours(fd)),
      logger_(std::make_unique<spdlog::logger>("mergend", std::make_shared<DescriptorSink>(fd))) {
    logger_->set_level(spdlogLevel(level));
    // spdlog catches what a sink throws and comes here; its default handler would print to stderr once a second.
    logger_->set_error_handler([this](const std::string&) { dropped_.fetch_add(1, std::memory_order_relaxed); });
}

ServerLog::~ServerLog() = default;

void ServerLog::configure(LogFormat format, LogLevel level) {
    format_.store(format, std::memory_order_relaxed);
    logger_->set_level(spdlogLevel(level));
}

void ServerLog::write(LogLevel level, std::string_view event, std::span<const LogField> fields) noexcept {
    if (!logger_->should_log(spdlogLevel(level))) return;
    try {
        const std::string line = formatLogLine(format_.load(std::memory_order_relaxed), level,
                                               std::chrono::system_clock::now(), event, fields, coloured_);
        logger_->log(spdlogLevel(level), spdlog::string_view_t(line));
    } catch (const std::exception&) {  // out of memory while the line was made: nothing can be told about it here
        dropped_.fetch_add(1, std::memory_order_relaxed);
    }
}

}  // namespace mergen::server
