#include "qmp_client.hpp"

#include <atomic>
#include <chrono>
#include <optional>
#include <string>
#include <unistd.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <mergen/base/json.hpp>
#include <mergen/sdk/error.hpp>

#include "fake_qmp_server.hpp"
#include "test_host.hpp"

namespace mergen::vmm {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;

class QmpClientTest : public ::testing::Test {
protected:
    static constexpr auto plenty = 60s;    // never reached: the other side acts
    static constexpr auto moment = 100ms;  // always reached: the other side is silent

    /// Talks to a server that follows `script`.
    QmpClient connect(std::function<void(FakePeer&)> script, std::chrono::milliseconds patience = plenty) {
        server_.emplace(socket_, std::move(script));
        return QmpClient::connect(socket_, ::geteuid(), std::chrono::steady_clock::now() + patience);
    }

    /// The error of a conversation in which "query-status" is asked.
    Error errorOf(std::function<void(FakePeer&)> script, std::chrono::milliseconds patience = plenty) {
        try {
            QmpClient client = connect(std::move(script), patience);
            ADD_FAILURE() << "no error, but status " << client.queryStatus();
        } catch (const Error& error) {
            return error;
        }
        return Error(ErrorKind::Internal, "no error");
    }

    test::TestHost host_{nullptr};
    std::filesystem::path socket_ = host_.paths().runRoot / "control.sock";
    std::optional<FakeQmpServer> server_;
};

constexpr std::string_view running = R"("return": {"status": "running", "running": true})";

TEST_F(QmpClientTest, AgreesOnCapabilitiesBeforeTheFirstCommand) {
    std::string first, second;
    {
        QmpClient client = connect([&](FakePeer& peer) {
            peer.send(qmpGreeting);
            first = peer.answer(R"("return": {})");
            second = peer.answer(running);
            peer.awaitEnd();
        });
        EXPECT_EQ(client.queryStatus(), "running");
    }
    server_.reset();
    EXPECT_EQ(first, R"({"execute":"qmp_capabilities","id":1})");
    EXPECT_EQ(second, R"({"execute":"query-status","id":2})");
}

TEST_F(QmpClientTest, SendsArgumentsAsGiven) {
    std::string command;
    {
        QmpClient client = connect([&](FakePeer& peer) {
            peer.greet();
            command = peer.answer(R"("return": {})");
            peer.awaitEnd();
        });
        auto arguments = json::object();
        arguments->set("text", "a \"quoted\"\nline");
        client.execute("say", arguments);
    }
    server_.reset();
    EXPECT_EQ(command, R"({"execute":"say","arguments":{"text":"a \"quoted\"\nline"},"id":2})");
}

TEST_F(QmpClientTest, PutsMessagesTogetherFromPieces) {
    QmpClient client = connect([](FakePeer& peer) {
        for (const char c : qmpGreeting) peer.send({&c, 1});
        peer.answer(R"("return": {})");
        static_cast<void>(peer.line());
        peer.send(R"({"id": 2, "return": {"sta)");
        peer.send(R"(tus": "paused"}})");
        peer.send("\n");
        peer.awaitEnd();
    });
    EXPECT_EQ(client.queryStatus(), "paused");
}

TEST_F(QmpClientTest, PassesOverEventsAndAnswersToOthers) {
    QmpClient client = connect([](FakePeer& peer) {
        peer.greet();
        static_cast<void>(peer.line());
        peer.send(R"({"timestamp": {"seconds": 1, "microseconds": 2}, "event": "RESUME"})"
                  "\r\n"
                  R"({"event": "STOP", "id": "2"})"
                  "\r\n"
                  R"({"return": {"status": "without an id"}})"
                  "\r\n"
                  R"({"return": {"status": "of another"}, "id": 1})"
                  "\r\n"
                  R"({"return": {"status": "running"}, "id": 2})"
                  "\r\n");
        peer.awaitEnd();
    });
    EXPECT_EQ(client.queryStatus(), "running");
}

TEST_F(QmpClientTest, RefusalIsAnErrorInQemusWords) {
    const Error error = errorOf([](FakePeer& peer) {
        peer.greet();
        peer.answer(R"("error": {"class": "GenericError", "desc": "not\nnow"})");
        peer.awaitEnd();
    });
    EXPECT_EQ(error.kind(), ErrorKind::FailedPrecondition);
    EXPECT_THAT(error.what(), HasSubstr("'query-status'"));
    EXPECT_THAT(error.what(), HasSubstr("not\\x0anow")) << "control characters must not reach a log";
}

TEST_F(QmpClientTest, NobodyListeningIsUnavailable) {
    const auto deadline = std::chrono::steady_clock::now() + plenty;
    EXPECT_FALSE(QmpClient::tryConnect(socket_, ::geteuid(), deadline).has_value());
    try {
        static_cast<void>(QmpClient::connect(socket_, ::geteuid(), deadline));
        FAIL() << "connected to nothing";
    } catch (const Error& error) {
        EXPECT_EQ(error.kind(), ErrorKind::Unavailable);
        EXPECT_THAT(error.what(), HasSubstr(socket_.string()));
    }
}

TEST_F(QmpClientTest, SilenceIsATimeout) {
    EXPECT_EQ(errorOf([](FakePeer& peer) { peer.awaitEnd(); }, moment).kind(), ErrorKind::Timeout);
}

TEST_F(QmpClientTest, SilenceAfterTheGreetingIsATimeout) {
    EXPECT_EQ(errorOf(
                  [](FakePeer& peer) {
                      peer.greet();
                      peer.awaitEnd();
                  },
                  moment)
                  .kind(),
              ErrorKind::Timeout);
}

TEST_F(QmpClientTest, EventsWithoutEndAreATimeout) {
    const Error error = errorOf(
        [](FakePeer& peer) {
            peer.greet();
            while (peer.send(R"({"event": "RTC_CHANGE"})"
                             "\n")) {
            }
        },
        moment);
    EXPECT_EQ(error.kind(), ErrorKind::Timeout);
}

TEST_F(QmpClientTest, SomebodyElsesConversationIsATimeout) {
    // As QEMU: one client is served, one waits, the third cannot even connect.
    server_.emplace(socket_, [](FakePeer& peer) {
        peer.greet();
        peer.awaitEnd();
    });
    const auto connect = [&](std::chrono::milliseconds patience) {
        return QmpClient::connect(socket_, ::geteuid(), std::chrono::steady_clock::now() + patience);
    };
    QmpClient first = connect(plenty);
    try {
        static_cast<void>(connect(moment));
        FAIL() << "two were served at once";
    } catch (const Error& error) {
        EXPECT_EQ(error.kind(), ErrorKind::Timeout);
    }
}

TEST_F(QmpClientTest, EarlyCloseIsUnavailable) {
    EXPECT_EQ(errorOf([](FakePeer&) {}).kind(), ErrorKind::Unavailable);
}

TEST_F(QmpClientTest, CloseInTheMiddleOfAnAnswerIsUnavailable) {
    const Error error = errorOf([](FakePeer& peer) {
        peer.greet();
        static_cast<void>(peer.line());
        peer.send(R"({"return": {"status": "run)");
    });
    EXPECT_EQ(error.kind(), ErrorKind::Unavailable);
    EXPECT_THAT(error.what(), HasSubstr("closed"));
}

TEST_F(QmpClientTest, AnswerWithoutEndIsCutAtTheLimit) {
    std::atomic<std::size_t> taken = 0;
    const Error error = errorOf([&](FakePeer& peer) {
        peer.greet();
        static_cast<void>(peer.line());
        const std::string mebibyte(1U << 20U, ' ');
        for (int i = 0; i < 1024 && peer.send(mebibyte); ++i) taken += mebibyte.size();
    });
    EXPECT_EQ(error.kind(), ErrorKind::Unavailable);
    EXPECT_THAT(error.what(), HasSubstr("more than"));
    server_.reset();
    EXPECT_LT(taken.load(), 4U << 20U) << "the rest must not have been read";
}

class QmpGarbage : public QmpClientTest, public ::testing::WithParamInterface<const char*> {};

TEST_P(QmpGarbage, IsUnavailable) {
    const Error error = errorOf([](FakePeer& peer) {
        peer.send(GetParam());
        peer.send("\n");
        peer.awaitEnd();
    });
    EXPECT_EQ(error.kind(), ErrorKind::Unavailable) << error.what();
}
INSTANTIATE_TEST_SUITE_P(InsteadOfTheGreeting, QmpGarbage,
                         ::testing::Values("", "HTTP/1.1 400 Bad Request", "{}", "[]", "null", R"({"QMP": 7})",
                                           "{\"QMP\":", R"({"QMP": {}, "QMP": {}})", "\xff\xfe",
                                           R"({"return": {}, "id": 1})"));

class QmpOddAnswer : public QmpClientTest, public ::testing::WithParamInterface<const char*> {};

TEST_P(QmpOddAnswer, IsUnavailable) {
    const Error error = errorOf([](FakePeer& peer) {
        peer.greet();
        peer.answer(GetParam());
        peer.awaitEnd();
    });
    EXPECT_EQ(error.kind(), ErrorKind::Unavailable) << error.what();
}
INSTANTIATE_TEST_SUITE_P(ToQueryStatus, QmpOddAnswer,
                         ::testing::Values(R"("return": 7)", R"("return": [])", R"("return": null)", R"("return": {})",
                                           R"("return": {"status": 1})", R"("return": {"status": {}})",
                                           R"("error": "no")", R"("unknown": {})"));

TEST_F(QmpClientTest, SocketOfAnotherUserIsToldNothing) {
    std::string heard;
    server_.emplace(socket_, [&](FakePeer& peer) { heard = peer.line(); });
    try {
        static_cast<void>(QmpClient::connect(socket_, ::geteuid() + 1, std::chrono::steady_clock::now() + plenty));
        FAIL() << "talked to user " << ::geteuid();
    } catch (const Error& error) {
        EXPECT_EQ(error.kind(), ErrorKind::Unavailable);
        EXPECT_THAT(error.what(), HasSubstr("user"));
    }
    server_.reset();
    EXPECT_EQ(heard, "");
}

TEST_F(QmpClientTest, PathLongerThanASocketsIsRefused) {
    try {
        static_cast<void>(QmpClient::connect("/" + std::string(107, 'x'), ::geteuid(), SteadyTime::max()));
        FAIL() << "a path of 108 bytes was taken";
    } catch (const Error& error) {
        EXPECT_EQ(error.kind(), ErrorKind::InvalidArgument);
    }
}

}  // namespace
}  // namespace mergen::vmm
