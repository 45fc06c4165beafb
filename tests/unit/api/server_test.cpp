#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <Poco/Net/HTTPClientSession.h>
#include <Poco/Net/HTTPRequest.h>
#include <Poco/Net/HTTPResponse.h>
#include <Poco/StreamCopier.h>
#include <Poco/String.h>
#include <gtest/gtest.h>

#include <mergen/sdk/error.hpp>

#include "raw_client.hpp"

namespace mergen::api {
namespace {

using std::chrono::milliseconds;
using test::RawClient;
using test::Reply;
using test::requestText;
using test::ServerFixture;

std::string withId(const std::string& id) {
    return R"({"id":")" + id + R"(","rootfs":"/r","kernel":"/k"})";
}

/// A door that calls of the fake engine wait at.
class Gate {
public:
    void pass() {
        std::unique_lock lock(mutex_);
        ++waiting_;
        changed_.notify_all();
        changed_.wait(lock, [this] { return open_; });
    }
    void awaitWaiting(int count) {
        std::unique_lock lock(mutex_);
        if (!changed_.wait_for(lock, std::chrono::seconds(10), [&] { return waiting_ >= count; })) {
            throw std::runtime_error("the requests did not arrive");
        }
    }
    void open() {
        const std::lock_guard lock(mutex_);
        open_ = true;
        changed_.notify_all();
    }

private:
    std::mutex mutex_;
    std::condition_variable changed_;
    int waiting_ = 0;
    bool open_ = false;
};

TEST(ApiServer, SixteenClientsAtOnceGetTheirOwnAnswers) {
    ServerFixture fixture;
    std::atomic<int> wrong{0};
    std::vector<std::jthread> clients;
    for (int client = 0; client < 16; ++client) {
        clients.emplace_back([&fixture, &wrong, client] {
            RawClient connection(fixture.port());
            for (int i = 0; i < 20; ++i) {
                const std::string id = "c" + std::to_string(client) + "-" + std::to_string(i);
                const auto ask = [&](const std::string& method, const std::string& target, const std::string& body) {
                    connection.send(requestText(method, target, body));
                    const std::optional<Reply> reply = connection.receive();
                    if (!reply || reply->text("id") != id) ++wrong;
                };
                ask("POST", "/v1/vms", withId(id));
                ask("POST", "/v1/vms/" + id + "/start", "");
                ask("GET", "/v1/vms/" + id, "");
                ask("DELETE", "/v1/vms/" + id, "");
            }
        });
    }
    clients.clear();
    EXPECT_EQ(wrong, 0);
    EXPECT_TRUE(fixture.state().vms.empty());
    EXPECT_EQ(fixture.state().log().size(), 16U * 20U * 4U);
}

TEST(ApiServer, ServesAnOrdinaryHttpClient) {
    ServerFixture fixture;
    Poco::Net::HTTPClientSession session("127.0.0.1", fixture.port());
    session.setKeepAlive(true);
    for (int i = 0; i < 3; ++i) {
        Poco::Net::HTTPRequest request("POST", "/v1/vms", "HTTP/1.1");
        const std::string body = withId("p" + std::to_string(i));
        request.setContentType("application/json");
        request.setContentLength(static_cast<std::streamsize>(body.size()));
        session.sendRequest(request) << body;
        Poco::Net::HTTPResponse response;
        std::string text;
        Poco::StreamCopier::copyToString(session.receiveResponse(response), text);
        EXPECT_EQ(response.getStatus(), 201);
        EXPECT_EQ(text, R"({"id":"p)" + std::to_string(i) + R"(","status":"created"})");
    }
}

TEST(ApiServer, SlowClientsDoNotKeepOthersWaiting) {
    ApiConfig config;
    config.threads = 2;
    ServerFixture fixture(config);
    std::vector<std::unique_ptr<RawClient>> slow;
    for (int i = 0; i < 100; ++i) {
        slow.push_back(std::make_unique<RawClient>(fixture.port()));
        slow.back()->send(i % 2 == 0 ? "GET /heal"
                                     : "POST /v1/vms HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{");
    }
    EXPECT_EQ(fixture.request("GET", "/healthz").status, 200);
}

TEST(ApiServer, ARequestThatDoesNotArriveInTimeIsRefused) {
    ApiConfig config;
    config.readTimeout = milliseconds(300);
    ServerFixture fixture(config);
    RawClient head(fixture.port());
    head.send("GET /healthz HTTP/1.1\r\n");
    RawClient body(fixture.port());
    body.send("POST /v1/vms HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{");
    RawClient silent(fixture.port());
    EXPECT_EQ(head.receive()->status, 408);
    EXPECT_EQ(body.receive()->status, 408);
    EXPECT_TRUE(silent.closed());
}

TEST(ApiServer, AnIdleConnectionIsClosed) {
    ServerFixture fixture;
    RawClient client(fixture.port());
    client.send(requestText("GET", "/healthz"));
    EXPECT_EQ(client.receive()->status, 200);
    EXPECT_TRUE(client.closed());
}

TEST(ApiServer, MoreConnectionsThanTheCapPushTheOldestIdleOut) {
    ServerFixture fixture;
    RawClient first(fixture.port());
    first.send("GET /heal");
    std::vector<std::unique_ptr<RawClient>> others;
    for (int i = 0; i < 512; ++i) others.push_back(std::make_unique<RawClient>(fixture.port()));
    EXPECT_TRUE(first.closed());
    EXPECT_EQ(fixture.request("GET", "/healthz").status, 200);
}

TEST(ApiServer, LookingWorksWhileEveryOtherThreadIsBusy) {
    ApiConfig config;
    config.threads = 4;
    ServerFixture fixture(config);
    static_cast<void>(fixture.request("POST", "/v1/vms", withId("a")));
    Gate gate;
    fixture.state().during = [&gate] { gate.pass(); };
    std::vector<std::unique_ptr<RawClient>> starters;
    for (int i = 0; i < 8; ++i) {
        starters.push_back(std::make_unique<RawClient>(fixture.port()));
        starters.back()->send(requestText("POST", "/v1/vms/a/start"));
    }
    gate.awaitWaiting(3);
    EXPECT_EQ(fixture.request("GET", "/healthz").status, 200);
    EXPECT_EQ(fixture.request("GET", "/v1/vms/a").status, 200);
    gate.open();
    for (const auto& starter : starters) EXPECT_EQ(starter->receive()->status, 200);
}

TEST(ApiServer, MoreRequestsThanMayWaitAreToldToComeAgain) {
    ApiConfig config;
    config.threads = 1;
    config.maxQueued = 2;
    ServerFixture fixture(config);
    static_cast<void>(fixture.request("POST", "/v1/vms", withId("a")));
    Gate gate;
    fixture.state().during = [&gate] { gate.pass(); };
    RawClient running(fixture.port());
    running.send(requestText("POST", "/v1/vms/a/start"));
    gate.awaitWaiting(1);
    std::vector<std::unique_ptr<RawClient>> clients;
    for (int i = 0; i < 3; ++i) {
        clients.push_back(std::make_unique<RawClient>(fixture.port()));
        clients.back()->send(requestText("GET", "/healthz"));
    }
    RawClient::awaitAny(clients);  // two of the three wait, so this is the refused one
    gate.open();
    int refused = 0;
    for (const auto& client : clients) {
        const std::optional<Reply> reply = client->receive();
        ASSERT_TRUE(reply);
        if (reply->status == 503) {
            ++refused;
            EXPECT_EQ(reply->headers.at("retry-after"), "1");
        }
    }
    EXPECT_EQ(refused, 1);
    EXPECT_EQ(running.receive()->status, 200);
}

TEST(ApiServer, AnExceptionOfAnyKindIsA500AndTheServerGoesOn) {
    ServerFixture fixture;
    static_cast<void>(fixture.request("POST", "/v1/vms", withId("a")));
    fixture.state().during = [] { throw std::runtime_error("secret of the house"); };
    const Reply known = fixture.request("POST", "/v1/vms/a/start");
    EXPECT_EQ(known.status, 500);
    EXPECT_EQ(known.text("error"), "internal_error");
    EXPECT_EQ(known.body.find("secret"), std::string::npos);
    fixture.state().during = [] { throw 7; };
    const Reply unknown = fixture.request("POST", "/v1/vms/a/start");
    EXPECT_EQ(unknown.status, 500);
    EXPECT_EQ(unknown.text("error"), "internal_error");
    EXPECT_EQ(fixture.request("GET", "/healthz").status, 200);
}

TEST(ApiServer, StopLetsARequestInProgressEnd) {
    ServerFixture fixture;
    static_cast<void>(fixture.request("POST", "/v1/vms", withId("a")));
    Gate gate;
    fixture.state().during = [&gate] { gate.pass(); };
    RawClient busy(fixture.port());
    busy.send(requestText("POST", "/v1/vms/a/start"));
    RawClient idle(fixture.port());
    RawClient partial(fixture.port());
    partial.send("GET /heal");
    gate.awaitWaiting(1);
    std::jthread stopper([&fixture] { fixture.server().stop(std::chrono::seconds(10)); });
    EXPECT_TRUE(idle.closed());
    EXPECT_TRUE(partial.closed());
    const std::uint16_t port = fixture.port();
    EXPECT_THROW(RawClient{port}, std::system_error);  // nobody listens any more
    gate.open();
    const std::optional<Reply> reply = busy.receive();
    ASSERT_TRUE(reply);
    EXPECT_EQ(reply->status, 200);
    EXPECT_EQ(Poco::icompare(reply->headers.at("connection"), "close"), 0);
    EXPECT_TRUE(busy.closed());
    stopper.join();
    fixture.server().stop(milliseconds(0));
}

TEST(ApiServer, StopDoesNotWaitBeyondItsLimit) {
    ServerFixture fixture;
    static_cast<void>(fixture.request("POST", "/v1/vms", withId("a")));
    Gate gate;
    fixture.state().during = [&gate] { gate.pass(); };
    RawClient busy(fixture.port());
    busy.send(requestText("POST", "/v1/vms/a/start"));
    gate.awaitWaiting(1);
    fixture.server().stop(milliseconds(1));  // returns although the gate is shut
    EXPECT_TRUE(busy.closed());
    gate.open();
    fixture.end();
}

TEST(ApiServer, StopsUnderLoadWithoutAHalfReply) {
    for (int round = 0; round < 10; ++round) {
        ServerFixture fixture;
        const std::uint16_t port = fixture.port();
        std::atomic<int> answered{0};
        std::vector<std::jthread> clients;
        for (int i = 0; i < 4; ++i) {
            clients.emplace_back([port, &answered] {
                try {
                    for (;;) {
                        RawClient client(port);
                        client.send(requestText("GET", "/v1/vms"));
                        if (!client.receive()) return;  // closed before it was read; a cut reply throws another type
                        ++answered;
                    }
                } catch (const std::system_error& refused) {
                    static_cast<void>(refused);  // nobody listens any more: the end of this client
                }
            });
        }
        while (answered < 20) std::this_thread::yield();
        fixture.server().stop(std::chrono::seconds(10));
    }
}

TEST(ApiServer, ATakenPortIsRefusedAndNotShared) {
    ServerFixture fixture;
    ApiConfig config;
    config.port = fixture.port();
    try {
        const ApiServer second(
            config, std::make_unique<test::FakeService>(std::make_shared<test::FakeState>()),
            [] { return std::vector<PluginRow>(); }, nullLog());
        FAIL() << "the port was given twice";
    } catch (const Error& error) {
        EXPECT_EQ(error.kind(), ErrorKind::AlreadyExists);
        EXPECT_NE(std::string(error.what()).find(std::to_string(config.port)), std::string::npos);
    }
}

}  // namespace
}  // namespace mergen::api
