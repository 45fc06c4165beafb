#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include <mergen/base/text.hpp>
#include <mergen/sdk/error.hpp>

#include "bad_bodies.hpp"
#include "create_body.hpp"
#include "raw_client.hpp"

namespace mergen::api {
namespace {

using test::Reply;
using test::ServerFixture;

using test::badBodies;
using test::BadBody;
using test::with;

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
    EXPECT_EQ(request.restartPolicy, RestartPolicy::No);
    EXPECT_EQ(request.maxRestarts, 0U);
    EXPECT_EQ(request.onUnresponsive, engine::OnUnresponsive::Nothing);
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
        R"("restartPolicy":"on-failure","maxRestarts":5,"onUnresponsive":"stop",)"
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
    EXPECT_EQ(request.restartPolicy, RestartPolicy::OnFailure);
    EXPECT_EQ(request.maxRestarts, 5U);
    EXPECT_EQ(request.onUnresponsive, engine::OnUnresponsive::Stop);
    EXPECT_EQ(request.bootArguments, "quiet ip=off");
    EXPECT_EQ(request.extraEnv, (std::map<std::string, std::string>{{"_A1", "it's $(x) \t"}, {"B", ""}}));
    EXPECT_EQ(request.tags, (std::map<std::string, std::string>{{"app", "web"}}));
    EXPECT_EQ(request.hooks, R"({"onStart":[{"type":"exec","cmd":["/bin/true"]}],"onStop":[]})");
}

/// Something that a caller may ask for so much of.
struct Limit {
    const char* field;
    std::size_t most;
    std::function<std::string(std::size_t)> members;  ///< that ask for so much
};

std::vector<Limit> limits() {
    const auto text = [](const std::string& before, const std::string& behind) {
        return [=](std::size_t size) { return before + std::string(size - 1, 'x') + "y" + behind; };
    };
    /// A value by which the whole (with what stands around it) has so many bytes.
    const auto whole = [](const std::string& name, const std::string& before, const std::string& behind) {
        return [=](std::size_t size) {
            return "\"" + name + "\":" + before + std::string(size - before.size() - behind.size(), 'x') + behind;
        };
    };
    const auto list = [](const std::string& before, const std::string& behind,
                         const std::function<std::string(std::size_t)>& each) {
        return [=](std::size_t count) {
            std::string all = before;
            for (std::size_t i = 1; i <= count; ++i) all += (i == 1 ? "" : ",") + each(i);
            return all + behind;
        };
    };
    const auto named = [](std::size_t i) { return "\"v" + std::to_string(i) + "\":\"\""; };
    const std::string half(500, 'x');
    return {
        {"id", 63, text("\"id\":\"", "\"")},
        {"name", 63, text("\"name\":\"", "\"")},
        {"initrd", 4096, [=](std::size_t size) { return "\"initrd\":\"/" + std::string(size - 1, 'x') + "\""; }},
        {"dataDisk", 4096, [=](std::size_t size) { return "\"dataDisk\":\"/" + std::string(size - 1, 'x') + "\""; }},
        {"bootArgs", 1500, text("\"bootArgs\":\"", "\"")},
        {"ports", 64, list("\"ports\":[", "]", [](std::size_t i) { return "{\"guest\":" + std::to_string(i) + "}"; })},
        {"metadata", 65536, whole("metadata", R"({"a":")" + half + R"(","b":")", "\"}")},
        {"hooks", 65536, whole("hooks", R"({"onStop":[{"a":")" + half + R"("},{"b":")", "\"}]}")},
        {"hooks.onStart", 32, list(R"("hooks":{"onStart":[)", "]}", [](std::size_t) { return std::string("{}"); })},
        {"tags", 128, list("\"tags\":{", "}", named)},
        {"tags.n", 1024, text(R"("tags":{"n":")", "\"}")},
        {"extraEnv", 128, list("\"extraEnv\":{", "}", named)},
        {"extraEnv.n", 4096, text(R"("extraEnv":{"n":")", "\"}")},
    };
}

TEST(ApiCreateBody, TakesTheMembersOfFirecrackersNames) {
    const engine::CreateRequest request = parseCreateBody(
        R"({"bootSource":{"kernelImagePath":"/srv/k","initrdPath":"/srv/i","bootArgs":"quiet"},)"
        R"("machineConfig":{"vcpuCount":2,"memSizeMib":256,"smt":true,"hugePages":"2M","cpuTemplate":"T2"},)"
        R"("drives":[{"driveId":"rootfs","pathOnHost":"/srv/r","isRootDevice":true,"isReadOnly":true,)"
        R"("ioEngine":"Async","rateLimiter":{"ops":{"size":5,"refillTime":100},"bandwidth":{"size":0,"refillTime":0}}},)"
        R"({"driveId":"data","pathOnHost":"/srv/d","cacheType":"Unsafe"},{"driveId":"logs","pathOnHost":"/srv/l"}],)"
        R"("networkInterfaces":[{"ifaceId":"eth0","rxRateLimiter":{"bandwidth":{"size":9,"oneTimeBurst":1,)"
        R"("refillTime":2}}}],"vsock":{"guestCid":7},"balloon":{"amountMib":256,"deflateOnOom":true,)"
        R"("statsPollingIntervalS":3},"entropy":{},"mmds":{"data":{"a":1},"ipv4Address":"169.254.1.0",)"
        R"("imdsCompat":true},"metrics":true})");
    EXPECT_EQ(request.kernel, "/srv/k");
    EXPECT_EQ(request.initrd, "/srv/i");
    EXPECT_EQ(request.bootArguments, "quiet");
    EXPECT_EQ(request.vcpus, 2U);
    EXPECT_EQ(request.memory, MiB{256});
    EXPECT_EQ(request.rootfs, "/srv/r");
    EXPECT_EQ(request.dataDisk, "/srv/d");
    const RateLimiter five{.operations = TokenBucket{5, 0, std::chrono::milliseconds(100)}};
    const std::vector<engine::DriveRequest> drives{
        {.id = "rootfs", .path = {}, .readOnly = true, .engine = IoEngine::Async, .limit = five},
        {.id = "data", .path = {}, .cache = DiskCache::Unsafe},
        {.id = "logs", .path = "/srv/l"}};
    EXPECT_EQ(request.drives, drives);
    const std::vector<engine::NicRequest> nics{
        {.id = "eth0", .receive = {.bandwidth = TokenBucket{9, 1, std::chrono::milliseconds(2)}}}};
    EXPECT_EQ(request.nics, nics);
    const engine::GuestOptions options{.smt = true,
                                       .hugePages = HugePages::TwoMiB,
                                       .cpuTemplate = "T2",
                                       .vsock = VsockSpec{7},
                                       .balloon = BalloonSpec{MiB{256}, true, std::chrono::seconds(3)},
                                       .entropy = EntropySpec{},
                                       .mmds = MmdsSpec{Ipv4Address::parse("169.254.1.0"), true, R"({"a":1})"},
                                       .metrics = true};
    EXPECT_EQ(request.options, options);
}

TEST(ApiCreateBody, TheShortNameAndFirecrackersMaySayTheSame) {
    const engine::CreateRequest request = parseCreateBody(
        with(R"("vcpu":2,"memMiB":256,"bootArgs":"quiet","dataDisk":"/srv/d",)"
             R"("machineConfig":{"vcpuCount":2,"memSizeMib":256,"cpuTemplate":"None"},)"
             R"("bootSource":{"kernelImagePath":"/srv/vmlinux","bootArgs":"quiet"},)"
             R"("drives":[{"driveId":"rootfs","pathOnHost":"/srv/r.ext4"},{"driveId":"data","pathOnHost":"/srv/d"}])"));
    EXPECT_EQ(request.vcpus, 2U);
    EXPECT_EQ(request.dataDisk, "/srv/d");
    EXPECT_EQ(request.options, engine::GuestOptions{});
}

TEST(ApiCreateBody, TakesAsMuchAsEveryLimitSaysAndNotOneMore) {
    for (const Limit& limit : limits()) {
        SCOPED_TRACE(limit.field);
        EXPECT_NO_THROW(static_cast<void>(parseCreateBody(with(limit.members(limit.most)))));
        try {
            static_cast<void>(parseCreateBody(with(limit.members(limit.most + 1))));
            ADD_FAILURE() << "one more is taken";
        } catch (const Error& error) {
            EXPECT_EQ(error.field(), limit.field) << error.what();
        }
    }
}

TEST(ApiCreateBody, TakesNamesAndMapsUpToTheirLimitsTogether) {
    const auto refusedField = [](const std::string& members) -> std::string {
        try {
            static_cast<void>(parseCreateBody(with(members)));
        } catch (const Error& error) {
            return error.field();
        }
        return "taken";
    };
    const std::string most(128, 'x');
    EXPECT_EQ(refusedField("\"tags\":{\"" + most + "\":\"\"}"), "taken");
    EXPECT_EQ(refusedField("\"extraEnv\":{\"" + most + "\":\"\"}"), "taken");
    EXPECT_EQ(refusedField("\"tags\":{\"" + most + "x\":\"\"}").substr(0, 8), "tags.xxx");
    EXPECT_EQ(refusedField("\"extraEnv\":{\"" + most + "x\":\"\"}").substr(0, 12), "extraEnv.xxx");
    // 64 KiB of names and values: 64 of 1024 bytes each.
    for (const std::string field : {"tags", "extraEnv"}) {
        std::string pairs;
        for (int i = 10; i < 74; ++i)
            pairs += (i == 10 ? "\"n" : ",\"n") + std::to_string(i) + "\":\"" + std::string(1021, 'x') + "\"";
        EXPECT_EQ(refusedField("\"" + field + "\":{" + pairs + "}"), "taken");
        EXPECT_EQ(refusedField("\"" + field + "\":{" + pairs + ",\"n\":\"\"}"), field);
    }
    // Depth: the body is the first level, metadata the second.
    EXPECT_EQ(refusedField("\"metadata\":{\"a\":" + std::string(22, '[') + std::string(22, ']') + "}"), "taken");
    EXPECT_NE(refusedField("\"metadata\":{\"a\":" + std::string(23, '[') + std::string(23, ']') + "}"), "taken");
    // Members and elements: rootfs, kernel, metadata and its one are four of them.
    EXPECT_EQ(refusedField("\"metadata\":{\"a\":[" + test::times(4092, "1") + "]}"), "taken");
    EXPECT_EQ(refusedField("\"metadata\":{\"a\":[" + test::times(4093, "1") + "]}"), "");
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

TEST(ApiCreateBody, ThereAreManyBadBodiesAndEachHasANameOfItsOwn) {
    std::set<std::string> names;
    for (const BadBody& bad : badBodies()) EXPECT_TRUE(names.insert(bad.name).second) << bad.name;
    EXPECT_GE(names.size(), 300U);
}

TEST(ApiCreateBody, EveryBadBodyIsRefusedWithItsFieldAndRule) {
    for (const BadBody& bad : badBodies()) {
        SCOPED_TRACE(bad.name + ": " + printable(bad.body, 120));
        try {
            static_cast<void>(parseCreateBody(bad.body));
            ADD_FAILURE() << "taken";
        } catch (const Error& error) {
            EXPECT_EQ(error.kind(), ErrorKind::InvalidArgument) << error.what();
            EXPECT_EQ(error.field(), bad.field) << error.what();
            EXPECT_NE(std::string(error.what()).find(bad.rule), std::string::npos) << error.what();
        }
    }
}

TEST(ApiCreateBody, EveryBadBodyIsRefusedWithItsFieldAndChangesNothing) {
    ServerFixture fixture;
    for (const BadBody& bad : badBodies()) {
        SCOPED_TRACE(bad.name + ": " + printable(bad.body, 120));
        test::expectRefused(bad, fixture.request("POST", "/v1/vms", bad.body,
                                                 bad.body.empty() ? "Content-Type: application/json\r\n" : ""));
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
