#include "outputs.hpp"

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <fcntl.h>
#include <stdexcept>
#include <unistd.h>

#include "devices.hpp"
#include "faults.hpp"
#include "fields.hpp"

namespace mergen::fake {
namespace {

UniqueFd openOrMake(const std::string& path) {
    return UniqueFd(::open(path.c_str(), O_RDWR | O_CREAT | O_NONBLOCK | O_CLOEXEC, 0666));
}

void readLevel(JsonReader& reader) {
    if (reader.null()) return;
    std::string level = reader.string();
    std::transform(level.begin(), level.end(), level.begin(), [](unsigned char c) { return std::tolower(c); });
    for (const char* known : {"off", "trace", "debug", "info", "warn", "warning", "error"}) {
        if (level == known) return;
    }
    reader.faultOfValue("Invalid LevelFilter");
}

JsonField optionalFlag(const char* name) {
    return {name, false, [](JsonReader& reader) {
                if (!reader.null()) static_cast<void>(reader.boolean());
            }};
}

}  // namespace

std::string Metrics::readPath(JsonReader& reader) {
    std::string path;
    reader.object("MetricsConfig", {{"metrics_path", true, [&](JsonReader& value) { path = value.path(); }}},
                  /*lenient=*/true);
    return path;
}

void Metrics::open(const std::string& path) {
    const std::string prefix = "Cannot initialize the metrics system due to bad user input: ";
    if (file_) error(prefix + "Reinitialization of metrics not allowed.");
    file_ = openOrMake(path);
    if (!file_) error(prefix + osError(errno));
}

void Metrics::flush() const {
    if (!file_) return;
    const std::string line = "{\"utc_timestamp_ms\":0,\"vmm\":{\"panic_count\":0}}\n";
    static_cast<void>(!::write(file_.get(), line.data(), line.size()));
}

Logger Logger::read(JsonReader& reader) {
    Logger logger;
    std::optional<std::string> module;
    reader.object("LoggerConfig", {optionalPath("log_path", logger.path),
                                   {"level", false, readLevel},
                                   optionalFlag("show_level"),
                                   optionalFlag("show_log_origin"),
                                   optionalText("module", module)});
    return logger;
}

void Logger::open() {
    if (!path) return;
    file_ = openOrMake(*path);
    if (!file_) error("Failed to open target file: " + osError(errno));
}

Serial Serial::read(JsonReader& reader) {
    Serial serial;
    std::optional<Limiter::Bucket> limit;
    reader.object("SerialConfig", {optionalPath("serial_out_path", serial.path), bucketField("rate_limiter", limit)});
    return serial;
}

void Serial::open() {
    if (!path) return;
    file_ = openOrMake(*path);
    if (!file_) error("Failed to create device manager: Error with EventFd: " + osError(errno));
}

bool Serial::print(const std::string& text) const {
    if (!file_) return false;
    static_cast<void>(!::write(file_.get(), text.data(), text.size()));
    return true;
}

}  // namespace mergen::fake
