#include <fstream>
#include <sys/stat.h>

#include <mergen/base/file.hpp>

#include "world.hpp"

/// VMs whose records do not survive their server: an orderly end of it ends them, and the next one clears what a crash
/// left.
namespace mergen::engine::test {
namespace {

namespace fs = std::filesystem;

CreateRequest named(const World& world, const std::string& id) {
    CreateRequest request = world.request();
    request.id = RecordId::parse(id);
    return request;
}

bool isEmpty(const World& world) {
    return world.processes.empty() && world.wires.empty() && world.published.empty() &&
           listDirectory(world.config.dataRoot).empty() && listDirectory(world.config.runRoot).empty();
}

TEST(Transient, AnOrderlyEndOfTheServerEndsItsVms) {
    World world;
    world.durable = false;
    const auto engine = world.boot();
    for (const char* id : {"a", "b", "c"}) static_cast<void>(engine->create(named(world, id)));
    static_cast<void>(engine->start("a"));
    static_cast<void>(engine->start("b"));
    static_cast<void>(engine->pause("b"));
    EXPECT_TRUE(engine->drain(std::chrono::seconds(60)));
    EXPECT_TRUE(isEmpty(world));
    EXPECT_TRUE(world.records.empty());
}

TEST(Transient, AnOrderlyEndOfADurableServerEndsNothing) {
    World world;
    const auto engine = world.boot();
    static_cast<void>(engine->create(named(world, "a")));
    static_cast<void>(engine->start("a"));
    EXPECT_TRUE(engine->drain(std::chrono::seconds(60)));
    EXPECT_EQ(world.processes.size(), 1U);
}

TEST(Transient, WhatACrashLeftIsRemovedByTheNextServerDisksToo) {
    World world;
    world.durable = false;
    const fs::path disk = world.images / "data.ext4";
    {
        const auto engine = world.boot();
        CreateRequest request = named(world, "a");
        request.dataDisk = disk;
        std::ofstream(world.images / "logs of it.ext4") << "logs";
        request.drives = {{.id = "logs", .path = world.images / "logs of it.ext4"}};
        static_cast<void>(engine->create(request));
        static_cast<void>(engine->start("a"));
        static_cast<void>(engine->create(named(world, "b")));
    }
    world.records.clear();  // as the memory of a dead process is
    fs::create_directory(world.config.dataRoot / (".aside-" + Uuid::random().str()));
    const auto engine = world.boot();
    EXPECT_TRUE(engine->list().empty());
    EXPECT_TRUE(isEmpty(world));
    struct stat status {};
    ASSERT_EQ(::stat(disk.c_str(), &status), 0);
    EXPECT_EQ(status.st_uid, ::geteuid()) << "the data disk is given back";
    static_cast<void>(engine->create(named(world, "a")));
    EXPECT_EQ(engine->start("a").state, VmState::Running);
}

TEST(Transient, ADurableServerOnTheSameFoldersRemovesItTheSame) {
    World world;
    world.durable = false;
    {
        const auto engine = world.boot();
        static_cast<void>(engine->create(named(world, "a")));
        static_cast<void>(engine->start("a"));
    }
    world.records.clear();
    world.durable = true;
    const auto engine = world.boot();
    EXPECT_TRUE(isEmpty(world));
}

TEST(Transient, VmsOfADurableServerOnTheSameFoldersAreLeftAlone) {
    World world;
    {
        const auto engine = world.boot();
        static_cast<void>(engine->create(named(world, "a")));
        static_cast<void>(engine->start("a"));
    }
    const auto records = std::exchange(world.records, {});
    world.durable = false;
    {
        const auto engine = world.boot();
        EXPECT_TRUE(engine->list().empty());
        EXPECT_EQ(world.processes.size(), 1U) << "its disks are there, and not marked as nobody's";
        EXPECT_TRUE(engine->drain(std::chrono::seconds(60)));
    }
    world.records = records;
    world.durable = true;
    const auto engine = world.boot();
    EXPECT_EQ(engine->get("a").state, VmState::Running);
    EXPECT_EQ(world.contradictions(*engine), "");
}

TEST(Transient, DataThatWasToBeKeptIsKept) {
    World world;
    world.durable = false;
    {
        const auto engine = world.boot();
        static_cast<void>(engine->create(named(world, "a")));
        engine->remove("a", /*retainData=*/true);
    }
    const auto engine = world.boot();
    EXPECT_TRUE(fs::exists(world.config.dataRoot / "a" / "rootfs.ext4"));
}

}  // namespace
}  // namespace mergen::engine::test
