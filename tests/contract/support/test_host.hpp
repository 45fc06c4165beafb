#pragma once

#include <cerrno>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <mutex>
#include <ostream>
#include <span>
#include <stdlib.h>
#include <string>
#include <string_view>
#include <sys/stat.h>
#include <utility>
#include <variant>
#include <vector>

#include <gtest/gtest.h>

#include <mergen/base/file.hpp>
#include <mergen/sdk/error.hpp>
#include <mergen/sdk/plugin.hpp>

namespace mergen {

/// How GoogleTest shows one.
inline void PrintTo(ErrorKind kind, std::ostream* out) {
    *out << toString(kind);
}

}  // namespace mergen

/// What tests of plugins need of a server: a Host with temporary folders and a log that can be read.
namespace mergen::test {

/// A log line as it was written, with every value as text.
struct LogLine {
    LogLevel level;
    std::string event;
    std::map<std::string, std::string, std::less<>> fields;
};

/// Keeps every line. Threads: any.
class CapturingLog final : public Log {
public:
    void write(LogLevel level, std::string_view event, std::span<const LogField> fields) noexcept override {
        LogLine line{level, std::string(event), {}};
        for (const LogField& field : fields) line.fields.insert_or_assign(std::string(field.key), text(field.value));
        const std::lock_guard lock(mutex_);
        lines_.push_back(std::move(line));
    }

    [[nodiscard]] std::vector<LogLine> lines() const {
        const std::lock_guard lock(mutex_);
        return lines_;
    }
    /// The lines of one event, oldest first.
    [[nodiscard]] std::vector<LogLine> lines(std::string_view event) const {
        std::vector<LogLine> found = lines();
        std::erase_if(found, [&](const LogLine& line) { return line.event != event; });
        return found;
    }

private:
    static std::string text(const LogField::Value& value) {
        struct {
            std::string operator()(std::string_view v) const { return std::string(v); }
            std::string operator()(bool v) const { return v ? "true" : "false"; }
            std::string operator()(std::int64_t v) const { return std::to_string(v); }
            std::string operator()(double v) const { return std::to_string(v); }
        } const visitor;
        return std::visit(visitor, value);
    }

    mutable std::mutex mutex_;
    std::vector<LogLine> lines_;  // guarded by mutex_
};

/// A Host whose folders stand in one temporary folder, root(), which is removed at the end. Several plugin objects may
/// be configured with one TestHost one after the other: that is how a test restarts a server.
///
///     test::TestHost host(keys, {{"limit", "64"}});
///     plugin.configure(host);
///
/// root(), data and run folder have mode 0711, so that a process that runs as another user reaches what is made for it
/// there; the config folder has 0750. Paths are short enough for a unix socket below runRoot/<36 characters>/.
/// Threads: any, as a Host.
class TestHost final : public Host {
public:
    /// `keys`: the plugin's manifest table, may be null. `given`: what the INI file would say. `libexec`: see
    /// useLibexec(); empty: a folder without programs. Throws as Settings does.
    explicit TestHost(const mergen_key* keys, std::map<std::string, std::string, std::less<>> given = {},
                      const std::filesystem::path& libexec = {})
        : settings_(keys, std::move(given)), root_(makeRoot()) {
        paths_ = {root_ / "config", root_ / "data", root_ / "run", root_ / "libexec"};
        makeDirectories(paths_.configRoot, 0750);
        makeDirectories(paths_.dataRoot, 0711);
        makeDirectories(paths_.runRoot, 0711);
        makeDirectories(paths_.libexec, 0755);
        if (!libexec.empty()) useLibexec(libexec);
    }
    TestHost(const TestHost&) = delete;
    TestHost& operator=(const TestHost&) = delete;
    ~TestHost() override {
        try {
            removeTree(root_);
        } catch (const Error& error) {
            ADD_FAILURE() << "the test leaves something behind: " << error.what();
        }
    }

    [[nodiscard]] const Settings& settings() const noexcept override { return settings_; }
    [[nodiscard]] CapturingLog& log() noexcept override { return log_; }
    [[nodiscard]] const HostPaths& paths() const noexcept override { return paths_; }
    [[nodiscard]] const std::string& instance() const noexcept override { return instance_; }
    [[nodiscard]] const NetworkPlan& networkPlan() const noexcept override { return plan_; }

    [[nodiscard]] const std::filesystem::path& root() const noexcept { return root_; }

    /// Before configure(), or to see what another start() makes of it.
    void plan(NetworkPlan plan) noexcept { plan_ = plan; }

    /// Programs of Mergen's own are taken from `folder`, which stays as it is. Before configure().
    void useLibexec(std::filesystem::path folder) { paths_.libexec = std::move(folder); }

private:
    static std::filesystem::path makeRoot() {
        std::string name = (std::filesystem::temp_directory_path() / "mergen-test-XXXXXX").string();
        if (::mkdtemp(name.data()) == nullptr) throw Error::fromErrno(errno, "cannot make the folder " + name);
        if (::chmod(name.c_str(), 0711) != 0) throw Error::fromErrno(errno, "cannot set the mode of " + name);
        return name;
    }

    Settings settings_;
    CapturingLog log_;
    std::filesystem::path root_;
    HostPaths paths_;
    std::string instance_ = "0a1b2c3d";
    NetworkPlan plan_{.guests = Ipv4Network::parse("172.30.0.0/24"), .portStart = 20000, .portEnd = 30000};
};

}  // namespace mergen::test
