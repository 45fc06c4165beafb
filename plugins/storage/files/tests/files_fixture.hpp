#pragma once

#include <cstdio>
#include <exception>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <sstream>
#include <string>
#include <string_view>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <mergen/base/file.hpp>
#include <mergen/sdk/failpoint.hpp>

#include "files_storage.hpp"
#include "test_host.hpp"

namespace mergen::storage {

/// A started FilesStorage, and what a test does to its folder behind its back.
class FilesTest : public ::testing::Test {
protected:
    explicit FilesTest(std::map<std::string, std::string, std::less<>> settings = {})
        : host_(FilesStorage::keys, std::move(settings)) {
        start();
    }
    ~FilesTest() override { failpoint::arm(""); }

    void start() {
        storage_.reset();
        storage_ = std::make_unique<FilesStorage>();
        storage_->configure(host_);
        storage_->start();
    }
    void stop() { storage_.reset(); }

    [[nodiscard]] FilesStorage& storage() { return *storage_; }
    [[nodiscard]] test::TestHost& host() { return host_; }
    [[nodiscard]] const std::filesystem::path& root() const { return host_.paths().configRoot; }

    /// Names in the records' folder, hidden ones included.
    [[nodiscard]] std::vector<std::string> names() const { return listDirectory(root()); }

    static RecordId id(std::string_view text) { return RecordId::parse(text); }

    static void write(const std::filesystem::path& path, std::string_view content) {
        std::ofstream file(path, std::ios::binary | std::ios::trunc);
        file << content;
        file.close();
        ASSERT_TRUE(file) << path;
    }
    [[nodiscard]] static std::string slurp(const std::filesystem::path& path) {
        const std::ifstream file(path, std::ios::binary);
        EXPECT_TRUE(file) << path;
        std::ostringstream content;
        content << file.rdbuf();
        return content.str();
    }

    [[nodiscard]] static std::optional<Error> errorOf(const std::function<void()>& action) {
        try {
            action();
        } catch (const Error& error) {
            return error;
        }
        return std::nullopt;
    }

    /// Runs `action` in a child, which ends with status 0, or 1 if it throws; gives the status of waitpid(2). The child
    /// is left by _exit, so that it takes none of this process's folders away.
    [[nodiscard]] static int inChild(const std::function<void()>& action) {
        const pid_t child = ::fork();
        if (child == 0) {
            try {
                action();
            } catch (const std::exception& error) {
                std::fprintf(stderr, "child: %s\n", error.what());
                ::_exit(1);
            }
            ::_exit(0);
        }
        EXPECT_GT(child, 0);
        int status = -1;
        EXPECT_EQ(::waitpid(child, &status, 0), child);
        return status;
    }

private:
    test::TestHost host_;
    std::unique_ptr<FilesStorage> storage_;
};

}  // namespace mergen::storage
