#include <fstream>
#include <future>

#include "world.hpp"

namespace mergen::engine::test {
namespace {

VmView running(World& world, const std::string& id) {
    const auto engine = world.boot();
    CreateRequest request = world.request();
    request.id = RecordId::parse(id);
    static_cast<void>(engine->create(request));
    return engine->start(id);
}

TEST(Recover, RunningVmIsAdoptedUntouched) {
    World world;
    const VmView before = running(world, "web");
    std::vector<std::string> effects;
    world.onEffect = [&](const std::string& effect, const std::string& moment) {
        if (moment == "after") effects.push_back(effect);
    };
    const auto engine = world.boot();
    const VmView after = engine->get("web");
    EXPECT_EQ(after.state, VmState::Running);
    EXPECT_EQ(after.pid, before.pid);
    EXPECT_EQ(after.guestAddress, before.guestAddress);
    EXPECT_EQ(effects, std::vector<std::string>{"network.publish"}) << "only what is a no-op on a whole host";
    EXPECT_EQ(world.contradictions(*engine), "");
    EXPECT_EQ(engine->stop("web").vm.state, VmState::Stopped);
}

TEST(Recover, WireThatSomebodyRemovedIsMadeAgain) {
    World world;
    const VmView vm = running(world, "web");
    world.wires.clear();
    world.published.clear();
    const auto engine = world.boot();
    EXPECT_EQ(engine->get("web").state, VmState::Running);
    EXPECT_EQ(world.contradictions(*engine), "");
}

TEST(Recover, TracesOfTheWireOfAVmAtRestAreTakenAway) {
    World world;
    const VmView vm = running(world, "web");
    {
        const auto engine = world.boot();
        static_cast<void>(engine->stop("web"));
    }
    // As by a kill right after the stop was answered, and right after a delete was.
    world.traces = {{world.config.instance, Uuid::parse(vm.uuid)}, {world.config.instance, Uuid::random()}};
    const auto engine = world.boot();
    EXPECT_TRUE(world.traces.empty());
    EXPECT_EQ(engine->get("web").state, VmState::Stopped);
    EXPECT_EQ(world.contradictions(*engine), "");
}

TEST(Recover, GuestThatEndedMeanwhileIsStoppedWithItsExitStatus) {
    World world;
    const VmView vm = running(world, "web");
    world.end(Uuid::parse(vm.uuid), ExitStatus{false, 0, {}});
    const auto engine = world.boot();
    EXPECT_EQ(engine->get("web").state, VmState::Stopped);
    ASSERT_TRUE(engine->get("web").lastExit.has_value());
    EXPECT_EQ(world.contradictions(*engine), "");
}

TEST(Recover, VmmThatCrashedMeanwhileIsFailedWithItsSignal) {
    World world;
    const VmView vm = running(world, "web");
    world.end(Uuid::parse(vm.uuid), ExitStatus{true, 11, {}});
    const auto engine = world.boot();
    EXPECT_EQ(engine->get("web").state, VmState::Failed);
    EXPECT_NE(engine->get("web").failure.find("signal 11"), std::string::npos);
    EXPECT_EQ(world.contradictions(*engine), "");
}

TEST(Recover, ProcessThatVanishedWithoutATraceIsAFailure) {
    World world;
    static_cast<void>(running(world, "web"));
    world.processes.clear();
    const auto engine = world.boot();
    EXPECT_EQ(engine->get("web").state, VmState::Failed);
    EXPECT_EQ(world.contradictions(*engine), "");
}

TEST(Recover, AfterARebootOfTheHostVmsAreStopped) {
    World world;
    static_cast<void>(running(world, "web"));
    world.processes.clear();
    world.wires.clear();
    world.published.clear();
    std::filesystem::remove_all(world.config.runRoot);
    std::filesystem::create_directory(world.config.runRoot);
    std::string& meta = world.records.at("web").record.documents.at("meta.json");
    const auto at = meta.find("\"bootId\": \"") + 11;
    meta.replace(at, 36, "00000000-0000-4000-8000-000000000000");
    const auto engine = world.boot();
    EXPECT_EQ(engine->get("web").state, VmState::Stopped);
    EXPECT_EQ(engine->get("web").failure, "");
    EXPECT_EQ(engine->start("web").state, VmState::Running);
}

TEST(Recover, OwnStraysAreRemovedAndForeignOnesAreNot) {
    World world;
    const VmView vm = running(world, "web");
    const Uuid own = Uuid::parse(vm.uuid);
    world.records.clear();
    std::filesystem::remove_all(vm.paths.dataDir);
    const Uuid foreign = Uuid::random();
    ProcessStatus process = world.processes.at(own);
    process.owner = OwnerTag{"ffffffff", foreign};
    world.processes.emplace(foreign, process);
    NetworkSpec wire = world.wires.at(own);
    wire.owner = process.owner;
    world.wires.emplace(foreign, wire);
    EXPECT_TRUE(world.jails.contains(own));
    world.jails.insert(Uuid::random());  // of a VM of which nothing else is left
    const auto engine = world.boot();
    EXPECT_TRUE(engine->list().empty());
    EXPECT_FALSE(world.processes.contains(own));
    EXPECT_FALSE(world.wires.contains(own));
    EXPECT_TRUE(world.jails.empty());
    EXPECT_EQ(world.processes.at(foreign).state, ProcessState::Running);
    EXPECT_TRUE(world.wires.contains(foreign));
}

TEST(Recover, VmWhoseRecordIsGoneWhileItsDisksAreThereIsLeftRunning) {
    World world;
    static_cast<void>(running(world, "web"));
    world.records.clear();  // as a server sees it that was given another config_root
    const auto engine = world.boot();
    EXPECT_TRUE(engine->list().empty());
    EXPECT_EQ(world.processes.begin()->second.state, ProcessState::Running);
    EXPECT_EQ(world.wires.size(), 1U);
    EXPECT_EQ(world.jails.size(), 1U);
}

TEST(Recover, WhatACorruptRecordStillTellsIsGivenToNobodyElse) {
    World world;
    const VmView corrupt = running(world, "web");
    world.records.at("web").record.documents["meta.json"] = "";
    const auto engine = world.boot();
    const VmView other = engine->create(world.request()).vm;
    EXPECT_NE(other.guestAddress, corrupt.guestAddress);
    EXPECT_NE(other.ports.front().host, corrupt.ports.front().host);
    engine->remove("web", false);
    const VmView next = engine->create(world.request()).vm;
    EXPECT_EQ(next.guestAddress, corrupt.guestAddress);
    EXPECT_EQ(next.ports.front().host, corrupt.ports.front().host);
}

TEST(Recover, CorruptRecordIsListedAndHidesNoOther) {
    World world;
    static_cast<void>(running(world, "web"));
    const auto good = [&] {
        const auto engine = world.boot();
        return engine->create(world.request()).vm;
    }();
    for (const std::string damage : {"", "{", "{}", "[]", "\xff\xfe", R"({"format":1,"id":"web"})"}) {
        world.records.at("web").record.documents["meta.json"] = damage;
        const auto engine = world.boot();
        EXPECT_EQ(engine->get("web").state, VmState::Corrupt) << damage;
        EXPECT_NE(engine->get("web").failure, "");
        EXPECT_EQ(engine->get(good.id).state, VmState::Created);
        EXPECT_EQ(world.processes.size(), 1U) << "what may be its own is left running";
        EXPECT_EQ(world.wires.size(), 1U);
        EXPECT_THROW(static_cast<void>(engine->start("web")), Error);
        EXPECT_THROW(static_cast<void>(engine->stop("web")), Error);
        static_cast<void>(engine->create(world.request()));
    }
}

TEST(Recover, DeletingACorruptRecordTakesItsVmWithIt) {
    World world;
    static_cast<void>(running(world, "web"));
    world.records.at("web").record.documents["meta.json"] = "";
    const auto engine = world.boot();
    engine->remove("web", false);
    EXPECT_TRUE(engine->list().empty());
    EXPECT_TRUE(world.processes.empty());
    EXPECT_TRUE(world.wires.empty());
    EXPECT_EQ(world.contradictions(*engine), "");
}

TEST(Recover, CorruptRecordThatNothingTellsTheVmOfIsAStrayAfterItsDelete) {
    World world;
    static_cast<void>(running(world, "web"));
    world.records.at("web").record.documents["meta.json"] = "";
    std::filesystem::remove_all(world.config.dataRoot / "web");
    {
        const auto engine = world.boot();
        engine->remove("web", false);
        EXPECT_TRUE(engine->list().empty());
    }
    const auto engine = world.boot();
    EXPECT_TRUE(world.processes.empty());
    EXPECT_TRUE(world.wires.empty());
}

TEST(Recover, TwoRecordsWithOneAddressAreNotBothBelieved) {
    World world;
    const auto first = running(world, "a");
    std::string twin;
    {
        const auto engine = world.boot();
        twin = engine->create(world.request()).vm.id;
    }
    std::string& meta = world.records.at(twin).record.documents.at("meta.json");
    const std::string address = "\"guestIP\": \"172.30.0.3\"";
    meta.replace(meta.find(address), address.size(), "\"guestIP\": \"172.30.0.2\"");
    const auto engine = world.boot();
    std::size_t corrupt = 0;
    for (const VmView& vm : engine->list()) {
        if (vm.state != VmState::Corrupt) continue;
        ++corrupt;
        EXPECT_NE(vm.failure.find("172.30.0.2"), std::string::npos) << vm.failure;
    }
    EXPECT_EQ(corrupt, 1U);
}

TEST(Recover, VmmThatDoesNotAnswerIsLeftRunningAndSaidSo) {
    World world;
    const VmView vm = running(world, "web");
    world.guests.clear();
    const auto engine = world.boot();
    EXPECT_EQ(engine->get("web").state, VmState::Running);
    bool told = false;
    for (const Event& event : engine->events("web"))
        told = told || event.cause.find("does not answer") != std::string::npos;
    EXPECT_TRUE(told);
    EXPECT_EQ(world.contradictions(*engine), "");
}

TEST(Recover, AStartWhoseVmmFallsSilentWhileItIsAdoptedIsRunning) {
    World world;
    running(world, "web");
    std::string& meta = world.records.at("web").record.documents.at("meta.json");
    const std::string settled = "\"running\"";
    meta.replace(meta.find(settled), settled.size(), "\"starting\"");
    int asked = 0;
    world.onQuery = [&](const Uuid&) {
        if (++asked > 1) throw Error(ErrorKind::Unavailable, "no answer in time");
    };
    const auto engine = world.boot();
    EXPECT_EQ(asked, 2) << "once for what became of the start, once for the adoption";
    EXPECT_EQ(engine->get("web").state, VmState::Running);
    world.onQuery = {};
    EXPECT_EQ(engine->stop("web").vm.state, VmState::Stopped);
    EXPECT_EQ(world.contradictions(*engine), "");
}

TEST(Recover, AVmThatIsStuckKeepsNobodyWaitingAndIsHeldUntilItIsThrough) {
    World world;
    const VmView stuck = running(world, "stuck");
    {
        const auto engine = world.boot();
        CreateRequest request = world.request();
        request.id = RecordId::parse("web");
        static_cast<void>(engine->create(request));
        static_cast<void>(engine->start("web"));
    }
    world.config.recoverLimit = std::chrono::milliseconds(20);
    std::promise<void> release;
    const std::shared_future<void> released = release.get_future().share();
    world.onQuery = [&](const Uuid& vm) {
        if (vm == Uuid::parse(stuck.uuid)) released.wait();
    };
    const auto engine = world.boot();  // returns although it is stuck
    whenFree([&] { EXPECT_EQ(engine->stop("web").vm.state, VmState::Stopped); });
    ASSERT_TRUE(engine->get("stuck").holder);
    EXPECT_EQ(engine->get("stuck").holder->operation, "recover");
    try {
        static_cast<void>(engine->stop("stuck"));
        ADD_FAILURE() << "it is not held";
    } catch (const Error& error) {
        EXPECT_EQ(error.kind(), ErrorKind::Conflict);
    }
    release.set_value();
    whenFree([&] { EXPECT_EQ(engine->stop("stuck").vm.state, VmState::Stopped); });
    EXPECT_EQ(world.contradictions(*engine), "");
}

TEST(Recover, PausedGuestIsSeenAsPausedAndIsResumedToBeStopped) {
    World world;
    const VmView vm = running(world, "web");
    world.guests[Uuid::parse(vm.uuid)] = GuestState::Paused;
    const auto engine = world.boot();
    EXPECT_EQ(engine->get("web").state, VmState::Paused);
    EXPECT_EQ(engine->stop("web").vm.state, VmState::Stopped);
    EXPECT_EQ(engine->get("web").lastExit->code, 0);
}

}  // namespace
}  // namespace mergen::engine::test
