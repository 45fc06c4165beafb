#include "metrics_pipe.hpp"

#include <cerrno>
#include <chrono>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <string>
#include <sys/stat.h>
#include <unistd.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <mergen/base/file.hpp>
#include <mergen/sdk/error.hpp>

#include "test_host.hpp"

namespace mergen::vmm {
namespace {

using namespace std::chrono_literals;

/// A pipe for metrics with its writing end, held as Firecracker does: both ways, and never waiting.
class MetricsPipeTest : public ::testing::Test {
protected:
    void SetUp() override { makeMetricsPipe(path_, {::geteuid(), ::getegid()}); }

    void write(const std::string& text) {
        ASSERT_EQ(::write(writer().get(), text.data(), text.size()), static_cast<ssize_t>(text.size()));
    }
    const UniqueFd& writer() {
        if (!writer_) writer_ = openFile(path_, O_RDWR | O_NONBLOCK);
        return writer_;
    }
    /// The kind of what reading a line throws.
    ErrorKind failure(MetricsPipe& pipe, std::chrono::milliseconds patience) {
        try {
            ADD_FAILURE() << "it read " << pipe.line(std::chrono::steady_clock::now() + patience);
        } catch (const Error& error) {
            return error.kind();
        }
        return ErrorKind::Internal;
    }
    static SteadyTime soon() { return std::chrono::steady_clock::now() + 30s; }

    test::TestHost host_{nullptr};
    const std::filesystem::path path_ = host_.paths().runRoot / "metrics.fifo";
    UniqueFd writer_;
};

TEST_F(MetricsPipeTest, IsForItsUserAloneAndMadeAnew) {
    std::filesystem::remove(path_);
    std::ofstream(path_) << "something else";
    makeMetricsPipe(path_, {::geteuid(), ::getegid()});
    struct stat status {};
    ASSERT_EQ(::lstat(path_.c_str(), &status), 0);
    EXPECT_TRUE(S_ISFIFO(status.st_mode));
    EXPECT_EQ(status.st_mode & 07777U, 0600U);
}

TEST_F(MetricsPipeTest, GivesTheNextWholeLineThatIsAnObject) {
    write("rest of one that did not fit\"}}\n[1]\n{\"utc_timestamp_ms\":1,\"vcpu\":{}}\n{\"utc_timestamp_ms\":2}\n");
    MetricsPipe pipe(path_);
    EXPECT_EQ(pipe.line(soon()), R"({"utc_timestamp_ms":1,"vcpu":{}})");
}

TEST_F(MetricsPipeTest, WhatIsOldIsReadAway) {
    write("{\"old\":1}\n");
    MetricsPipe pipe(path_);
    pipe.empty();
    write("{\"new\":1}\n");
    EXPECT_EQ(pipe.line(soon()), R"({"new":1})");
}

TEST_F(MetricsPipeTest, AFullOneHoldsNoMoreAndCanBeReadAgain) {
    const std::string line(4096, 'x');
    std::size_t held = 0;
    for (ssize_t got = 0; (got = ::write(writer().get(), line.data(), line.size())) > 0;)
        held += static_cast<std::size_t>(got);
    EXPECT_EQ(errno, EAGAIN) << "whoever writes does not wait";
    EXPECT_LE(held, 1U << 20U);
    MetricsPipe pipe(path_);
    pipe.empty();
    write("{\"a\":1}\n");
    EXPECT_EQ(pipe.line(soon()), R"({"a":1})");
}

TEST_F(MetricsPipeTest, OneReadsAtATime) {
    MetricsPipe pipe(path_);
    try {
        const MetricsPipe other(path_);
        ADD_FAILURE() << "two read";
    } catch (const Error& error) {
        EXPECT_EQ(error.kind(), ErrorKind::Conflict);
    }
}

TEST_F(MetricsPipeTest, NothingNoEndAndNoPipeAreSaid) {
    {
        static_cast<void>(writer());
        MetricsPipe pipe(path_);
        EXPECT_EQ(failure(pipe, 20ms), ErrorKind::Timeout);
        write("{\"half\":");
        EXPECT_EQ(failure(pipe, 20ms), ErrorKind::Timeout);
        writer_.reset();
        EXPECT_EQ(failure(pipe, 30s), ErrorKind::Unavailable) << "Firecracker has ended";
    }
    std::filesystem::remove(path_);
    try {
        const MetricsPipe pipe(path_);
        ADD_FAILURE() << "there is none";
    } catch (const Error& error) {
        EXPECT_EQ(error.kind(), ErrorKind::NotSupported);
    }
    std::ofstream(path_) << "no pipe";
    try {
        const MetricsPipe pipe(path_);
        ADD_FAILURE() << "it is a file";
    } catch (const Error& error) {
        EXPECT_EQ(error.kind(), ErrorKind::Unavailable);
    }
}

}  // namespace
}  // namespace mergen::vmm
