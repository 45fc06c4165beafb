#include <optional>
#include <set>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include <mergen/base/text.hpp>
#include <mergen/sdk/error.hpp>

#include "create_body.hpp"
#include "raw_client.hpp"

namespace mergen::api {
namespace {

using test::Reply;
using test::ServerFixture;

/// A good body with `members` in front of its required ones.
std::string with(const std::string& members) {
    return "{" + members + (members.empty() ? "" : ",") + R"("rootfs":"/srv/r.ext4","kernel":"/srv/vmlinux"})";
}

std::string times(std::size_t count, const std::string& text) {
    std::string all;
    for (std::size_t i = 0; i < count; ++i) all += (i == 0 ? "" : ",") + text;
    return all;
}

/// "p0":"v","p1":"v",...
std::string numbered(std::size_t count, const std::string& value = "v") {
    std::string all;
    for (std::size_t i = 0; i < count; ++i)
        all += (i == 0 ? "\"p" : ",\"p") + std::to_string(i) + "\":\"" + value + "\"";
    return all;
}

/// "[0][0]...": the path to the innermost of nested arrays.
std::string arrayPath(std::size_t levels) {
    std::string path;
    for (std::size_t i = 0; i < levels; ++i) path += "[0]";
    return path;
}

struct BadBody {
    std::string field;  ///< that the refusal names; "" for none
    std::string body;
};

std::vector<BadBody> badBodies() {
    const std::string x = "x";
    const auto lots = [](std::size_t count) { return std::string(count, 'x'); };
    return {
        // What is no object at all.
        {"", "null"},
        {"", "[]"},
        {"", "\"rootfs\""},
        {"", "{"},
        {"", with("") + "{}"},
        {"", with("\"vcpu\":01")},
        {"vcpu", with("\"vcpu\":18446744073709551616")},
        {"", with("\"name\":\"\\u0000\"")},
        {"", with("\"name\":\"\xff\"")},
        {"", "\xef\xbb\xbf" + with("")},
        {"", with("\"metadata\":{\"a\":[" + times(4097, "1") + "]}")},
        {"metadata.a" + arrayPath(22),
         with("\"metadata\":{\"a\":" + std::string(23, '[') + std::string(23, ']') + "}")},
        {"vcpu", with(R"("vcpu":1,"vcpu":2)")},
        {"rootfs", with(R"("rootfs":"/other")")},
        // Unknown members.
        {"Rootfs", with(R"("Rootfs":"/r")")},
        {"memMib", with(R"("memMib":256)")},
        {"kernal", R"({"rootfs":"/r","kernal":"/k"})"},
        {"ports[0].hostPort", with(R"("ports":[{"guest":80,"hostPort":1}])")},
        {"hooks.onPause", with(R"("hooks":{"onPause":[]})")},
        {"", ""},
        // The paths.
        {"rootfs", R"({"kernel":"/k"})"},
        {"rootfs", R"({"rootfs":null,"kernel":"/k"})"},
        {"rootfs", R"({"rootfs":"","kernel":"/k"})"},
        {"rootfs", R"({"rootfs":"images/r","kernel":"/k"})"},
        {"rootfs", R"({"rootfs":"./r","kernel":"/k"})"},
        {"rootfs", R"({"rootfs":["/r"],"kernel":"/k"})"},
        {"rootfs", R"({"rootfs":"/r\nx","kernel":"/k"})"},
        {"rootfs", R"({"rootfs":"/)" + lots(4096) + R"(","kernel":"/k"})"},
        {"kernel", R"({"rootfs":"/r"})"},
        {"kernel", R"({"rootfs":"/r","kernel":7})"},
        {"kernel", R"({"rootfs":"/r","kernel":"k"})"},
        {"kernel", R"({"rootfs":"/r","kernel":"/\u007f"})"},
        {"dataDisk", with(R"("dataDisk":"data.img")")},
        {"dataDisk", with(R"("dataDisk":"")")},
        {"dataDisk", with(R"("dataDisk":true)")},
        // id and name.
        {"id", with(R"("id":"")")},
        {"id", with(R"("id":"-a")")},
        {"id", with(R"("id":"Web")")},
        {"id", with(R"("id":"a_b")")},
        {"id", with(R"("id":"a/b")")},
        {"id", with(R"("id":"..")")},
        {"id", with(R"("id":"a.b")")},
        {"id", with(R"("id":"\u00e4")")},
        {"id", with(R"("id":")" + lots(64) + "\"")},
        {"id", with(R"("id":1)")},
        {"name", with(R"("name":"")")},
        {"name", with(R"("name":"a/b")")},
        {"name", with(R"("name":"a\tb")")},
        {"name", with(R"("name":"caf\u00e9")")},
        {"name", with(R"("name":")" + lots(64) + "\"")},
        {"name", with(R"("name":{})")},
        // Sizes.
        {"vcpu", with(R"("vcpu":0)")},
        {"vcpu", with(R"("vcpu":-1)")},
        {"vcpu", with(R"("vcpu":33)")},
        {"vcpu", with(R"("vcpu":1.5)")},
        {"vcpu", with(R"("vcpu":1.0)")},
        {"vcpu", with(R"("vcpu":"1")")},
        {"vcpu", with(R"("vcpu":true)")},
        {"vcpu", with(R"("vcpu":18446744073709551615)")},
        {"memMiB", with(R"("memMiB":127)")},
        {"memMiB", with(R"("memMiB":1048577)")},
        {"memMiB", with(R"("memMiB":-512)")},
        {"memMiB", with(R"("memMiB":"512")")},
        {"memMiB", with(R"("memMiB":512.5)")},
        {"httpPort", with(R"("httpPort":65536)")},
        {"httpPort", with(R"("httpPort":-1)")},
        {"httpPort", with(R"("httpPort":"80")")},
        // Ports.
        {"ports", with(R"("ports":{})")},
        {"ports", with(R"("ports":80)")},
        {"ports", with(R"("ports":[)" + times(65, R"({"guest":80})") + "]")},
        {"ports[0]", with(R"("ports":[80])")},
        {"ports[0]", with(R"("ports":[null])")},
        {"ports[1]", with(R"("ports":[{"guest":80},"81"])")},
        {"ports[0].guest", with(R"("ports":[{}])")},
        {"ports[0].guest", with(R"("ports":[{"host":80}])")},
        {"ports[0].guest", with(R"("ports":[{"guest":0}])")},
        {"ports[0].guest", with(R"("ports":[{"guest":65536}])")},
        {"ports[0].guest", with(R"("ports":[{"guest":"80"}])")},
        {"ports[0].host", with(R"("ports":[{"guest":80,"host":-1}])")},
        {"ports[0].host", with(R"("ports":[{"guest":80,"host":65536}])")},
        {"ports[0].host", with(R"("ports":[{"guest":80,"host":0.5}])")},
        {"ports[0].protocol", with(R"("ports":[{"guest":80,"protocol":"sctp"}])")},
        {"ports[0].protocol", with(R"("ports":[{"guest":80,"protocol":"TCP"}])")},
        {"ports[0].protocol", with(R"("ports":[{"guest":80,"protocol":""}])")},
        {"ports[0].protocol", with(R"("ports":[{"guest":80,"protocol":6}])")},
        {"ports[1].host", with(R"("ports":[{"guest":80,"host":9},{"guest":81,"host":9}])")},
        {"ports[2].guest", with(R"("ports":[{"guest":80},{"guest":81},{"guest":80,"protocol":"tcp"}])")},
        // The rest.
        {"autoStart", with(R"("autoStart":"true")")},
        {"autoStart", with(R"("autoStart":1)")},
        {"metadata", with(R"("metadata":[])")},
        {"metadata", with(R"("metadata":"a")")},
        {"metadata", with(R"("metadata":{"a":")" + lots(60000) + R"(","b":")" + lots(6000) + R"("})")},
        {"metadata.a", with(R"("metadata":{"a":1,"a":2})")},
        {"tags", with(R"("tags":["a"])")},
        {"tags", with(R"("tags":{)" + numbered(129) + "}")},
        {"tags.a", with(R"("tags":{"a":1})")},
        {"tags.a", with(R"("tags":{"a":null})")},
        {"tags.a", with(R"("tags":{"a":{}})")},
        {"tags.a", with(R"("tags":{"a":"line\nbreak"})")},
        {"tags.a", with(R"("tags":{"a":")" + lots(1025) + "\"}")},
        {"tags.", with(R"("tags":{"":"v"})")},
        {"extraEnv", with(R"("extraEnv":"A=b")")},
        {"extraEnv", with(R"("extraEnv":{)" + numbered(129) + "}")},
        {"tags", with(R"("tags":{)" + numbered(70, lots(1000)) + "}")},
        {"extraEnv", with(R"("extraEnv":{)" + numbered(17, lots(4000)) + "}")},
        {"extraEnv.", with(R"("extraEnv":{"":"v"})")},
        {"extraEnv.1A", with(R"("extraEnv":{"1A":"v"})")},
        {"extraEnv.A-B", with(R"("extraEnv":{"A-B":"v"})")},
        {"extraEnv.x;cmd", with(R"("extraEnv":{"x;cmd":"v"})")},
        {"extraEnv.A=B", with(R"("extraEnv":{"A=B":"v"})")},
        {"extraEnv.MGN_VM_ID", with(R"("extraEnv":{"MGN_VM_ID":"v"})")},
        {"extraEnv.MGN_", with(R"("extraEnv":{"MGN_":"v"})")},
        {"extraEnv.A", with(R"("extraEnv":{"A":"a\nb"})")},
        {"extraEnv.A", with(R"("extraEnv":{"A":"a\rb"})")},
        {"extraEnv.A", with(R"("extraEnv":{"A":1})")},
        {"extraEnv.A", with(R"("extraEnv":{"A":")" + lots(4097) + "\"}")},
        {"bootArgs", with(R"("bootArgs":"a\nb")")},
        {"bootArgs", with(R"("bootArgs":"caf\u00e9")")},
        {"bootArgs", with(R"("bootArgs":["quiet"])")},
        {"bootArgs", with(R"("bootArgs":")" + lots(1501) + "\"")},
        {"hooks", with(R"("hooks":[])")},
        {"hooks", with(R"("hooks":"exec")")},
        {"hooks.onStart", with(R"("hooks":{"onStart":{}})")},
        {"hooks.onStart", with(R"("hooks":{"onStart":"cmd"})")},
        {"hooks.onStop[1]", with(R"("hooks":{"onStop":[{},1]})")},
        {"hooks.onDelete", with(R"("hooks":{"onDelete":[)" + times(33, "{}") + "]}")},
        {"hooks.onstart", with(R"("hooks":{"onstart":[]})")},
    };
}

TEST(ApiCreateBody, TakesTheLeastWithMergenFiresDefaults) {
    const engine::CreateRequest request = parseCreateBody(with(""));
    EXPECT_EQ(request.id, std::nullopt);
    EXPECT_EQ(request.name, "");
    EXPECT_EQ(request.rootfs, "/srv/r.ext4");
    EXPECT_EQ(request.kernel, "/srv/vmlinux");
    EXPECT_EQ(request.initrd, std::nullopt);
    EXPECT_EQ(request.dataDisk, std::nullopt);
    EXPECT_EQ(request.vcpus, 1U);
    EXPECT_EQ(request.memory, MiB{512});
    EXPECT_TRUE(request.ports.empty());
    EXPECT_EQ(request.httpPort, 0);
    EXPECT_FALSE(request.autoStart);
    EXPECT_EQ(request.bootArguments, std::nullopt);
    EXPECT_TRUE(request.extraEnv.empty());
    EXPECT_TRUE(request.tags.empty());
    EXPECT_EQ(request.metadata, "");
    EXPECT_EQ(request.hooks, "");
}

TEST(ApiCreateBody, TakesEveryMember) {
    const engine::CreateRequest request = parseCreateBody(with(
        R"("id":"web-1","name":"Web 1.a_b","initrd":"/srv/i","dataDisk":"/srv/d","vcpu":32,"memMiB":128,)"
        R"("ports":[{"guest":80,"host":0},{"guest":80,"host":8080,"protocol":"tcp"},{"guest":80,"host":8080,"protocol":"udp"}],)"
        R"("httpPort":80,"metadata":{"z":[1,2.5],"a":null},"autoStart":true,"bootArgs":"quiet ip=off",)"
        R"("extraEnv":{"_A1":"it's $(x) \t","B":""},"tags":{"app":"web"},)"
        R"("hooks":{"onStart":[{"type":"exec","cmd":["/bin/true"]}],"onStop":[]})"));
    EXPECT_EQ(request.id->str(), "web-1");
    EXPECT_EQ(request.name, "Web 1.a_b");
    EXPECT_EQ(request.initrd, "/srv/i");
    EXPECT_EQ(request.dataDisk, "/srv/d");
    EXPECT_EQ(request.vcpus, 32U);
    EXPECT_EQ(request.memory, MiB{128});
    ASSERT_EQ(request.ports.size(), 3U);
    EXPECT_EQ(request.ports[0].host, 0);
    EXPECT_EQ(request.ports[0].protocol, Protocol::Tcp);
    EXPECT_EQ(request.ports[2].protocol, Protocol::Udp);
    EXPECT_EQ(request.httpPort, 80);
    EXPECT_EQ(request.metadata, R"({"z":[1,2.5],"a":null})");
    EXPECT_TRUE(request.autoStart);
    EXPECT_EQ(request.bootArguments, "quiet ip=off");
    EXPECT_EQ(request.extraEnv, (std::map<std::string, std::string>{{"_A1", "it's $(x) \t"}, {"B", ""}}));
    EXPECT_EQ(request.tags, (std::map<std::string, std::string>{{"app", "web"}}));
    EXPECT_EQ(request.hooks, R"({"onStart":[{"type":"exec","cmd":["/bin/true"]}],"onStop":[]})");
}

TEST(ApiCreateBody, TakesTheEdgesOfEveryRange) {
    const std::string most = std::string(63, 'x');
    EXPECT_NO_THROW(static_cast<void>(parseCreateBody(with(R"("memMiB":1048576)"))));
    EXPECT_NO_THROW(static_cast<void>(parseCreateBody(with(R"("id":")" + most + R"(","name":")" + most + "\""))));
    EXPECT_NO_THROW(
        static_cast<void>(parseCreateBody(with(R"("ports":[{"guest":65535,"host":65535}],"httpPort":65535)"))));
    EXPECT_NO_THROW(static_cast<void>(parseCreateBody(with(R"("bootArgs":")" + std::string(1500, 'x') + "\""))));
    EXPECT_NO_THROW(
        static_cast<void>(parseCreateBody(R"({"kernel":"/k","rootfs":"/)" + std::string(4095, 'x') + "\"}")));
    std::string ports;
    for (int i = 1; i <= 64; ++i) ports += (i == 1 ? "" : ",") + std::string("{\"guest\":") + std::to_string(i) + "}";
    EXPECT_EQ(parseCreateBody(with("\"ports\":[" + ports + "]")).ports.size(), 64U);
}

TEST(ApiCreateBody, NullIsAbsentAndEmptyDocumentsAreNone) {
    const engine::CreateRequest request = parseCreateBody(
        with(R"("id":null,"name":null,"vcpu":null,"ports":null,"metadata":null,"hooks":{},"bootArgs":"","tags":null)"));
    EXPECT_EQ(request.vcpus, 1U);
    EXPECT_EQ(request.hooks, "");
    EXPECT_EQ(request.bootArguments, std::nullopt);
}

TEST(ApiCreateBody, EveryBadBodyIsRefusedWithItsFieldAndChangesNothing) {
    ServerFixture fixture;
    const std::vector<BadBody> bodies = badBodies();
    ASSERT_GE(bodies.size(), 80U);
    for (const BadBody& bad : bodies) {
        SCOPED_TRACE(bad.field + " <- " + printable(bad.body, 120));
        const Reply reply =
            fixture.request("POST", "/v1/vms", bad.body, bad.body.empty() ? "Content-Type: application/json\r\n" : "");
        EXPECT_EQ(reply.status, 400) << reply.body;
        EXPECT_EQ(reply.text("error"), "bad_request");
        EXPECT_EQ(reply.text("field"), bad.field) << reply.body;
        EXPECT_FALSE(reply.text("message").empty());
        if (!bad.field.empty()) {
            EXPECT_NE(reply.text("message").find(bad.field), std::string::npos) << reply.body;
        }
    }
    EXPECT_TRUE(fixture.state().log().empty());
}

TEST(ApiCreateBody, ARefusalStatesValueAndRule) {
    const auto said = [](const std::string& members) -> std::string {
        try {
            static_cast<void>(parseCreateBody(with(members)));
        } catch (const Error& error) {
            return error.what();
        }
        return "taken";
    };
    EXPECT_EQ(said(R"("memMiB":64)"), "memMiB: 64 is not a whole number from 128 to 1048576");
    EXPECT_EQ(said(R"("ports":[{"guest":80,"protocol":"sctp"}])"),
              "ports[0].protocol: \"sctp\" is neither tcp nor udp");
    EXPECT_EQ(said(R"("extraEnv":{"MGN_VM_ID":"x"})"),
              "extraEnv.MGN_VM_ID: \"MGN_VM_ID\" begins with MGN_, which is Mergen's own");
    EXPECT_EQ(said(R"("memMib":64)"), "memMib: unknown member, did you mean memMiB?");
}

TEST(ApiCreateBody, AnUnknownMemberIsToldBeforeAMissingOne) {
    try {
        static_cast<void>(parseCreateBody(R"({"rootfs":"/r","kernal":"/k"})"));
        FAIL() << "nothing was thrown";
    } catch (const Error& error) {
        EXPECT_STREQ(error.what(), "kernal: unknown member, did you mean kernel?");
    }
}

}  // namespace
}  // namespace mergen::api
