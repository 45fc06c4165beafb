#pragma once

#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <variant>

#include <mergen/sdk/export.hpp>

namespace mergen {

enum class LogLevel : std::uint8_t { Debug, Info, Warning, Error };

/// One `key=value` of a log line. Borrowed: it must not outlive the statement that writes the line.
struct LogField {
    using Value = std::variant<std::string_view, std::int64_t, double, bool>;

    template <typename T>
        requires std::is_convertible_v<const T&, std::string_view>
    LogField(std::string_view k, const T& v) : key(k), value(std::string_view(v)) {}
    template <typename T>
        requires(std::is_integral_v<T> && !std::is_same_v<T, bool>)
    LogField(std::string_view k, T v) : key(k), value(static_cast<std::int64_t>(v)) {}
    LogField(std::string_view k, double v) : key(k), value(v) {}
    LogField(std::string_view k, bool v) : key(k), value(v) {}

    std::string_view key;
    Value value;
};

/// Where a plugin's or a room's log lines go. One event is one line: a fixed dotted name ("vm.start.failed") and
/// fields. Threads: may be called from any thread. Never throws: a line that cannot be written is dropped and counted.
/// Log or throw, never both: who throws stays silent, who handles the error writes the one line.
class MERGEN_SDK_API Log {
public:
    virtual ~Log();
    virtual void write(LogLevel level, std::string_view event, std::span<const LogField> fields) noexcept = 0;

    void debug(std::string_view event, std::initializer_list<LogField> fields = {}) noexcept {
        write(LogLevel::Debug, event, {fields.begin(), fields.size()});
    }
    void info(std::string_view event, std::initializer_list<LogField> fields = {}) noexcept {
        write(LogLevel::Info, event, {fields.begin(), fields.size()});
    }
    /// Survived; the fields say how we go on.
    void warning(std::string_view event, std::initializer_list<LogField> fields = {}) noexcept {
        write(LogLevel::Warning, event, {fields.begin(), fields.size()});
    }
    /// A request or a VM failed.
    void error(std::string_view event, std::initializer_list<LogField> fields = {}) noexcept {
        write(LogLevel::Error, event, {fields.begin(), fields.size()});
    }
};

/// A log that drops everything: for tests, and for code that runs before logging is set up.
[[nodiscard]] MERGEN_SDK_API Log& nullLog() noexcept;

}  // namespace mergen
