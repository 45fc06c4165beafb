#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include <mergen/sdk/log.hpp>

namespace spdlog {
class logger;
}

namespace mergen::server {

enum class LogFormat : std::uint8_t {
    Json,     ///< {"time":"...","level":"info","event":"vm.started","vm":"web"}
    Text,     ///< [INFO] 2026-11-22T04:52:00.123Z vm.started vm=web
    Console,  ///< the same for a person: the level has a colour where the terminal can show it
};
[[nodiscard]] std::string_view toString(LogFormat format) noexcept;
[[nodiscard]] std::optional<LogFormat> parseLogFormat(std::string_view text) noexcept;
[[nodiscard]] std::string_view toString(LogLevel level) noexcept;
[[nodiscard]] std::optional<LogLevel> parseLogLevel(std::string_view text) noexcept;

/// One event as one line without the newline. Whatever the values hold, it stays one line, cannot move a terminal's
/// cursor, turn its text around (Unicode's bidirectional controls) or pass for another field: control characters,
/// bidirectional and invisible ones are written as escapes, bytes that are not UTF-8 as U+FFFD. A value ends at 4 KiB
/// and a line at about 16 KiB; what was cut is counted in it. `coloured` (Console only): the level's name in blue
/// (INFO), yellow (WARN), red (ERROR) or cyan (DEBUG).
[[nodiscard]] std::string formatLogLine(LogFormat format, LogLevel level, std::chrono::system_clock::time_point time,
                                        std::string_view event, std::span<const LogField> fields,
                                        bool coloured = false);

/// Whether lines of the format Console on `fd` should have colours: it is a terminal, and the environment does not say
/// NO_COLOR (https://no-color.org).
[[nodiscard]] bool wantsColours(int fd) noexcept;

/// The log of the server, over spdlog. Each line is one write(2) to `fd`, so that lines of several processes on one
/// journal or pipe do not mix. Threads: any. A line that cannot be written is dropped and counted.
class ServerLog final : public Log {
public:
    /// `fd` is borrowed.
    ServerLog(int fd, LogFormat format, LogLevel level);
    /// From the next line on.
    void configure(LogFormat format, LogLevel level);
    ~ServerLog() override;

    void write(LogLevel level, std::string_view event, std::span<const LogField> fields) noexcept override;

    /// How many lines could not be written.
    [[nodiscard]] std::uint64_t dropped() const noexcept { return dropped_.load(std::memory_order_relaxed); }

private:
    std::atomic<LogFormat> format_;
    const bool coloured_;
    std::atomic<std::uint64_t> dropped_{0};
    std::unique_ptr<spdlog::logger> logger_;  // its sink counts into dropped_
};

}  // namespace mergen::server
