#include "gate.hpp"

#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <mergen/base/file.hpp>
#include <mergen/sdk/error.hpp>

#include "test_host.hpp"

namespace mergen::api {
namespace {

using http::Caller;
using http::Head;
using http::Peer;
using http::Refusal;
using testing::HasSubstr;
using testing::Not;
using namespace std::string_literals;

Peer overTcp() {
    Peer peer;
    peer.host = "192.0.2.1";
    peer.text = "192.0.2.1:40000";
    return peer;
}

Peer overSocket() {
    Peer peer;
    peer.local = true;
    peer.uid = 1000;
    peer.text = "uid 1000, gid 1000, pid 4711";
    return peer;
}

Head head(const std::string& fields, const std::string& line = "GET /v1/vms") {
    const std::string text = line + " HTTP/1.1\r\nHost: localhost\r\n" + fields + "\r\n";
    return std::get<Head>(http::parseHead(text));
}

class Gates : public testing::Test {
protected:
    [[nodiscard]] std::shared_ptr<TokenFile> tokens() {
        writeFileAtomically(host_.root() / "tokens", first_.line + "\n" + second_.line + "\n", 0600);
        return std::make_shared<TokenFile>(host_.root() / "tokens");
    }
    [[nodiscard]] mergen::test::CapturingLog& log() { return host_.log(); }

    /// Who it was, or the status of the refusal.
    static std::string admitted(Gate& gate, const Head& asked, const Peer& peer) {
        const auto answer = gate.admit(asked, peer);
        if (const auto* refusal = std::get_if<Refusal>(&answer)) return std::to_string(refusal->status);
        return std::get<Caller>(answer).name;
    }

    const NewToken first_ = newToken("first"), second_ = newToken("second"), foreign_ = newToken("foreign");

private:
    mergen::test::TestHost host_{nullptr};
};

TEST_F(Gates, WithTokensEveryRequestOverTcpNeedsOneOfThem) {
    Gate gate(tokens(), {}, log());
    const std::pair<std::string, std::string> cases[] = {
        {"Authorization: Bearer " + first_.token + "\r\n", "token:first"},
        {"Authorization: Bearer " + second_.token + "\r\n", "token:second"},
        {"authorization: bearer " + first_.token + "\r\n", "token:first"},
        {"Authorization: BEARER   " + first_.token + " \r\n", "token:first"},
        {"", "401"},
        {"Authorization:\r\n", "401"},
        {"Authorization: Bearer\r\n", "401"},
        {"Authorization: Bearer \r\n", "401"},
        {"Authorization: " + first_.token + "\r\n", "401"},
        {"Authorization: Basic " + first_.token + "\r\n", "401"},
        {"Authorization: Token " + first_.token + "\r\n", "401"},
        {"Authorization: Bearer\t" + first_.token + "\r\n", "401"},
        {"Authorization: Bearer " + foreign_.token + "\r\n", "401"},
        {"Authorization: Bearer " + first_.line + "\r\n", "401"},
        {"Authorization: Bearer \"" + first_.token + "\"\r\n", "401"},
        {"Authorization: Bearer " + first_.token + "x\r\n", "401"},
        {"Authorization: Bearer " + first_.token + "," + second_.token + "\r\n", "401"},
        {"Authorization: Bearer " + first_.token + " " + first_.token + "\r\n", "401"},
        {"Authorization: Bearer " + first_.token + "\r\nAuthorization: Bearer " + first_.token + "\r\n", "401"},
        {"Authorization: Bearer " + first_.token + "\r\nAuthorization: Basic eDp5\r\n", "401"},
        {"Proxy-Authorization: Bearer " + first_.token + "\r\n", "401"},
        {"X-Auth-Token: " + first_.token + "\r\n", "401"},
        {"Cookie: token=" + first_.token + "\r\n", "401"},
    };
    for (const auto& [fields, expected] : cases) EXPECT_EQ(admitted(gate, head(fields), overTcp()), expected) << fields;
}

TEST_F(Gates, TheUserOfAVmGetsNothingOverTheSocketWhateverLetsItIn) {
    Gate gate(nullptr, {1900000000, 100}, log());
    const auto from = [&](unsigned uid) {
        Peer peer;
        peer.local = true;
        peer.uid = uid;
        return admitted(gate, head("", "GET /v1/vms"), peer);
    };
    for (const unsigned uid : {1900000000U, 1900000050U, 1900000099U}) EXPECT_EQ(from(uid), "403");
    for (const unsigned uid : {0U, 1000U, 1899999999U, 1900000100U}) EXPECT_EQ(from(uid), "uid:" + std::to_string(uid));
}

TEST_F(Gates, ATokenInTheTargetIsNone) {
    Gate gate(tokens(), {}, log());
    for (const std::string& target : {"/v1/vms?access_token=" + first_.token, "/v1/vms?token=" + first_.token,
                                      "/" + first_.token, "/v1/vms?Authorization=Bearer%20" + first_.token}) {
        EXPECT_EQ(admitted(gate, head("", "GET " + target), overTcp()), "401") << target;
    }
}

TEST_F(Gates, EveryMethodNeedsATokenAndOnlyHealthIsOpen) {
    Gate gate(tokens(), {}, log());
    for (const char* const line :
         {"GET /v1/vms", "HEAD /v1/vms", "POST /v1/vms", "PUT /v1/vms", "DELETE /v1/vms/a", "OPTIONS /v1/vms",
          "GET /readyz", "GET /v1/plugins", "GET /", "GET /nothing", "POST /healthz", "DELETE /healthz",
          "OPTIONS /healthz", "GET /healthz/", "GET /healthz?x=1", "GET /healthz/../v1/vms", "GET /HEALTHZ",
          "GET /%68ealthz", "GET //healthz"}) {
        EXPECT_EQ(admitted(gate, head("", line), overTcp()), "401") << line;
    }
    EXPECT_EQ(admitted(gate, head("", "GET /healthz"), overTcp()), "tcp:192.0.2.1");
    EXPECT_EQ(admitted(gate, head("", "HEAD /healthz"), overTcp()), "tcp:192.0.2.1");
    EXPECT_EQ(admitted(gate, head("Content-Length: 1000000\r\n", "GET /healthz"), overTcp()), "401")
        << "nobody without a token makes the server keep a body";
}

TEST_F(Gates, TheAnswerDoesNotTellWhatIsWrongWithAToken) {
    Gate gate(tokens(), {}, log());
    const auto refusal = [&](const std::string& fields) {
        return std::get<Refusal>(gate.admit(head(fields), overTcp())).detail;
    };
    const std::string missing = refusal("");
    for (const std::string& fields :
         {"Authorization: Basic eDp5\r\n"s, "Authorization: Bearer " + foreign_.token + "\r\n",
          "Authorization: Bearer " + first_.token.substr(0, 30) + "\r\n"}) {
        EXPECT_EQ(refusal(fields), missing) << fields;
    }
}

TEST_F(Gates, TheUnixSocketNeedsNoTokenAndTakesAnyHost) {
    for (const bool withTokens : {false, true}) {
        Gate gate(withTokens ? tokens() : nullptr, {}, log());
        EXPECT_EQ(admitted(gate, head(""), overSocket()), "uid:1000");
        EXPECT_EQ(admitted(gate, head("Authorization: Bearer wrong\r\n"), overSocket()), "uid:1000");
        Head named = head("");
        named.fields = {{"Host", "mergen.example"}};
        EXPECT_EQ(admitted(gate, named, overSocket()), "uid:1000");
    }
}

TEST_F(Gates, WhatABrowserMarksAsAPagesIsRefusedEverywhere) {
    Gate open(nullptr, {}, log());
    Gate closed(tokens(), {}, log());
    const std::string origin = "Origin: http://evil.example\r\n";
    EXPECT_EQ(admitted(open, head(origin), overTcp()), "403");
    EXPECT_EQ(admitted(open, head("Origin: null\r\n"), overTcp()), "403");
    EXPECT_EQ(admitted(open, head("Origin:\r\n"), overTcp()), "403");
    EXPECT_EQ(admitted(open, head(origin + origin), overTcp()), "403");
    EXPECT_EQ(admitted(open, head(origin), overSocket()), "403");
    for (const char* const site : {"cross-site", "same-site", "same-origin", ""}) {
        EXPECT_EQ(admitted(open, head("Sec-Fetch-Site: " + std::string(site) + "\r\n"), overTcp()), "403") << site;
    }
    EXPECT_EQ(admitted(open, head("Sec-Fetch-Site: none\r\n"), overTcp()), "tcp:192.0.2.1") << "typed by hand";
    EXPECT_EQ(admitted(closed, head(origin + "Authorization: Bearer " + first_.token + "\r\n"), overTcp()), "403");
}

TEST_F(Gates, WithoutTokensAHostThatAWebPageCouldHaveChosenIsRefused) {
    Gate open(nullptr, {}, log());
    Gate closed(tokens(), {}, log());
    for (const char* const host : {"evil.example", "evil.example:8080", "localhost.evil.example",
                                   "127.0.0.1.evil.example", "localhost:123456", "", "[::1", "::1"}) {
        Head asked = head("Authorization: Bearer " + first_.token + "\r\n");
        asked.fields[0].second = host;
        EXPECT_EQ(admitted(open, asked, overTcp()), "403") << host;
        EXPECT_EQ(admitted(closed, asked, overTcp()), "token:first") << host << ": a page has no token";
    }
    for (const char* const host : {"localhost", "LOCALHOST:80", "127.0.0.1:8080", "[::1]:8080", "192.0.2.7"}) {
        Head asked = head("");
        asked.fields[0].second = host;
        EXPECT_EQ(admitted(open, asked, overTcp()), "tcp:192.0.2.1") << host;
    }
}

TEST_F(Gates, ManyFailuresAreAllCountedAndAFewAreLogged) {
    Gate gate(tokens(), {}, log());
    for (int i = 0; i < 5000; ++i) {
        EXPECT_EQ(
            admitted(gate,
                     head("Authorization: Bearer " + foreign_.token + "\r\n", "POST /v1/vms?token=" + foreign_.token),
                     overTcp()),
            "401");
    }
    EXPECT_EQ(gate.unauthorized(), 5000U);
    const auto lines = log().lines("api.unauthorized");
    ASSERT_FALSE(lines.empty());
    // Ten in any ten seconds: however slow this machine is, far from 5000.
    EXPECT_LE(lines.size(), 1000U);
    EXPECT_EQ(lines.front().fields.at("peer"), "192.0.2.1:40000");
    EXPECT_EQ(lines.front().fields.at("path"), "/v1/vms");
    for (const auto& line : log().lines()) {
        for (const auto& [key, value] : line.fields) EXPECT_THAT(value, Not(HasSubstr(foreign_.token.substr(7, 12))));
    }
    EXPECT_EQ(admitted(gate, head("Authorization: Bearer " + first_.token + "\r\n"), overTcp()), "token:first");
}

}  // namespace
}  // namespace mergen::api
