#include "api_client.hpp"

#include <chrono>
#include <optional>
#include <string>
#include <unistd.h>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <mergen/base/json.hpp>

#include "scripted_server.hpp"
#include "test_host.hpp"

namespace mergen::vmm {
namespace {

using namespace std::chrono_literals;
using test::ScriptedPeer;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

/// An answer as Firecracker gives one.
std::string answer(int status, const std::string& body = "") {
    std::string text =
        "HTTP/1.1 " + std::to_string(status) + " \r\nServer: Firecracker API\r\nConnection: keep-alive\r\n";
    if (status != 204)
        text += "Content-Type: application/json\r\nContent-Length: " + std::to_string(body.size()) + "\r\n";
    return text + "\r\n" + body;
}

/// Head and body of the next request.
std::string request(ScriptedPeer& peer) {
    const std::string head = peer.until("\r\n\r\n");
    constexpr std::string_view key = "Content-Length: ";
    const std::size_t at = head.find(key);
    return head + "\n\n" + (at == std::string::npos ? "" : peer.bytes(std::stoul(head.substr(at + key.size()))));
}

class ApiClientTest : public ::testing::Test {
protected:
    static constexpr auto plenty = 60s;    // never reached: the other side acts
    static constexpr auto moment = 100ms;  // always reached: the other side is silent

    ApiClient connect(std::function<void(ScriptedPeer&)> script, std::chrono::milliseconds patience = plenty) {
        server_.reset();
        ::unlink(socket_.c_str());
        server_.emplace(socket_, std::move(script));
        return ApiClient::connect(socket_, ::geteuid(), std::chrono::steady_clock::now() + plenty, patience);
    }

    /// The error of asking for the state where the answer is `bytes`.
    Error errorOf(const std::string& bytes, std::chrono::milliseconds patience = plenty) {
        return errorOfScript(
            [bytes](ScriptedPeer& peer) {
                static_cast<void>(request(peer));
                peer.send(bytes);
                peer.awaitEnd();
            },
            patience);
    }

    Error errorOfScript(std::function<void(ScriptedPeer&)> script, std::chrono::milliseconds patience = plenty) {
        try {
            ApiClient client = connect(std::move(script), patience);
            ADD_FAILURE() << "no error, but state " << toString(client.instance().state);
        } catch (const Error& error) {
            return error;
        }
        return Error(ErrorKind::Internal, "no error");
    }

    test::TestHost host_{nullptr};
    std::filesystem::path socket_ = host_.paths().runRoot / "api.sock";
    std::optional<test::ScriptedServer> server_;
};

TEST_F(ApiClientTest, OneConnectionCarriesAllCallsAsHttpHasThem) {
    std::vector<std::string> heard;
    {
        ApiClient client = connect([&](ScriptedPeer& peer) {
            for (const std::string& reply :
                 {answer(200, R"({"id":"x","state":"Not started","vmm_version":"1.16.1","app_name":"Firecracker"})"),
                  answer(204), answer(204)}) {
                heard.push_back(request(peer));
                peer.send(reply);
            }
            peer.awaitEnd();
        });
        const ApiClient::Instance instance = client.instance();
        EXPECT_EQ(instance.state, GuestState::NotStarted);
        EXPECT_EQ(instance.version, "1.16.1");
        auto body = json::object();
        body->set("action_type", std::string("InstanceStart"));
        client.put("/actions", *body);
        client.patch("/vm", *body);
    }
    server_.reset();
    ASSERT_EQ(heard.size(), 3U);
    EXPECT_THAT(heard[0], AllOf(StartsWith("GET / HTTP/1.1\r\nHost: localhost\r\n"), Not(HasSubstr("Content-Length"))));
    EXPECT_THAT(heard[1], AllOf(StartsWith("PUT /actions HTTP/1.1\r\n"), HasSubstr("Content-Length: 31"),
                                HasSubstr("\n\n{\"action_type\":\"InstanceStart\"}")));
    EXPECT_THAT(heard[2], StartsWith("PATCH /vm HTTP/1.1\r\n"));
}

TEST_F(ApiClientTest, AnswersInPiecesAreWhole) {
    ApiClient client = connect([](ScriptedPeer& peer) {
        static_cast<void>(request(peer));
        for (const char c : answer(200, R"({"state":"Paused"})")) peer.send(std::string(1, c));
        peer.awaitEnd();
    });
    const ApiClient::Instance instance = client.instance();
    EXPECT_EQ(instance.state, GuestState::Paused);
    EXPECT_EQ(instance.version, "");
}

TEST_F(ApiClientTest, RefusalHasTheCallAndFirecrackersWords) {
    ApiClient client = connect([](ScriptedPeer& peer) {
        static_cast<void>(request(peer));
        peer.send(answer(400, R"({"fault_message":"Drive config error: no such \"disk\""})"));
        static_cast<void>(request(peer));
        peer.send(answer(204));
        peer.awaitEnd();
    });
    try {
        client.put("/drives/rootfs", *json::object());
        ADD_FAILURE() << "it was taken for a success";
    } catch (const Error& error) {
        EXPECT_EQ(error.kind(), ErrorKind::FailedPrecondition);
        EXPECT_STREQ(error.what(), "PUT /drives/rootfs: it refuses: Drive config error: no such \"disk\"");
    }
    EXPECT_NO_THROW(client.put("/drives/rootfs", *json::object())) << "the connection goes on";
}

TEST_F(ApiClientTest, ServerThatIsFullSaysSoInAnotherMember) {
    const Error error = errorOf(
        "HTTP/1.1 503\r\nServer: Firecracker API\r\nConnection: close\r\nContent-Length: 40\r\n\r\n"
        "{ \"error\": \"Too many open connections\" }");
    EXPECT_EQ(error.kind(), ErrorKind::Unavailable);
    EXPECT_THAT(error.what(), AllOf(HasSubstr("GET /"), HasSubstr("Too many open connections"), HasSubstr("503")));
}

TEST_F(ApiClientTest, RefusalThatIsNoJsonIsShownAsItIs) {
    const Error error = errorOf(answer(400, "{ \"error\": \"Invalid request.\nAll dropped.\" }"));
    EXPECT_EQ(error.kind(), ErrorKind::FailedPrecondition);
    EXPECT_THAT(error.what(), AllOf(HasSubstr("Invalid request."), Not(HasSubstr("\n"))));
}

TEST_F(ApiClientTest, TooLargeIsResourceExhausted) {
    EXPECT_EQ(errorOf(answer(413, R"({"fault_message":"no room"})")).kind(), ErrorKind::ResourceExhausted);
}

TEST_F(ApiClientTest, LinesAndBodiesBeyondItsLimitsAreNotSent) {
    ApiClient client = connect([](ScriptedPeer& peer) { peer.awaitEnd(); });
    auto body = json::object();
    body->set("x", std::string(ApiClient::maxBodyBytes, 'x'));
    for (const auto& call : std::vector<std::function<void()>>{
             [&] { client.put("/mmds", *body); },
             [&] { static_cast<void>(client.get("/" + std::string(ApiClient::maxLineBytes, 'x'))); }}) {
        try {
            call();
            ADD_FAILURE() << "it was sent";
        } catch (const Error& error) {
            EXPECT_EQ(error.kind(), ErrorKind::ResourceExhausted) << error.what();
        }
    }
}

TEST_F(ApiClientTest, NobodyListeningIsNothingOrUnavailable) {
    const auto deadline = std::chrono::steady_clock::now() + plenty;
    EXPECT_FALSE(ApiClient::tryConnect(socket_, ::geteuid(), deadline, plenty).has_value());
    try {
        static_cast<void>(ApiClient::connect(socket_, ::geteuid(), deadline, plenty));
        ADD_FAILURE() << "connected to nobody";
    } catch (const Error& error) {
        EXPECT_EQ(error.kind(), ErrorKind::Unavailable);
        EXPECT_THAT(error.what(), HasSubstr(socket_.string()));
    }
}

TEST_F(ApiClientTest, AnotherUsersSocketIsToldNothing) {
    bool told = false;
    server_.emplace(socket_, [&](ScriptedPeer& peer) { told = !request(peer).starts_with("\n\n"); });
    try {
        static_cast<void>(
            ApiClient::connect(socket_, ::geteuid() + 1, std::chrono::steady_clock::now() + plenty, plenty));
        ADD_FAILURE() << "talked to another user";
    } catch (const Error& error) {
        EXPECT_EQ(error.kind(), ErrorKind::Unavailable);
    }
    server_.reset();
    EXPECT_FALSE(told);
}

TEST_F(ApiClientTest, SilenceIsATimeoutOfTheCall) {
    const Error error = errorOf("", moment);
    EXPECT_EQ(error.kind(), ErrorKind::Timeout);
    EXPECT_THAT(error.what(), HasSubstr("GET /"));
    EXPECT_EQ(errorOf("HTTP/1.1 200 \r\nContent-Length: 400\r\n\r\n{", moment).kind(), ErrorKind::Timeout)
        << "half an answer";
}

TEST_F(ApiClientTest, EndOfTheConnectionIsUnavailableAtOnce) {
    const Error error = errorOfScript([](ScriptedPeer& peer) { static_cast<void>(request(peer)); });
    EXPECT_EQ(error.kind(), ErrorKind::Unavailable);
    EXPECT_THAT(error.what(), HasSubstr("closed the connection"));
}

TEST_F(ApiClientTest, StreamWithoutEndIsCutOff) {
    for (const std::string head : {"", "HTTP/1.1 200 \r\nX: ", "HTTP/1.1 200 \r\nContent-Length: 60000\r\n\r\n"}) {
        const Error error = errorOfScript([head](ScriptedPeer& peer) {
            static_cast<void>(request(peer));
            peer.send(head);
            while (peer.send(std::string(4096, 'x'))) {
            }
        });
        EXPECT_EQ(error.kind(), ErrorKind::Unavailable) << error.what();
    }
}

/// What is no answer of Firecracker's, one thing wrong in each.
class OddAnswer : public ApiClientTest, public ::testing::WithParamInterface<std::pair<const char*, std::string>> {};

TEST_P(OddAnswer, IsUnavailableAndNeverBelieved) {
    const Error error = errorOf(GetParam().second);
    EXPECT_EQ(error.kind(), ErrorKind::Unavailable) << error.what();
    EXPECT_THAT(error.what(), HasSubstr("GET /"));
}

const std::string body = R"({"state":"Running"})";

INSTANTIATE_TEST_SUITE_P(
    ToGet, OddAnswer,
    ::testing::Values(
        std::pair("NoHttp", std::string("SSH-2.0-OpenSSH\r\n\r\n")),
        std::pair("NoStatus", std::string("HTTP/1.1\r\n\r\n")),
        std::pair("WordForAStatus", std::string("HTTP/1.1 abc \r\n\r\n")),
        std::pair("StatusOfFourDigits", std::string("HTTP/1.1 2000 \r\nContent-Length: 0\r\n\r\n")),
        std::pair("Continue", std::string("HTTP/1.1 100 \r\n\r\n")), std::pair("Redirect", answer(302, "{}")),
        std::pair("ServerError", answer(500, "{}")),
        std::pair("HeaderWithoutColon", std::string("HTTP/1.1 200 \r\nX\r\n\r\n")),
        std::pair("NoLength", std::string("HTTP/1.1 200 \r\n\r\n") + body),
        std::pair("NegativeLength", std::string("HTTP/1.1 200 \r\nContent-Length: -1\r\n\r\n")),
        std::pair("HexLength", std::string("HTTP/1.1 200 \r\nContent-Length: 0x10\r\n\r\n")),
        std::pair("LengthBeyondAnyNumber",
                  std::string("HTTP/1.1 200 \r\nContent-Length: 99999999999999999999999\r\n\r\n")),
        std::pair("LengthBeyondTheLimit", std::string("HTTP/1.1 200 \r\nContent-Length: 1000000000\r\n\r\n")),
        std::pair("TwoLengths", std::string("HTTP/1.1 200 \r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{} ")),
        std::pair("Chunked", std::string("HTTP/1.1 200 \r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")),
        std::pair("MoreThanItsLength", answer(200, body) + "x"),
        std::pair("NoContentWithContent", std::string("HTTP/1.1 204 \r\nContent-Length: 2\r\n\r\n{}")),
        std::pair("Nothing", answer(204)), std::pair("NoJson", answer(200, "state: Running")),
        std::pair("AnArray", answer(200, "[1]")),
        std::pair("TwoStates", answer(200, R"({"state":"Running","state":"Paused"})")),
        std::pair("NoState", answer(200, "{}")), std::pair("UnknownState", answer(200, R"({"state":"Dreaming"})")),
        std::pair("StateThatIsANumber", answer(200, R"({"state":1})"))),
    [](const auto& odd) { return std::string(odd.param.first); });

}  // namespace
}  // namespace mergen::vmm
