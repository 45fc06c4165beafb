// What the engine says and takes of VMMs.
#include <gmock/gmock.h>

#include <mergen/base/json.hpp>

#include "world.hpp"

namespace mergen::engine::test {
namespace {

using testing::HasSubstr;

ComponentHealth healthOf(const Engine& engine, const std::string& name) {
    for (const ComponentHealth& each : engine.health()) {
        if (each.kind == "vmm" && each.name == name) return each;
    }
    ADD_FAILURE() << "there is no " << name;
    return {};
}

TEST(Vmm, ConfigurationIsAFirecrackersWithTheVmsOwnPaths) {
    World world;
    const auto engine = world.boot();
    const VmView vm = engine->create(world.request()).vm;
    const std::string text = engine->vmConfig(vm.id);
    const auto whole = json::parseObject(text);
    EXPECT_EQ(whole->getObject("boot-source")->getValue<std::string>("kernel_image_path"),
              (vm.paths.dataDir / "kernel").string());
    EXPECT_EQ(whole->getArray("drives")->getObject(0)->getValue<std::string>("path_on_host"),
              (vm.paths.dataDir / "rootfs.ext4").string());
    EXPECT_EQ(whole->getArray("network-interfaces")->getObject(0)->getValue<std::string>("host_dev_name"), vm.tapName);
    EXPECT_EQ(world.records.at(vm.id).record.documents.at("vm.json"), text) << "what the record has";
    EXPECT_THROW(static_cast<void>(engine->vmConfig("none")), Error);
}

TEST(Vmm, OneThatIsNotLoadedIsRefusedByName) {
    World world;
    const auto engine = world.boot();
    CreateRequest request = world.request();
    request.vmm = "bhyve";
    try {
        static_cast<void>(engine->create(request));
        ADD_FAILURE() << "it was taken";
    } catch (const Error& error) {
        EXPECT_EQ(error.kind(), ErrorKind::InvalidArgument);
        EXPECT_EQ(error.field(), "vmm");
        EXPECT_THAT(error.what(), HasSubstr("fake, spare"));
    }
    EXPECT_EQ(world.contradictions(*engine), "");
    request.vmm = "spare";
    EXPECT_EQ(engine->create(request).vm.vmm, "spare");
}

TEST(Vmm, WhatTheHostLacksForAStartIsRefusedBeforeAnythingIsMade) {
    World world;
    const auto engine = world.boot();
    const VmView vm = engine->create(world.request()).vm;
    world.hostLacks = "no page is free";
    int effects = 0;
    world.onEffect = [&](const std::string&, const std::string&) { ++effects; };
    const auto expectRefused = [&] {
        try {
            static_cast<void>(engine->start(vm.id));
            ADD_FAILURE() << "it was started";
        } catch (const Error& error) {
            EXPECT_EQ(error.kind(), ErrorKind::FailedPrecondition);
            EXPECT_STREQ(error.what(), "machineConfig.hugePages: no page is free");
            EXPECT_EQ(error.field(), "") << "a start has no such member";
        }
    };
    expectRefused();
    EXPECT_EQ(effects, 0);
    EXPECT_EQ(engine->get(vm.id).state, VmState::Created) << "nothing has happened";
    EXPECT_EQ(world.contradictions(*engine), "");
    world.onEffect = {};
    world.hostLacks.clear();
    EXPECT_EQ(engine->start(vm.id).state, VmState::Running) << "the host has it now";
    engine->stop(vm.id);
    world.hostLacks = "no page is free";
    expectRefused();
    EXPECT_EQ(engine->get(vm.id).state, VmState::Stopped);
    EXPECT_EQ(world.contradictions(*engine), "");
}

TEST(Vmm, WhatTheHostLacksForAStartIsNoReasonNotToMakeAVmUnlessItIsToStartAtOnce) {
    World world;
    world.hostLacks = "no page is free";
    const auto engine = world.boot();
    CreateRequest request = world.request();
    request.autoStart = true;
    try {
        static_cast<void>(engine->create(request));
        ADD_FAILURE() << "it was made";
    } catch (const Error& error) {
        EXPECT_EQ(error.kind(), ErrorKind::FailedPrecondition);
        EXPECT_EQ(error.field(), "machineConfig.hugePages");
    }
    EXPECT_TRUE(engine->list().empty());
    EXPECT_TRUE(world.records.empty());
    EXPECT_EQ(world.contradictions(*engine), "");
    request.autoStart = false;
    EXPECT_EQ(engine->create(request).vm.state, VmState::Created);
    EXPECT_EQ(world.contradictions(*engine), "");
}

TEST(Vmm, SickOneIsWellWhileNoVmNeedsIt) {
    World world;
    world.spareHealth = {.ok = false, .detail = "its program is missing"};
    const auto engine = world.boot();
    EXPECT_TRUE(healthOf(*engine, "spare").ok);
    EXPECT_THAT(healthOf(*engine, "spare").detail, HasSubstr("no VM needs it; its program is missing"));
    CreateRequest request = world.request();
    request.vmm = "spare";
    const VmView vm = engine->create(request).vm;
    EXPECT_FALSE(healthOf(*engine, "spare").ok);
    engine->remove(vm.id, /*retainData=*/false);
    EXPECT_TRUE(healthOf(*engine, "spare").ok);
}

TEST(Vmm, ChoiceOfTheServerStandsOnTheHealthPage) {
    World world;
    world.config.vmmChoice = "auto: fake, because it is here";
    const auto engine = world.boot();
    EXPECT_THAT(healthOf(*engine, "fake").detail, HasSubstr("auto: fake, because it is here"));
}

TEST(Vmm, WhatItRefusesAtAStartIsAboutNoMemberOfThatRequest) {
    World world;
    const auto engine = world.boot();
    const VmView vm = engine->create(world.request()).vm;
    world.onEffect = [](const std::string& effect, const std::string& moment) {
        if (effect == "vmm.prepare" && moment == "before")
            throw Error(ErrorKind::InvalidArgument, "cannot use the disk").about("disks[0].file");
    };
    try {
        static_cast<void>(engine->start(vm.id));
        ADD_FAILURE() << "it was started";
    } catch (const Error& error) {
        EXPECT_EQ(error.kind(), ErrorKind::FailedPrecondition);
        EXPECT_EQ(error.field(), "");
        EXPECT_STREQ(error.what(), "cannot use the disk");
    }
    world.onEffect = {};
    EXPECT_EQ(world.contradictions(*engine), "");
}

TEST(Vmm, OneThatHasEndedInThisMomentDoesNotRunAlready) {
    World world;
    const auto engine = world.boot();
    const VmView vm = world.runWeb(*engine);
    ProcessStatus& process = world.processes.at(Uuid::parse(vm.uuid));
    process.state = ProcessState::Exited;  // and the server has not heard of it yet
    try {
        static_cast<void>(engine->start(vm.id));
        ADD_FAILURE() << "it was said to run";
    } catch (const Error& error) {
        EXPECT_EQ(error.kind(), ErrorKind::Conflict);
        EXPECT_THAT(error.what(), HasSubstr("ended in this moment"));
    }
    process.state = ProcessState::Running;
    EXPECT_EQ(engine->start(vm.id).state, VmState::Running);
}

TEST(Vmm, MeaningOfAnExitStatusIsInTheFailure) {
    World world;
    world.exitMeaning = "a system call that it may not do";
    const auto engine = world.boot();
    const VmView vm = engine->create(world.request()).vm;
    engine->start(vm.id);
    world.end(Uuid::parse(vm.uuid), ExitStatus{false, 148, {}});
    ASSERT_TRUE(eventually([&] { return engine->get(vm.id).state == VmState::Failed; }));
    EXPECT_EQ(engine->get(vm.id).failure, "the VMM ended with exit status 148 (a system call that it may not do)");
}

}  // namespace
}  // namespace mergen::engine::test
