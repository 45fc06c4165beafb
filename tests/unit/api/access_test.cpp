// Who may ask, over real sockets.
#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <mergen/api/access.hpp>
#include <mergen/base/file.hpp>
#include <mergen/sdk/error.hpp>

#include "raw_client.hpp"
#include "test_host.hpp"

namespace mergen::api {
namespace {

using test::RawClient;
using test::Reply;
using test::requestText;
using test::ServerFixture;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

const std::string good = R"({"id":"a","rootfs":"/r","kernel":"/k"})";

std::string bearer(const NewToken& token) {
    return "Authorization: Bearer " + token.token + "\r\n";
}

TEST(Access, LoopbackIsWhatNoOtherHostReaches) {
    for (const char* const host : {"127.0.0.1", "127.0.0.2", "127.255.255.255", "::1"}) {
        EXPECT_TRUE(isLoopback(host)) << host;
        EXPECT_NO_THROW(requireAccessControl(host, false, false)) << host;
    }
    for (const char* const host : {"0.0.0.0", "::", "126.255.255.255", "128.0.0.0", "192.0.2.1", "2001:db8::1",
                                   "::ffff:127.0.0.1", "::ffff:0.0.0.0", "::127.0.0.1", "fe80::1"}) {
        EXPECT_FALSE(isLoopback(host)) << host;
        EXPECT_THROW(requireAccessControl(host, false, false), Error) << host;
        EXPECT_NO_THROW(requireAccessControl(host, true, false)) << host;
        EXPECT_NO_THROW(requireAccessControl(host, false, true)) << host;
    }
    for (const char* const host : {"", "localhost", "example.com", "127.0.0.1.example", "127.1", "[::1]", "*"}) {
        EXPECT_THROW(requireAccessControl(host, true, true), Error) << host;
    }
}

class ApiAccess : public testing::Test {
protected:
    ApiAccess() {
        writeTokens(first_.line + "\n" + second_.line + "\n");
        tokens_ = std::make_shared<TokenFile>(folder() / "tokens");
    }
    [[nodiscard]] const std::filesystem::path& folder() const { return host_.root(); }
    void writeTokens(const std::string& text) const { writeFileAtomically(folder() / "tokens", text, 0600); }
    [[nodiscard]] ApiConfig withTokens() const {
        ApiConfig config;
        config.tokens = tokens_;
        return config;
    }
    [[nodiscard]] mergen::test::CapturingLog& log() { return host_.log(); }

    const NewToken first_ = newToken("first"), second_ = newToken("second"), foreign_ = newToken("foreign");
    std::shared_ptr<TokenFile> tokens_;

private:
    mergen::test::TestHost host_{nullptr};
};

TEST_F(ApiAccess, TheServerItselfRefusesOtherAddressesWithoutTokens) {
    for (const char* const host : {"0.0.0.0", "::", "192.0.2.1", "example.com", "127.0.0.1.example"}) {
        ApiConfig config;
        config.host = host;
        try {
            const ServerFixture fixture(config);
            FAIL() << host;
        } catch (const Error& error) {
            EXPECT_EQ(error.kind(), ErrorKind::InvalidArgument) << host;
        }
    }
    ApiConfig nothing;
    nothing.host.clear();
    EXPECT_THROW(const ServerFixture fixture(nothing), Error);
    ApiConfig other;
    other.host = "127.0.0.2";
    EXPECT_NO_THROW(const ServerFixture fixture(other));
}

TEST_F(ApiAccess, AllAddressesAreServedWithTokens) {
    ApiConfig config = withTokens();
    config.host = "0.0.0.0";
    ServerFixture fixture(config);
    EXPECT_EQ(fixture.request("GET", "/v1/vms").status, 401);
    EXPECT_EQ(fixture.request("GET", "/v1/vms", "", bearer(first_)).status, 200);
    EXPECT_THAT(fixture.request("GET", "/readyz", "", bearer(first_)).body,
                HasSubstr("0.0.0.0:" + std::to_string(fixture.port()) +
                          ", from other hosts too, with a token; refused for lack of a valid token so far: 1"));
}

TEST_F(ApiAccess, AllAddressesAreServedInsecurelyIfThatIsSaidAndReadinessSaysItToo) {
    ApiConfig config;
    config.host = "0.0.0.0";
    config.insecure = true;
    ServerFixture fixture(config);
    EXPECT_EQ(fixture.request("GET", "/v1/vms").status, 200);
    EXPECT_THAT(fixture.request("GET", "/readyz").body, HasSubstr("INSECURE: no token needed"));
}

TEST_F(ApiAccess, ARefusalIsAProblemThatAsksForABearerToken) {
    ServerFixture fixture(withTokens());
    for (const std::string& fields : {std::string(), bearer(foreign_), std::string("Authorization: Basic eDp5\r\n")}) {
        const Reply reply = fixture.request("POST", "/v1/vms", good, fields + "X-Request-Id: mine\r\n");
        EXPECT_EQ(reply.status, 401);
        EXPECT_EQ(reply.headers.at("www-authenticate"), "Bearer");
        EXPECT_EQ(reply.headers.at("content-type"), "application/problem+json");
        EXPECT_EQ(reply.headers.at("connection"), "Close");
        EXPECT_EQ(reply.headers.at("x-request-id"), "mine");
        EXPECT_EQ(reply.body,
                  R"({"type":"about:blank","title":"Unauthorized","status":401,)"
                  R"("detail":"this request needs a valid token: 'Authorization: Bearer TOKEN'","instance":"mine",)"
                  R"("error":"unauthorized",)"
                  R"("message":"this request needs a valid token: 'Authorization: Bearer TOKEN'"})");
    }
    EXPECT_TRUE(fixture.state().log().empty()) << "nothing was asked of the engine";
    const Reply head = fixture.request("HEAD", "/v1/vms");
    EXPECT_EQ(head.status, 401);
    EXPECT_EQ(head.body, "");
}

TEST_F(ApiAccess, ABodyIsNotAwaitedFromAClientThatMayNotAsk) {
    ApiConfig config = withTokens();
    config.maxBody = 1U << 20U;
    ServerFixture fixture(config);
    RawClient client(fixture.port());
    client.send("POST /v1/vms HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n");
    EXPECT_EQ(client.receive()->status, 401);
    client.send(std::string(1000000, 'x') + requestText("DELETE", "/v1/vms/a", "", bearer(first_)));
    EXPECT_TRUE(client.closed()) << "what follows on that connection is no request";
    RawClient waiting(fixture.port());
    waiting.send("POST /v1/vms HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n");
    EXPECT_EQ(waiting.receive()->status, 401) << "and not 100";
    EXPECT_TRUE(fixture.state().log().empty());
}

TEST_F(ApiAccess, EachRequestOfAConnectionIsAskedForItsToken) {
    ServerFixture fixture(withTokens());
    RawClient client(fixture.port());
    client.send(requestText("GET", "/v1/vms", "", bearer(first_)));
    EXPECT_EQ(client.receive()->status, 200);
    client.send(requestText("GET", "/v1/vms"));
    EXPECT_EQ(client.receive()->status, 401);
    RawClient pipelined(fixture.port());
    pipelined.send(requestText("GET", "/v1/vms", "", bearer(first_)) + requestText("DELETE", "/v1/vms/a"));
    EXPECT_EQ(pipelined.receive()->status, 200);
    EXPECT_EQ(pipelined.receive()->status, 401);
}

TEST_F(ApiAccess, HealthIsOpenAndNothingElseIs) {
    ServerFixture fixture(withTokens());
    EXPECT_EQ(fixture.request("GET", "/healthz").status, 200);
    EXPECT_EQ(fixture.request("HEAD", "/healthz").status, 200);
    EXPECT_EQ(fixture.request("GET", "/readyz").status, 401);
    EXPECT_EQ(fixture.request("GET", "/nowhere").status, 401) << "which routes exist is nobody's business either";
}

TEST_F(ApiAccess, AReloadCountsForOpenConnectionsToo) {
    ServerFixture fixture(withTokens());
    RawClient client(fixture.port());
    client.send(requestText("GET", "/v1/vms", "", bearer(first_)));
    EXPECT_EQ(client.receive()->status, 200);
    writeTokens(second_.line);
    tokens_->reload();
    client.send(requestText("GET", "/v1/vms", "", bearer(first_)));
    EXPECT_EQ(client.receive()->status, 401);
    EXPECT_EQ(fixture.request("GET", "/v1/vms", "", bearer(second_)).status, 200);
}

TEST_F(ApiAccess, TokensMayChangeWhileManyAsk) {
    ServerFixture fixture(withTokens());
    std::atomic<bool> end{false};
    std::atomic<int> wrong{0};
    std::vector<std::jthread> clients;
    for (int i = 0; i < 4; ++i) {
        clients.emplace_back([&] {
            while (!end) {
                if (fixture.request("GET", "/v1/vms", "", bearer(second_)).status != 200) ++wrong;
                if (fixture.request("GET", "/v1/vms", "", bearer(foreign_)).status != 401) ++wrong;
            }
        });
    }
    for (int i = 0; i < 50; ++i) {
        writeTokens((i % 2 == 0 ? "" : first_.line + "\n") + second_.line + "\n");
        tokens_->reload();
    }
    end = true;
    clients.clear();
    EXPECT_EQ(wrong, 0);
}

TEST_F(ApiAccess, WhoAskedIsToldToTheEngine) {
    ApiConfig config = withTokens();
    config.socket = folder() / "s";
    ServerFixture fixture(config);
    EXPECT_EQ(fixture.request("POST", "/v1/vms", good, bearer(second_)).status, 201);
    RawClient local(config.socket);
    local.send(requestText("POST", "/v1/vms/a/start"));
    EXPECT_EQ(local.receive()->status, 200);
    EXPECT_THAT(fixture.state().askers, ElementsAre("token:second", "uid:" + std::to_string(::getuid())));
    ServerFixture open;
    EXPECT_EQ(open.request("POST", "/v1/vms", good).status, 201);
    EXPECT_THAT(open.state().askers, ElementsAre("tcp:127.0.0.1"));
}

TEST_F(ApiAccess, NoTokenReachesTheLogWhereverAClientPutsIt) {
    ServerFixture fixture(withTokens(), log());
    const std::string secret = first_.token;
    const std::string named = R"({"id":"a","name":"x","rootfs":"/r","kernel":"/k","vcpu":")" + secret + R"("})";
    static_cast<void>(fixture.request("GET", "/v1/vms?access_token=" + secret));
    static_cast<void>(fixture.request("GET", "/v1/vms?access_token=" + secret, "", bearer(first_)));
    static_cast<void>(fixture.request("GET", "/v1/vms/a/console?tail=" + secret, "", bearer(first_)));
    static_cast<void>(fixture.request("DELETE", "/v1/vms/" + secret, "", bearer(first_)));
    static_cast<void>(fixture.request("POST", "/v1/vms", named, bearer(first_)));
    static_cast<void>(fixture.request("GET", "/v1/vms", "", secret + " x: y\r\n"));
    static_cast<void>(fixture.request("GET", "/v1/vms", "", bearer(first_) + "X-Request-Id: " + secret + "\r\n"));
    fixture.state().during = [&] { throw std::runtime_error("cause with " + secret); };
    static_cast<void>(fixture.request("POST", "/v1/vms", good, bearer(first_)));
    static_cast<void>(fixture.request("POST", "/v1/vms/a/start", "", bearer(first_)));
    fixture.end();
    EXPECT_FALSE(log().lines("api.request.done").empty());
    EXPECT_FALSE(log().lines("api.unauthorized").empty());
    EXPECT_FALSE(log().lines("http.refused").empty());
    EXPECT_FALSE(log().lines("api.request.failed").empty());
    for (const auto& line : log().lines()) {
        for (const auto& [key, value] : line.fields) {
            EXPECT_THAT(value, Not(HasSubstr(secret.substr(7, 12)))) << line.event << " " << key;
        }
    }
}

}  // namespace
}  // namespace mergen::api
