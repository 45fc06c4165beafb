#include <signal.h>

#include "world.hpp"

/// Restarts that a VM's parent makes by its policy, as the engine sees them: told, counted, and beaten by a stop.
namespace mergen::engine::test {
namespace {

VmView launched(World& world, Engine& engine, RestartPolicy policy, unsigned maxRestarts = 0) {
    CreateRequest request = world.request();
    request.restartPolicy = policy;
    request.maxRestarts = maxRestarts;
    return world.runWeb(engine, std::move(request));
}

std::vector<std::string> causes(const Engine& engine, const std::string& operation) {
    std::vector<std::string> all;
    for (const Event& event : engine.events("web")) {
        if (event.operation == operation && event.step.empty() && !event.cause.empty()) all.push_back(event.cause);
    }
    return all;
}

TEST(Restart, PolicyCommandLineAndPermissionReachTheSupervisor) {
    World world;
    const auto engine = world.boot();
    const VmView vm = launched(world, *engine, RestartPolicy::OnFailure, 3);
    const Uuid uuid = Uuid::parse(vm.uuid);
    EXPECT_EQ(vm.restartPolicy, RestartPolicy::OnFailure);
    EXPECT_EQ(vm.maxRestarts, 3U);
    const RestartPlan& plan = world.plans.at(uuid);
    EXPECT_EQ(plan.policy, RestartPolicy::OnFailure);
    EXPECT_EQ(plan.maxRestarts, 3U);
    EXPECT_EQ(plan.arguments, (std::vector<std::string>{"/bin/vmm", "--unattended"}));
    EXPECT_EQ(plan.stale, (std::vector<std::filesystem::path>{vm.paths.socket}));
    EXPECT_TRUE(world.restartable.contains(uuid));
}

TEST(Restart, IsPermittedOnlyWhenTheStartIsWrittenDown) {
    World world;
    const auto engine = world.boot();
    bool committed = false;
    world.onEffect = [&](const std::string& effect, const std::string& moment) {
        if (effect == "storage.put" && moment == "after") {
            committed =
                world.records.at("web").record.documents.at("meta.json").find("\"running\"") != std::string::npos;
        }
        if (effect == "supervisor.permit") {
            EXPECT_TRUE(committed);
        }
    };
    static_cast<void>(launched(world, *engine, RestartPolicy::Always));
    EXPECT_TRUE(committed);
    world.onEffect = {};
}

TEST(Restart, AStartWhosePermissionFailsLeavesNothing) {
    World world;
    const auto engine = world.boot();
    world.onEffect = [&](const std::string& effect, const std::string& moment) {
        if (effect == "supervisor.permit" && moment == "before") throw Error(ErrorKind::ResourceExhausted, "no room");
    };
    EXPECT_THROW(static_cast<void>(launched(world, *engine, RestartPolicy::Always)), Error);
    world.onEffect = {};
    EXPECT_EQ(engine->get("web").state, VmState::Failed);
    EXPECT_EQ(world.contradictions(*engine), "");
}

TEST(Restart, AStartWhoseVmmEndsBeforeItMayBeRestartedFails) {
    World world;
    const auto engine = world.boot();
    world.onEffect = [&](const std::string& effect, const std::string& moment) {
        if (effect != "supervisor.permit" || moment != "before") return;
        for (const auto& [vm, plan] : world.plans) {
            if (!world.restartable.contains(vm))
                world.end(vm, ExitStatus{true, SIGSEGV, std::chrono::system_clock::now()});
        }
    };
    EXPECT_THROW(static_cast<void>(launched(world, *engine, RestartPolicy::Always)), Error);
    world.onEffect = {};
    EXPECT_EQ(engine->get("web").state, VmState::Failed);
    EXPECT_EQ(world.contradictions(*engine), "");
}

TEST(Restart, IsToldAndCountedWhileTheVmRuns) {
    World world;
    const auto engine = world.boot();
    const Uuid uuid = Uuid::parse(launched(world, *engine, RestartPolicy::OnFailure).uuid);
    const SystemTime at = std::chrono::system_clock::now() - std::chrono::hours(1);
    world.end(uuid, ExitStatus{true, SIGSEGV, at});
    ASSERT_TRUE(eventually([&] { return causes(*engine, "exit").size() == 1; }));
    EXPECT_EQ(engine->get("web").state, VmState::Running) << "it waits to be started again";
    EXPECT_EQ(engine->get("web").pid, 0);
    EXPECT_EQ(engine->get("web").restarts, 0U);
    world.startAgain(uuid);
    ASSERT_TRUE(eventually([&] { return causes(*engine, "restart").size() == 1; }));
    ASSERT_TRUE(eventually([&] { return engine->get("web").restarts == 1; }));
    const VmView vm = engine->get("web");
    EXPECT_EQ(vm.state, VmState::Running);
    EXPECT_EQ(vm.pid, 4243);
    ASSERT_TRUE(vm.lastEnd);
    EXPECT_EQ(vm.lastEnd->by, EndedBy::Vmm);
    EXPECT_EQ(vm.lastEnd->at, at);
    EXPECT_NE(causes(*engine, "exit").front().find("signal 11"), std::string::npos);
    EXPECT_NE(causes(*engine, "restart").front().find("restart 1 in a row"), std::string::npos);
    for (const Event& event : engine->events("web")) {
        if (event.operation == "exit") {
            EXPECT_EQ(event.at, at) << "when it happened, not when it was seen";
        }
    }
    EXPECT_EQ(world.contradictions(*engine), "");
}

TEST(Restart, AfterAPanicIsToldWithWhatTheKernelSaid) {
    World world;
    const auto engine = world.boot();
    const Uuid uuid = Uuid::parse(launched(world, *engine, RestartPolicy::OnFailure).uuid);
    world.end(uuid, ExitStatus{false, 0, std::chrono::system_clock::now()}, {},
              "Kernel panic - not syncing: Fatal exception");
    world.startAgain(uuid);
    ASSERT_TRUE(eventually([&] { return engine->get("web").restarts == 1; }));
    EXPECT_EQ(engine->get("web").state, VmState::Running);
    EXPECT_EQ(engine->get("web").lastEnd->by, EndedBy::Panic);
    EXPECT_NE(causes(*engine, "restart").front().find("Fatal exception"), std::string::npos);
    EXPECT_EQ(world.contradictions(*engine), "");
}

TEST(Restart, ThoseOfADeadServersTimeAreToldByTheNext) {
    World world;
    Uuid uuid;
    {
        const auto engine = world.boot();
        uuid = Uuid::parse(launched(world, *engine, RestartPolicy::Always).uuid);
    }
    for (int i = 0; i < 2; ++i) {
        world.end(uuid, ExitStatus{false, 0, std::chrono::system_clock::now()});
        world.startAgain(uuid);
    }
    {
        const auto engine = world.boot();
        EXPECT_EQ(engine->get("web").state, VmState::Running);
        EXPECT_EQ(engine->get("web").restarts, 2U);
        EXPECT_EQ(engine->get("web").lastEnd->by, EndedBy::Guest);
        EXPECT_EQ(causes(*engine, "exit").size(), 2U);
        EXPECT_EQ(causes(*engine, "restart").size(), 2U);
        EXPECT_EQ(world.contradictions(*engine), "");
    }
    world.end(uuid, ExitStatus{true, SIGKILL, std::chrono::system_clock::now()});
    const auto engine = world.boot();
    EXPECT_EQ(engine->get("web").state, VmState::Running) << "found while it waits to be started again";
    EXPECT_EQ(engine->get("web").pid, 0);
    world.startAgain(uuid);
    EXPECT_TRUE(eventually([&] { return engine->get("web").pid == 4245; }));
    EXPECT_EQ(world.contradictions(*engine), "");
}

TEST(Restart, RetriesThatAreUsedUpMakeTheVmFailedWithItsCause) {
    World world;
    const auto engine = world.boot();
    const Uuid uuid = Uuid::parse(launched(world, *engine, RestartPolicy::Always, 1).uuid);
    world.end(uuid, ExitStatus{false, 0, std::chrono::system_clock::now()});
    world.startAgain(uuid);
    world.end(uuid, ExitStatus{false, 0, std::chrono::system_clock::now()});
    ASSERT_TRUE(eventually([&] { return engine->get("web").state == VmState::Failed; }));
    EXPECT_NE(engine->get("web").failure.find("maxRestarts"), std::string::npos) << engine->get("web").failure;
    EXPECT_EQ(engine->get("web").restarts, 1U);
    EXPECT_EQ(causes(*engine, "restart").size(), 1U);
    whenFree([&] { EXPECT_EQ(engine->start("web").restarts, 0U); });
    EXPECT_EQ(world.contradictions(*engine), "");
}

TEST(Restart, StopOfAVmThatWaitsToBeStartedAgainEndsIt) {
    World world;
    const auto engine = world.boot();
    const Uuid uuid = Uuid::parse(launched(world, *engine, RestartPolicy::OnFailure).uuid);
    world.end(uuid, ExitStatus{true, SIGKILL, std::chrono::system_clock::now()});
    whenFree([&] { EXPECT_EQ(engine->stop("web").vm.state, VmState::Stopped); });
    EXPECT_EQ(engine->get("web").lastEnd->by, EndedBy::Other);
    EXPECT_EQ(world.contradictions(*engine), "");
}

TEST(Restart, AGuestThatEndedByItselfBeforeAStopHasNotObeyedIt) {
    World world;
    const auto engine = world.boot();
    const Uuid uuid = Uuid::parse(launched(world, *engine, RestartPolicy::Always).uuid);
    world.end(uuid, ExitStatus{false, 0, std::chrono::system_clock::now() - std::chrono::seconds(1)});
    whenFree([&] { EXPECT_EQ(engine->stop("web").by, StoppedBy::Nothing); });
    EXPECT_EQ(engine->get("web").lastEnd->by, EndedBy::Guest);
    EXPECT_EQ(engine->get("web").lastEnd->operation, "");
}

TEST(Restart, StopForbidsItBeforeItAsksTheGuest) {
    for (const bool obeys : {true, false}) {
        World world;
        world.guestObeys = obeys;
        const auto engine = world.boot();
        static_cast<void>(launched(world, *engine, RestartPolicy::Always));
        EXPECT_EQ(engine->stop("web").vm.state, VmState::Stopped);
        EXPECT_TRUE(causes(*engine, "restart").empty());
        EXPECT_EQ(world.contradictions(*engine), "");
        static_cast<void>(engine->start("web"));
        engine->remove("web", false);
        EXPECT_TRUE(world.processes.empty());
    }
}

TEST(Restart, APausedVmThatIsStartedAgainRuns) {
    World world;
    const auto engine = world.boot();
    const Uuid uuid = Uuid::parse(launched(world, *engine, RestartPolicy::OnFailure).uuid);
    EXPECT_EQ(engine->pause("web").state, VmState::Paused);
    world.end(uuid, ExitStatus{true, SIGKILL, std::chrono::system_clock::now()});
    world.startAgain(uuid);
    EXPECT_TRUE(eventually([&] { return engine->get("web").state == VmState::Running; }));
    whenFree([&] { EXPECT_EQ(engine->pause("web").state, VmState::Paused); });
    EXPECT_EQ(world.contradictions(*engine), "");
}

TEST(Restart, AVmmThatCannotRunUnattendedIsRefusedAboutTheMember) {
    World world;
    world.unattended = false;
    const auto engine = world.boot();
    CreateRequest request = world.request();
    request.restartPolicy = RestartPolicy::Always;
    try {
        static_cast<void>(engine->create(request));
        FAIL() << "not refused";
    } catch (const Error& error) {
        EXPECT_EQ(error.kind(), ErrorKind::NotSupported);
        EXPECT_EQ(error.field(), "restartPolicy");
    }
    EXPECT_TRUE(engine->list().empty());
    EXPECT_EQ(world.contradictions(*engine), "");
    world.unattended = true;
    const std::string id = engine->create(request).vm.id;
    world.unattended = false;  // another version of it
    EXPECT_THROW(static_cast<void>(engine->start(id)), Error);
    EXPECT_EQ(world.contradictions(*engine), "");
}

}  // namespace
}  // namespace mergen::engine::test
