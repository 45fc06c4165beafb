#pragma once

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <sys/stat.h>
#include <unistd.h>
#include <vector>

#include <gtest/gtest.h>

#include <mergen/sdk/log.hpp>
#include <mergen/server/config_input.hpp>

#include "temp_dir.hpp"

namespace mergen::server {

using test::TempDir;

inline std::string contentOf(const std::filesystem::path& file) {
    std::ifstream stream(file);
    return {std::istreambuf_iterator<char>(stream), {}};
}

/// A configuration that is one file, "f.ini", and nothing else.
inline ConfigInput fileInput(std::string_view text) {
    ConfigInput input;
    input.files = {{"f.ini", std::string(text)}};
    return input;
}

/// Keeps the names of the events.
class EventLog final : public Log {
public:
    void write(LogLevel, std::string_view event, std::span<const LogField>) noexcept override {
        events.emplace_back(event);
    }
    std::vector<std::string> events;
};

/// Whether a permission of the file system can stop this process.
inline bool isRoot() {
    return ::geteuid() == 0;
}

}  // namespace mergen::server
