// Bad bodies through the real front to the real engine, over a host in memory: nothing there may change.
#include <map>
#include <set>
#include <string>

#include <gtest/gtest.h>

#include <mergen/base/text.hpp>

#include "bad_bodies.hpp"
#include "world.hpp"

namespace mergen::api {
namespace {

namespace fs = std::filesystem;
using engine::test::World;
using test::BadBody;
using test::RawClient;
using test::Reply;
using test::requestText;

/// All that a request could change.
struct Everything {
    explicit Everything(const World& world, const engine::Engine& engine) {
        for (const auto& [id, stored] : world.records) {
            for (const auto& [name, text] : stored.record.documents) documents[id + "/" + name] = text;
        }
        for (const auto& [uuid, process] : world.processes) processes.insert(uuid.str());
        for (const auto& [uuid, wire] : world.wires) wires.insert(uuid.str());
        for (const auto& entry : fs::recursive_directory_iterator(world.root)) {
            files[entry.path()] = entry.is_regular_file() ? entry.file_size() : 0;
        }
        for (const engine::VmView& vm : engine.list()) events[vm.id] = engine.events(vm.id).size();
    }
    bool operator==(const Everything&) const = default;

    std::map<std::string, std::string> documents;
    std::set<std::string> processes, wires;
    std::map<std::string, std::uintmax_t> files;
    std::map<std::string, std::size_t> events;
};

class BodiesAndEngine : public ::testing::Test {
protected:
    [[nodiscard]] Reply post(const std::string& body) {
        RawClient client(server.port());
        client.send(requestText("POST", "/v1/vms", body, body.empty() ? "Content-Type: application/json\r\n" : ""));
        const std::optional<Reply> reply = client.receive();
        if (!reply) throw std::runtime_error("no reply");
        return *reply;
    }
    /// A good body whose files exist, with `members`.
    [[nodiscard]] std::string good(const std::string& members = "") const {
        return "{" + members + R"("rootfs":")" + (world.images / "root.ext4").string() + R"(","kernel":")" +
               (world.images / "vmlinuz").string() + "\"}";
    }

    World world;
    std::unique_ptr<engine::Engine> engine = world.boot();
    ApiServer server{[] {
                         ApiConfig config;
                         config.port = 0;
                         return config;
                     }(),
                     *engine, [] { return std::vector<PluginRow>(); }, nullLog()};
};

TEST_F(BodiesAndEngine, NoBadBodyChangesAnythingAndNothingStaysReserved) {
    ASSERT_EQ(post(good(R"("id":"first","ports":[{"guest":80}],)")).status, 201);
    const Everything before(world, *engine);
    for (BadBody bad : test::badBodies()) {
        SCOPED_TRACE(bad.name);
        // With files that exist, so that nothing but what is meant to be wrong is.
        for (const auto& [path, real] : {std::pair("/srv/r.ext4", world.images / "root.ext4"),
                                         std::pair("/srv/vmlinux", world.images / "vmlinuz")}) {
            const std::size_t at = bad.body.rfind(path);
            if (at != std::string::npos) bad.body.replace(at, std::string_view(path).size(), real.string());
        }
        test::expectRefused(bad, post(bad.body));
        if (HasFailure()) break;
    }
    EXPECT_TRUE(Everything(world, *engine) == before);
    EXPECT_EQ(world.contradictions(*engine), "");

    ASSERT_EQ(post(good(R"("id":"second","ports":[{"guest":80}],)")).status, 201);
    const engine::VmView first = engine->get("first");
    const engine::VmView second = engine->get("second");
    EXPECT_EQ(second.guestAddress, "172.30.0.3") << "the next after " << first.guestAddress;
    EXPECT_EQ(second.ports.at(0).host, first.ports.at(0).host + 1);
}

TEST_F(BodiesAndEngine, WhatOnlyTheEngineCanRefuseChangesNothingEither) {
    ASSERT_EQ(post(good(R"("id":"first","name":"one","ports":[{"guest":80,"host":20005}],)")).status, 201);
    const Everything before(world, *engine);
    const auto refused = [&](int status, const std::string& field, const std::string& body) {
        const Reply reply = post(body);
        EXPECT_EQ(reply.status, status) << reply.body;
        EXPECT_EQ(reply.text("field"), field) << reply.body;
    };
    refused(400, "rootfs", R"({"rootfs":"/etc/passwd","kernel":"/etc/passwd"})");
    refused(400, "kernel", R"({"rootfs":")" + (world.images / "root.ext4").string() + R"(","kernel":"/none"})");
    refused(400, "initrd", good(R"("initrd":"/none",)"));
    refused(400, "dataDisk", good(R"("dataDisk":"/none",)"));
    refused(400, "dataDisk", good(R"("dataDisk":")" + (world.images / "root.ext4").string() + "\","));
    refused(400, "id", good(R"("id":"7f3a9c01-1b2c-4d3e-8f40-0123456789ab",)"));
    refused(409, "id", good(R"("id":"first",)"));
    refused(409, "name", good(R"("name":"one",)"));
    refused(409, "ports[0].host", good(R"("ports":[{"guest":80,"host":20005}],)"));
    refused(409, "ports[1].host", good(R"("ports":[{"guest":80},{"guest":81,"host":20005}],)"));
    refused(400, "vcpu", good(R"("vcpu":9,)"));  // the VMM of this host has eight
    EXPECT_TRUE(Everything(world, *engine) == before);
    EXPECT_EQ(world.contradictions(*engine), "");
}

TEST_F(BodiesAndEngine, ABodyAtEveryLimitIsTakenAndItsRecordReadsBack) {
    const auto numbered = [](std::size_t count, const std::string& name, const std::string& value) {
        std::string all;
        for (std::size_t i = 0; i < count; ++i)
            all += (i == 0 ? "\"" : ",\"") + name + std::to_string(i) + "\":\"" + value + "\"";
        return all;
    };
    std::string ports;
    for (int i = 1; i <= 64; ++i) ports += (i == 1 ? "" : ",") + std::string("{\"guest\":") + std::to_string(i) + "}";
    const std::string x(65536 - 8, 'x');  // {"a":"…"} has eight bytes around it
    const std::string hook = R"({"onCreate":[{"a":")" + std::string(65536 - 23, 'x') + "\"}]}";
    ASSERT_EQ(hook.size(), 65536U);
    const std::string members = R"("id":"full","ports":[)" + ports + R"(],"metadata":{"a":")" + x +
                                R"("},"bootArgs":")" + std::string(1500, 'x') + R"(","tags":{)" +
                                numbered(128, "t", std::string(500, 'v')) + R"(},"extraEnv":{)" +
                                numbered(128, "E", std::string(500, 'v')) + R"(},"hooks":)" + hook + ",";
    const Reply reply = post(good(members));
    ASSERT_EQ(reply.status, 201) << reply.body;
    const engine::VmView before = engine->get("full");
    EXPECT_EQ(before.tags.size(), 128U);
    EXPECT_EQ(before.extraEnv.size(), 128U);
    EXPECT_EQ(before.ports.size(), 64U);
    const auto next = world.boot();  // reads the record as the next server does
    const engine::VmView after = next->get("full");
    EXPECT_EQ(after.state, engine::VmState::Created) << after.failure;
    EXPECT_EQ(after.metadata, before.metadata);
    EXPECT_EQ(after.hooks, before.hooks);
    EXPECT_EQ(after.tags, before.tags);
    EXPECT_EQ(after.extraEnv, before.extraEnv);
    EXPECT_EQ(after.ports, before.ports);
}

}  // namespace
}  // namespace mergen::api
