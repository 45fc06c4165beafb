#include <string>
#include <vector>

#include <Poco/String.h>
#include <gtest/gtest.h>

#include <mergen/base/text.hpp>

#include "raw_client.hpp"

namespace mergen::api {
namespace {

using namespace std::string_literals;
using test::RawClient;
using test::Reply;
using test::ServerFixture;

const std::string good = R"({"rootfs":"/r","kernel":"/k"})";  // 29 bytes

struct Wrong {
    std::string name;
    std::string bytes;
    int status;
};

std::string get(const std::string& lines) {
    return "GET /healthz HTTP/1.1\r\n" + lines + "\r\n";
}

/// A create whose head has these lines, and whose body is good.
std::string post(const std::string& lines, const std::string& body = good) {
    return "POST /v1/vms HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n" + lines + "\r\n" + body;
}

std::vector<Wrong> wrongMessages() {
    const std::string chunked = "1d\r\n" + good + "\r\n0\r\n\r\n";
    std::vector<Wrong> wrong{
        // Where does the message end? (RFC 9112, 6)
        {"length and chunked", post("Content-Length: 29\r\nTransfer-Encoding: chunked\r\n"), 400},
        {"chunked and length", post("Transfer-Encoding: chunked\r\nContent-Length: 29\r\n", chunked), 400},
        {"two lengths that differ", post("Content-Length: 29\r\nContent-Length: 5\r\n"), 400},
        {"two lengths that agree", post("Content-Length: 29\r\nContent-Length: 29\r\n"), 400},
        {"a list of lengths", post("Content-Length: 29, 29\r\n"), 400},
        {"a negative length", post("Content-Length: -1\r\n"), 400},
        {"a length with a sign", post("Content-Length: +29\r\n"), 400},
        {"a hexadecimal length", post("Content-Length: 0x1d\r\n"), 400},
        {"an empty length", post("Content-Length: \r\n"), 400},
        {"a length with a blank inside", post("Content-Length: 2 9\r\n"), 400},
        {"a length with a fraction", post("Content-Length: 29.0\r\n"), 400},
        {"a length beyond 64 bits", post("Content-Length: 18446744073709551616\r\n"), 400},
        {"a length beyond the limit", post("Content-Length: 1048577\r\n", ""), 413},
        {"a huge length", post("Content-Length: 9223372036854775807\r\n", ""), 413},
        {"a chunked body", post("Transfer-Encoding: chunked\r\n", chunked), 411},
        {"a chunked body in capitals", post("Transfer-Encoding: CHUNKED\r\n", chunked), 411},
        {"gzip, chunked", post("Transfer-Encoding: gzip, chunked\r\n", chunked), 400},
        {"chunked, identity", post("Transfer-Encoding: chunked, identity\r\n", chunked), 400},
        {"xchunked", post("Transfer-Encoding: xchunked\r\n", chunked), 400},
        {"identity", post("Transfer-Encoding: identity\r\n"), 400},
        {"two transfer codings", post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", chunked), 400},
        {"a vertical tab before chunked",
         post("Transfer-Encoding: \x0b"
              "chunked\r\n",
              chunked),
         400},
        {"a blank before the colon", post("Transfer-Encoding : chunked\r\n", chunked), 400},
        {"a coding in HTTP/1.0", "POST /v1/vms HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked, 400},
        {"no length for a body", post("", ""), 411},
        // Lines.
        {"a bare line feed after the request line", "GET /healthz HTTP/1.1\nHost: localhost\r\n\r\n", 400},
        {"bare line feeds only", "GET /healthz HTTP/1.1\nHost: localhost\n\n", 400},
        {"a bare line feed in a value", get("Host: localhost\r\nA: b\nC: d\r\n"), 400},
        {"a bare carriage return in a value", get("Host: localhost\r\nA: b\rC: d\r\n"), 400},
        {"a folded field", get("Host: localhost\r\nA: b\r\n c\r\n"), 400},
        {"a first field with a blank before it", get(" Host: localhost\r\n"), 400},
        {"a line without a colon", get("Host: localhost\r\nnonsense\r\n"), 400},
        {"an empty field name", get("Host: localhost\r\n: a\r\n"), 400},
        {"a parenthesis in a name", get("Host: localhost\r\nFo(o: a\r\n"), 400},
        {"a NUL in a name", get("Host: localhost\r\nA\0B: a\r\n"s), 400},
        {"a NUL in a value", get("Host: localhost\r\nA: a\0b\r\n"s), 400},
        {"a DEL in a value", get("Host: localhost\r\nA: a\x7f\r\n"), 400},
        {"an escape in a value", get("Host: localhost\r\nA: \x1b[2J\r\n"), 400},
        // The request line.
        {"no target", "GET HTTP/1.1\r\nHost: localhost\r\n\r\n", 400},
        {"no version", "GET /healthz\r\nHost: localhost\r\n\r\n", 400},
        {"two blanks", "GET  /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", 400},
        {"tabs", "GET\t/healthz\tHTTP/1.1\r\nHost: localhost\r\n\r\n", 400},
        {"a blank in the target", "GET /health z HTTP/1.1\r\nHost: localhost\r\n\r\n", 400},
        {"a NUL in the target", "GET /healthz\0 HTTP/1.1\r\nHost: localhost\r\n\r\n"s, 400},
        {"a byte beyond ASCII in the target", "GET /\xc3\xa9 HTTP/1.1\r\nHost: localhost\r\n\r\n", 400},
        {"a fragment", "GET /healthz#a HTTP/1.1\r\nHost: localhost\r\n\r\n", 400},
        {"an absolute target", "GET http://localhost/healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", 400},
        {"an asterisk", "OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n", 400},
        {"a blank after the version", "GET /healthz HTTP/1.1 \r\nHost: localhost\r\n\r\n", 400},
        {"a version in small letters", "GET /healthz http/1.1\r\nHost: localhost\r\n\r\n", 400},
        {"HTTP/1.10", "GET /healthz HTTP/1.10\r\nHost: localhost\r\n\r\n", 400},
        {"HTTP/1.2", "GET /healthz HTTP/1.2\r\nHost: localhost\r\n\r\n", 505},
        {"HTTP/9.9", "GET /healthz HTTP/9.9\r\nHost: localhost\r\n\r\n", 505},
        {"the preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505},
        {"a method that is no token", "G@T /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", 400},
        {"a TLS handshake", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n"s, 400},
        // Host.
        {"no Host", get(""), 400},
        {"two Hosts", get("Host: localhost\r\nHost: localhost\r\n"), 400},
        // Limits.
        {"a long target", "GET /" + std::string(8192, 'a') + " HTTP/1.1\r\nHost: localhost\r\n\r\n", 414},
        {"an endless request line", "GET /" + std::string(20000, 'a'), 414},
        {"a long head", get("Host: localhost\r\nA: " + std::string(16384, 'a') + "\r\n"), 431},
        {"an expectation that cannot be met", post("Content-Length: 29\r\nExpect: a-pony\r\n"), 417},
    };
    std::string fields = "Host: localhost\r\n";
    for (int i = 0; i < 100; ++i) fields += "A" + std::to_string(i) + ": b\r\n";
    wrong.push_back({"101 fields", get(fields), 431});
    std::string emptyLines;
    for (int i = 0; i < 9; ++i) emptyLines += "\r\n";
    wrong.push_back({"nine empty lines before the request", emptyLines + get("Host: localhost\r\n"), 400});
    return wrong;
}

TEST(ApiStrictness, EveryAmbiguousMessageIsRefusedAndItsConnectionClosed) {
    ServerFixture fixture;
    const std::vector<Wrong> messages = wrongMessages();
    ASSERT_GE(messages.size(), 40U);
    for (const Wrong& wrong : messages) {
        SCOPED_TRACE(wrong.name);
        RawClient client(fixture.port());
        // What follows must not be taken for a request of its own.
        client.send(wrong.bytes + "DELETE /v1/vms/smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n");
        const std::optional<Reply> reply = client.receive();
        ASSERT_TRUE(reply);
        EXPECT_EQ(reply->status, wrong.status) << reply->body;
        EXPECT_EQ(reply->headers.at("content-type"), "application/problem+json");
        EXPECT_EQ(reply->text("instance"), reply->headers.at("x-request-id"));
        EXPECT_EQ(Poco::icompare(reply->headers.at("connection"), "close"), 0);
        client.finishSending();
        EXPECT_TRUE(client.closed());
    }
    EXPECT_TRUE(fixture.state().log().empty());
}

TEST(ApiStrictness, ABodyThatEndsTooSoonIsRefusedAndNothingIsDone) {
    ServerFixture fixture;
    for (std::size_t length = 0; length < good.size(); ++length) {
        RawClient client(fixture.port());
        client.send(post("Content-Length: 29\r\n", good.substr(0, length)));
        client.finishSending();
        const std::optional<Reply> reply = client.receive();
        ASSERT_TRUE(reply);
        EXPECT_EQ(reply->status, 400);
    }
    EXPECT_TRUE(fixture.state().log().empty());
}

TEST(ApiStrictness, AHeadThatEndsTooSoonIsRefused) {
    ServerFixture fixture;
    const std::string whole = get("Host: localhost\r\n");
    for (std::size_t length = 1; length < whole.size(); ++length) {
        RawClient client(fixture.port());
        client.send(whole.substr(0, length));
        client.finishSending();
        const std::optional<Reply> reply = client.receive();
        ASSERT_TRUE(reply) << length;
        EXPECT_EQ(reply->status, 400);
    }
    RawClient silent(fixture.port());
    silent.finishSending();
    EXPECT_TRUE(silent.closed());
}

TEST(ApiStrictness, AMessageMayArriveByteByByte) {
    ServerFixture fixture;
    RawClient client(fixture.port());
    for (const char c : post("Content-Length: 29\r\n")) client.send(std::string(1, c));
    EXPECT_EQ(client.receive()->status, 201);
}

TEST(ApiStrictness, WhatIsOddButPlainIsTaken) {
    ServerFixture fixture;
    for (const std::string& text : {
             "\r\n" + get("Host: localhost\r\n"),
             get("hOsT:127.0.0.1:8080\r\n"),
             get("Host:\t localhost \t\r\n"),
             get("Host: [::1]:80\r\nX: \xc3\xa9\r\n"),
             get("Host: LOCALHOST\r\nEmpty:\r\n"),
             "GET /healthz HTTP/1.0\r\n\r\n"s,
             get("Host: localhost\r\nContent-Length: 0\r\n"),
             "GET /%68ealthz HTTP/1.1\r\nHost: localhost\r\n\r\n"s,
             "GET /healthz? HTTP/1.1\r\nHost: localhost\r\n\r\n"s,
         }) {
        SCOPED_TRACE(printable(text));
        RawClient client(fixture.port());
        client.send(text);
        EXPECT_EQ(client.receive()->status, 200);
    }
}

TEST(ApiStrictness, PipelinedRequestsAreAnsweredInOrder) {
    ServerFixture fixture;
    RawClient client(fixture.port());
    client.send(post("Content-Length: 29\r\n") + "GET /v1/vms/vm-1 HTTP/1.1\r\nHost: localhost\r\n\r\n" +
                "DELETE /v1/vms/vm-1 HTTP/1.1\r\nHost: localhost\r\n\r\n" +
                get("Host: localhost\r\nConnection: close\r\n"));
    EXPECT_EQ(client.receive()->status, 201);
    EXPECT_EQ(client.receive()->text("id"), "vm-1");
    EXPECT_EQ(client.receive()->text("status"), "deleted");
    EXPECT_EQ(client.receive()->text("status"), "ok");
    EXPECT_TRUE(client.closed());
}

TEST(ApiStrictness, AClientThatWaitsForContinueGetsIt) {
    ServerFixture fixture;
    RawClient client(fixture.port());
    client.send(post("Content-Length: 29\r\nExpect: 100-continue\r\n", ""));
    EXPECT_EQ(client.receive()->status, 100);
    client.send(good);
    EXPECT_EQ(client.receive()->status, 201);
    RawClient tooBig(fixture.port());
    tooBig.send(post("Content-Length: 2000000\r\nExpect: 100-continue\r\n", ""));
    EXPECT_EQ(tooBig.receive()->status, 413);
}

TEST(ApiStrictness, ABodyOfExactlyTheLimitIsRead) {
    ApiConfig config;
    config.maxBody = 64;
    ServerFixture fixture(config);
    const std::string padded = good + std::string(64 - good.size(), ' ');
    EXPECT_EQ(fixture.request("POST", "/v1/vms", padded).status, 201);
    EXPECT_EQ(fixture.request("POST", "/v1/vms", padded + " ").status, 413);
}

TEST(ApiStrictness, BodiesMustSayThatTheyAreJson) {
    ServerFixture fixture;
    const auto sent = [&](const std::string& type) {
        RawClient client(fixture.port());
        client.send("POST /v1/vms HTTP/1.1\r\nHost: localhost\r\nContent-Length: 29\r\n" + type + "\r\n" + good);
        return client.receive()->status;
    };
    EXPECT_EQ(sent(""), 415);
    EXPECT_EQ(sent("Content-Type: text/plain\r\n"), 415);
    EXPECT_EQ(sent("Content-Type: application/x-www-form-urlencoded\r\n"), 415);
    EXPECT_EQ(sent("Content-Type: application/json5\r\n"), 415);
    EXPECT_TRUE(fixture.state().log().empty());
    EXPECT_EQ(sent("Content-Type: application/json\r\n"), 201);
    EXPECT_EQ(sent("Content-Type: Application/JSON; charset=utf-8\r\n"), 201);
}

TEST(ApiStrictness, RoutesWithoutABodyTakeAnEmptyOneOnly) {
    ServerFixture fixture;
    static_cast<void>(fixture.request("POST", "/v1/vms", R"({"id":"a","rootfs":"/r","kernel":"/k"})"));
    EXPECT_EQ(fixture.request("POST", "/v1/vms/a/start", "{}").status, 400);
    EXPECT_EQ(fixture.request("GET", "/v1/vms", "{}").status, 400);
    EXPECT_EQ(fixture.request("DELETE", "/v1/vms/a", "{}").status, 400);
    EXPECT_EQ(fixture.request("POST", "/v1/vms/a/start", "", "Content-Length: 0\r\n").status, 400);  // two of them
    EXPECT_EQ(fixture.request("POST", "/v1/vms/a/start").status, 200);
    RawClient client(fixture.port());
    client.send("POST /v1/vms/a/stop HTTP/1.1\r\nHost: localhost\r\n\r\n");
    EXPECT_EQ(client.receive()->status, 200);
}

TEST(ApiStrictness, ForeignPagesAreRefused) {
    ServerFixture fixture;
    const auto status = [&](const std::string& lines) {
        RawClient client(fixture.port());
        client.send("GET /healthz HTTP/1.1\r\n" + lines + "\r\n");
        return client.receive()->status;
    };
    EXPECT_EQ(status("Host: localhost\r\nOrigin: http://evil.example\r\n"), 403);
    EXPECT_EQ(status("Host: localhost\r\nOrigin: null\r\n"), 403);
    for (const char* host : {"evil.example", "evil.example:8080", "localhost.evil.example", "127.0.0.1.evil.example",
                             "127.1", "0x7f000001", "localhost:http", "localhost:999999", "", "[::1", "::1", "[evil]",
                             "user@localhost", "localhost/"}) {
        EXPECT_EQ(status("Host: "s + host + "\r\n"), 403) << host;
    }
    for (const char* host :
         {"localhost", "localhost:8080", "127.0.0.1", "127.0.0.1:1", "[::1]", "[::1]:8080", "10.1.2.3"}) {
        EXPECT_EQ(status("Host: "s + host + "\r\n"), 200) << host;
    }
}

TEST(ApiStrictness, IdsFollowTheRuleAndAreDecodedOnce) {
    ServerFixture fixture;
    const auto status = [&](const std::string& id) { return fixture.request("GET", "/v1/vms/" + id).status; };
    static_cast<void>(fixture.request("POST", "/v1/vms", R"({"id":"a-1","rootfs":"/r","kernel":"/k"})"));
    EXPECT_EQ(status("a-1"), 200);
    EXPECT_EQ(status("%61-1"), 200);
    EXPECT_EQ(status("b"), 404);
    EXPECT_EQ(status(std::string(63, 'x')), 404);
    for (const std::string& id : {".."s,
                                  "."s,
                                  "%2e%2e"s,
                                  "%2E%2e"s,
                                  "a%2fb"s,
                                  "a%5cb"s,
                                  "a%00"s,
                                  "%00"s,
                                  "A"s,
                                  "-a"s,
                                  "a_b"s,
                                  "a.b"s,
                                  "a%20"s,
                                  "%c3%a9"s,
                                  "%ef%bc%8e%ef%bc%8e"s,
                                  "%252e"s,
                                  "a%2561"s,
                                  std::string(64, 'x'),
                                  std::string(8000, 'x'),
                                  "a;b"s,
                                  "a%"s,
                                  "a%zz"s,
                                  "a+b"s,
                                  "*"s}) {
        EXPECT_EQ(status(id), 400) << id.substr(0, 80);
    }
    EXPECT_EQ(status(""), 404);
    EXPECT_EQ(status("../vms"), 404);
    EXPECT_EQ(status("a-1/"), 404);
    EXPECT_EQ(status("/a-1"), 404);
    EXPECT_EQ(fixture.request("DELETE", "/v1/vms/..%2f..%2fetc").status, 400);
    for (const std::string& call : fixture.state().log()) EXPECT_EQ(call.find("delete"), std::string::npos);
}

TEST(ApiStrictness, RequestIdsOfClientsAreTakenIfTheyAreHarmless) {
    ServerFixture fixture;
    const auto idFor = [&](const std::string& given) {
        return fixture.request("GET", "/healthz", "", "X-Request-Id: " + given + "\r\n").headers.at("x-request-id");
    };
    EXPECT_EQ(idFor("abc-1.2_Z"), "abc-1.2_Z");
    EXPECT_EQ(idFor(std::string(64, 'a')), std::string(64, 'a'));
    for (const std::string& given : {""s, std::string(65, 'a'), "a b"s, "a\"b"s, "a<b"s, "\xc3\xa9"s}) {
        EXPECT_NE(idFor(given), given);
        EXPECT_EQ(idFor(given).size(), 16U);
    }
    EXPECT_NE(fixture.request("GET", "/healthz").headers.at("x-request-id"),
              fixture.request("GET", "/healthz").headers.at("x-request-id"));
}

}  // namespace
}  // namespace mergen::api
