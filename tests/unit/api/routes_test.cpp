#include <string>
#include <vector>

#include <gtest/gtest.h>

#include <mergen/base/json.hpp>

#include "api.hpp"
#include "change_body.hpp"
#include "raw_client.hpp"

namespace mergen::api {
namespace {

using test::Reply;
using test::ServerFixture;

const std::string good = R"({"rootfs":"/r","kernel":"/k"})";

std::string withId(const std::string& id) {
    return R"({"id":")" + id + R"(","rootfs":"/r","kernel":"/k"})";
}

TEST(ApiRoutes, HealthSaysOk) {
    ServerFixture fixture;
    const Reply reply = fixture.request("GET", "/healthz");
    EXPECT_EQ(reply.status, 200);
    EXPECT_EQ(reply.body, R"({"status":"ok"})");
    EXPECT_EQ(reply.headers.at("content-type"), "application/json");
    EXPECT_EQ(reply.headers.at("cache-control"), "no-store");
    EXPECT_EQ(reply.headers.at("x-content-type-options"), "nosniff");
}

TEST(ApiRoutes, ReadinessNamesEveryComponent) {
    ServerFixture fixture;
    const Reply ready = fixture.request("GET", "/readyz");
    EXPECT_EQ(ready.status, 200);
    EXPECT_EQ(ready.body, R"({"status":"ok","components":[{"kind":"storage","name":"fake","ok":true,"detail":"fine"},)"
                          R"({"kind":"api","name":"access","ok":true,"detail":"127.0.0.1:)" +
                              std::to_string(fixture.port()) + R"(, from this host only, no token needed"}]})");
    fixture.state().components.push_back({"network", "linux", false, "no nftables"});
    const Reply broken = fixture.request("GET", "/readyz");
    EXPECT_EQ(broken.status, 503);
    EXPECT_EQ(broken.text("status"), "unavailable");
    EXPECT_EQ(broken.json()->getArray("components")->size(), 3U);
}

TEST(ApiRoutes, PluginsAreListedWithTheirSettings) {
    ServerFixture fixture;
    EXPECT_EQ(fixture.request("GET", "/v1/plugins").body,
              R"({"items":[{"kind":"storage","name":"fake","version":"1.0","file":"/lib/fake.so","state":"ready",)"
              R"("detail":"","settings":{"path":"/tmp"}}]})");
}

TEST(ApiRoutes, CreateAnswers201WithTheIdAndItsPlace) {
    ServerFixture fixture;
    const Reply reply = fixture.request("POST", "/v1/vms", good);
    EXPECT_EQ(reply.status, 201);
    EXPECT_EQ(reply.body, R"({"id":"vm-1","status":"created"})");
    EXPECT_EQ(reply.headers.at("location"), "/v1/vms/vm-1");
    EXPECT_EQ(fixture.request("POST", "/v1/vms", R"({"rootfs":"/r","kernel":"/k","autoStart":true})").body,
              R"({"id":"vm-2","status":"created"})");
}

TEST(ApiRoutes, StartStopAndDeleteAnswerAsMergenFireDoes) {
    ServerFixture fixture;
    static_cast<void>(fixture.request("POST", "/v1/vms", withId("a")));
    for (int i = 0; i < 2; ++i) {
        const Reply started = fixture.request("POST", "/v1/vms/a/start");
        EXPECT_EQ(started.status, 200);
        EXPECT_EQ(started.body, R"({"id":"a","status":"started"})");
    }
    for (const std::string by : {"SIGTERM", "none"}) {
        const Reply stopped = fixture.request("POST", "/v1/vms/a/stop");
        EXPECT_EQ(stopped.status, 200);
        EXPECT_EQ(stopped.body, R"({"id":"a","status":"stopped","endedBy":")" + by + R"("})");
    }
    const Reply deleted = fixture.request("DELETE", "/v1/vms/a");
    EXPECT_EQ(deleted.status, 200);
    EXPECT_EQ(deleted.body, R"({"id":"a","status":"deleted","endedBy":"none"})");
    const Reply gone = fixture.request("DELETE", "/v1/vms/a");
    EXPECT_EQ(gone.status, 404);
    EXPECT_EQ(gone.text("error"), "not_found");
}

TEST(ApiRoutes, PauseAndResumeAnswerAlikeEachTimeTheyAreAsked) {
    ServerFixture fixture;
    static_cast<void>(fixture.request("POST", "/v1/vms", withId("a")));
    for (int i = 0; i < 2; ++i) {
        const Reply paused = fixture.request("POST", "/v1/vms/a/pause");
        EXPECT_EQ(paused.status, 200);
        EXPECT_EQ(paused.body, R"({"id":"a","status":"paused"})");
    }
    for (int i = 0; i < 2; ++i) {
        const Reply resumed = fixture.request("POST", "/v1/vms/a/resume");
        EXPECT_EQ(resumed.status, 200);
        EXPECT_EQ(resumed.body, R"({"id":"a","status":"resumed"})");
    }
    EXPECT_EQ(fixture.request("POST", "/v1/vms/b/pause").status, 404);
    EXPECT_EQ(fixture.request("GET", "/v1/vms/a/pause").status, 405);
}

TEST(ApiRoutes, RetainDataIsReadStrictly) {
    ServerFixture fixture;
    const auto asked = [&](const std::string& query) {
        static_cast<void>(fixture.request("POST", "/v1/vms", withId("a")));
        const int status = fixture.request("DELETE", "/v1/vms/a" + query).status;
        return std::to_string(status) + " " + fixture.state().log().back();
    };
    EXPECT_EQ(asked(""), "200 delete a");
    EXPECT_EQ(asked("?retainData=true"), "200 delete a retain");
    EXPECT_EQ(asked("?retainData=1"), "200 delete a retain");
    EXPECT_EQ(asked("?retainData=%74rue"), "200 delete a retain");
    EXPECT_EQ(asked("?retainData=false"), "200 delete a");
    EXPECT_EQ(asked("?retainData=0"), "200 delete a");
    for (const char* query : {"?retainData=yes", "?retainData=", "?retainData", "?retainData=true&retainData=true",
                              "?retaindata=true", "?retainData=true&force=1", "?=", "?&"}) {
        EXPECT_EQ(asked(query), "400 create") << query;
    }
}

TEST(ApiRoutes, UnknownParametersAreRefusedWithTheNearest) {
    ServerFixture fixture;
    const Reply reply = fixture.request("DELETE", "/v1/vms/a?retain_data=1");
    EXPECT_EQ(reply.status, 400);
    EXPECT_EQ(reply.text("field"), "retain_data");
    EXPECT_NE(reply.text("message").find("did you mean retainData?"), std::string::npos);
    EXPECT_EQ(fixture.request("GET", "/v1/vms?limit=1").status, 400);
    EXPECT_EQ(fixture.request("GET", "/healthz?x=1").status, 400);
}

TEST(ApiRoutes, TheListIsNewestFirst) {
    ServerFixture fixture;
    EXPECT_EQ(fixture.request("GET", "/v1/vms").body, R"({"items":[]})");
    for (const char* id : {"b", "c", "a"}) static_cast<void>(fixture.request("POST", "/v1/vms", withId(id)));
    const auto items = fixture.request("GET", "/v1/vms").json()->getArray("items");
    ASSERT_EQ(items->size(), 3U);
    EXPECT_EQ(items->getObject(0)->getValue<std::string>("id"), "a");
    EXPECT_EQ(items->getObject(1)->getValue<std::string>("id"), "c");
    EXPECT_EQ(items->getObject(2)->getValue<std::string>("id"), "b");
}

TEST(ApiRoutes, EventsAreAnObjectWithItems) {
    ServerFixture fixture;
    static_cast<void>(fixture.request("POST", "/v1/vms", withId("a")));
    const auto items = fixture.request("GET", "/v1/vms/a/events").json()->getArray("items");
    ASSERT_EQ(items->size(), 2U);
    EXPECT_EQ(items->getObject(1)->getValue<std::string>("cause"), "no tap");
    EXPECT_EQ(fixture.request("GET", "/v1/vms/b/events").status, 404);
}

TEST(ApiRoutes, TheConsoleIsGivenByteForByteAsText) {
    ServerFixture fixture;
    static_cast<void>(fixture.request("POST", "/v1/vms", withId("a")));
    std::string text;
    for (int i = 0; i < 256; ++i) text += static_cast<char>(i);
    fixture.state().consoleText = text + "<script>";
    const Reply all = fixture.request("GET", "/v1/vms/a/console");
    EXPECT_EQ(all.body, text + "<script>");
    EXPECT_EQ(all.headers.at("content-type"), "text/plain; charset=utf-8");
    EXPECT_EQ(all.headers.at("x-content-type-options"), "nosniff");
    EXPECT_EQ(fixture.state().tail.bytes, 65536U);
    EXPECT_EQ(fixture.state().tail.lines, std::nullopt);
    static_cast<void>(fixture.request("GET", "/v1/vms/a/console?lines=3"));
    EXPECT_EQ(fixture.state().tail.bytes, 16U << 20U);
    EXPECT_EQ(fixture.state().tail.lines, 3U);
    static_cast<void>(fixture.request("GET", "/v1/vms/a/console?tail=100&lines=3"));
    EXPECT_EQ(fixture.state().tail.bytes, 100U);
    EXPECT_EQ(fixture.request("GET", "/v1/vms/a/console?tail=8").body, "<script>");
    for (const char* query :
         {"?tail=0", "?tail=-1", "?tail=1k", "?tail=", "?tail=16777217", "?tial=1", "?lines=0", "?lines=100001"}) {
        EXPECT_EQ(fixture.request("GET", std::string("/v1/vms/a/console") + query).status, 400) << query;
    }
    EXPECT_EQ(fixture.request("GET", "/v1/vms/b/console").status, 404);
}

TEST(ApiRoutes, AConsoleLargerThanTheSocketsBuffersArrivesWhole) {
    ServerFixture fixture;
    static_cast<void>(fixture.request("POST", "/v1/vms", withId("a")));
    fixture.state().consoleText.assign(16U << 20U, 'x');
    EXPECT_EQ(fixture.request("GET", "/v1/vms/a/console?tail=16777216").body.size(), 16U << 20U);
}

TEST(ApiRoutes, TheVmmConfigIsGivenAsItIs) {
    ServerFixture fixture;
    static_cast<void>(fixture.request("POST", "/v1/vms", withId("a")));
    const Reply reply = fixture.request("GET", "/v1/vms/a/vmm-config");
    EXPECT_EQ(reply.status, 200);
    EXPECT_EQ(reply.headers.at("content-type"), "application/json");
    EXPECT_EQ(reply.body, "{\n  \"drives\": []\n}\n") << "so that it can be kept as a file";
    EXPECT_EQ(fixture.request("GET", "/v1/vms/b/vmm-config").status, 404);
    EXPECT_EQ(fixture.request("GET", "/v1/vms/a/vmm-config?x=1").status, 400);
}

TEST(ApiChangeBody, IsReadWholeAndItsFaultsNameTheMember) {
    const auto expectRefused = [](const char* body, const char* field) {
        try {
            static_cast<void>(parseChangeBody(body));
            ADD_FAILURE() << body << " is taken";
        } catch (const Error& error) {
            EXPECT_EQ(error.field(), field) << error.what();
        }
    };
    expectRefused(R"({"balloon":{"amountMib":-1}})", "balloon.amountMib");
    expectRefused(R"({"drives":[{"rateLimiter":{}}]})", "drives[0].driveId");
    expectRefused(R"({"drives":[{"driveId":"a"},{"driveId":"a"}]})", "drives[1].driveId");
    expectRefused(R"({"networkInterfaces":[{"ifaceId":"eth0","rxRateLimiter":{"ops":{"size":1,"refillTime":0}}}]})",
                  "networkInterfaces[0].rxRateLimiter.ops.refillTime");
    expectRefused(R"({"mmds":{"data":[]}})", "mmds.data");
    expectRefused(R"({"name":"b"})", "name");
    const engine::ChangeRequest change = parseChangeBody(
        R"({"balloon":{"amountMib":5},"mmds":{"data":{}},"drives":[{"driveId":"rootfs","rateLimiter":{}}]})");
    EXPECT_EQ(change.balloonAmount, MiB{5});
    EXPECT_EQ(change.balloonStatsInterval, std::nullopt);
    EXPECT_EQ(change.mmdsContent, "{}");
    EXPECT_EQ(change.drives.at(0).limit, RateLimiter{});
}

TEST(ApiRoutes, OtherMethodsGet405WithAllow) {
    ServerFixture fixture;
    const auto allow = [&](const std::string& method, const std::string& target) {
        const Reply reply = fixture.request(method, target);
        EXPECT_EQ(reply.status, 405) << method << " " << target;
        EXPECT_EQ(reply.text("error"), "method_not_allowed");
        return reply.headers.at("allow");
    };
    EXPECT_EQ(allow("PUT", "/v1/vms"), "GET, HEAD, POST");
    EXPECT_EQ(allow("POST", "/v1/vms/a/metrics"), "GET, HEAD");
    EXPECT_EQ(allow("GET", "/v1/vms/a/start"), "POST");
    EXPECT_EQ(allow("DELETE", "/healthz"), "GET, HEAD");
    EXPECT_EQ(allow("get", "/healthz"), "GET, HEAD");
    EXPECT_EQ(allow("OPTIONS", "/v1/plugins"), "GET, HEAD");
}

TEST(ApiRoutes, UnknownPathsGet404) {
    ServerFixture fixture;
    for (const char* path : {"/", "/v1", "/v1/", "/v2/vms", "/v1/vms/", "/v1/vms/a/b", "/v1/vms/a/start/", "//v1/vms",
                             "/v1//vms", "/V1/vms", "/healthz/", "/favicon.ico", "/v1/vms/../../etc/passwd"}) {
        const Reply reply = fixture.request("GET", path);
        EXPECT_EQ(reply.status, 404) << path;
        EXPECT_EQ(reply.text("error"), "not_found") << path;
    }
}

TEST(ApiRoutes, HeadGivesTheHeadOfGet) {
    ServerFixture fixture;
    const Reply reply = fixture.request("HEAD", "/healthz");
    EXPECT_EQ(reply.status, 200);
    EXPECT_EQ(reply.headers.at("content-length"), "15");
    EXPECT_EQ(reply.body, "");
}

TEST(ApiRoutes, EveryReplyHasARequestId) {
    ServerFixture fixture;
    for (const Route& route : Api::routes()) {
        std::string path(route.path);
        if (const std::size_t id = path.find("{id}"); id != std::string::npos) path.replace(id, 4, "a");
        const Reply reply = fixture.request(std::string(route.method), path);
        EXPECT_FALSE(reply.headers.at("x-request-id").empty()) << path;
        EXPECT_EQ(reply.headers.at("cache-control"), "no-store") << path;
    }
}

}  // namespace
}  // namespace mergen::api
