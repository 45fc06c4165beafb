#pragma once

#include <optional>
#include <string>

#include <mergen/base/fd.hpp>

#include "serde.hpp"

/// Files that Firecracker writes to.
namespace mergen::fake {

/// Where metrics go.
class Metrics {
public:
    static std::string readPath(JsonReader& reader);
    /// Throws std::runtime_error.
    void open(const std::string& path);
    /// A line; what does not fit is lost.
    void flush() const;

private:
    UniqueFd file_;
};

/// Where the log goes. It is made, and nothing is written to it.
struct Logger {
    std::optional<std::string> path;
    static Logger read(JsonReader& reader);
    /// Throws std::runtime_error.
    void open();

private:
    UniqueFd file_;
};

/// Where the guest's console goes, if not to the standard output.
struct Serial {
    std::optional<std::string> path;
    static Serial read(JsonReader& reader);
    /// Throws std::runtime_error.
    void open();
    /// Prints what fits, and says false if that is the standard output's task.
    [[nodiscard]] bool print(const std::string& text) const;

private:
    UniqueFd file_;
};

}  // namespace mergen::fake
