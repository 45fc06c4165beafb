#include <chrono>
#include <filesystem>
#include <string>
#include <unistd.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <mergen/base/unix_socket.hpp>
#include <mergen/sdk/error.hpp>

#include "scripted_server.hpp"
#include "test_host.hpp"

namespace mergen {
namespace {

using namespace std::chrono_literals;
using ::testing::AllOf;
using ::testing::HasSubstr;

class UnixSocket : public ::testing::Test {
protected:
    static constexpr auto plenty = 60s;    // never reached
    static constexpr auto moment = 100ms;  // always reached

    static SteadyTime after(std::chrono::milliseconds time) { return std::chrono::steady_clock::now() + time; }

    Error awaitError(std::chrono::milliseconds patience, const std::function<bool()>& alive,
                     const std::function<bool()>& attempt) {
        try {
            awaitSocket(watches_, socket_, "the program", after(patience), alive, attempt);
        } catch (const Error& error) {
            return error;
        }
        ADD_FAILURE() << "no error";
        return Error(ErrorKind::Internal, "no error");
    }

    FolderWatches watches_;
    test::TestHost host_{nullptr};
    const std::filesystem::path socket_ = host_.paths().runRoot / "s";
};

TEST_F(UnixSocket, PathThatNoSocketCanHaveIsRefused) {
    EXPECT_NO_THROW(checkSocketPath("/" + std::string(106, 's')));
    EXPECT_THROW(checkSocketPath("/" + std::string(107, 's')), Error);
    EXPECT_THROW(checkSocketPath("relative"), Error);
}

TEST_F(UnixSocket, AwaitsOneThatAppearsLater) {
    int attempts = 0;
    std::unique_ptr<test::ScriptedServer> server;
    awaitSocket(
        watches_, socket_, "the program", after(plenty), [] { return true; },
        [&] {
            auto connection = UnixConnection::tryConnect(socket_, ::geteuid(), after(plenty), "the program");
            if (++attempts == 1) {
                server =
                    std::make_unique<test::ScriptedServer>(socket_, [](test::ScriptedPeer& peer) { peer.awaitEnd(); });
            }
            return connection.has_value();
        });
    EXPECT_GE(attempts, 2);
}

TEST_F(UnixSocket, WaitEndsWhenTheProgramDoes) {
    const Error error = awaitError(
        plenty, [] { return false; }, [] { return false; });
    EXPECT_EQ(error.kind(), ErrorKind::Unavailable);
    EXPECT_THAT(error.what(), HasSubstr("the program ended before it listened"));
}

TEST_F(UnixSocket, WaitEndsAtItsDeadline) {
    EXPECT_EQ(awaitError(
                  moment, [] { return true; }, [] { return false; })
                  .kind(),
              ErrorKind::Timeout);
}

TEST_F(UnixSocket, ConnectionThatEndsWithTheProgramIsItsEnd) {
    // The end of its sockets is seen a moment before that of the process.
    int asked = 0;
    const Error error = awaitError(
        plenty, [&] { return ++asked < 3; },
        []() -> bool { throw Error(ErrorKind::Unavailable, "it closed the connection"); });
    EXPECT_EQ(error.kind(), ErrorKind::Unavailable);
    EXPECT_THAT(error.what(), AllOf(HasSubstr("the program ended"), HasSubstr("it closed the connection")));
}

TEST_F(UnixSocket, WhatAnAttemptThrowsOfAProgramThatLivesIsPassedOn) {
    const Error error = awaitError(
        plenty, [] { return true; }, []() -> bool { throw Error(ErrorKind::FailedPrecondition, "it refuses"); });
    EXPECT_EQ(error.kind(), ErrorKind::FailedPrecondition);
    EXPECT_STREQ(error.what(), "it refuses");
}

TEST_F(UnixSocket, StreamWithoutEndDoesNotOutliveTheDeadline) {
    test::ScriptedServer server(socket_, [](test::ScriptedPeer& peer) {
        while (peer.send(std::string(4096, 'x'))) {
        }
    });
    UnixConnection connection = UnixConnection::connect(socket_, ::geteuid(), after(moment), "the program");
    ErrorKind kind = ErrorKind::Internal;
    try {
        while (true) {
            std::string thrownAway;
            connection.receive(thrownAway);
        }
    } catch (const Error& error) {
        kind = error.kind();
    }
    EXPECT_EQ(kind, ErrorKind::Timeout);
}

}  // namespace
}  // namespace mergen
