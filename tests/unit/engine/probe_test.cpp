#include <algorithm>
#include <atomic>
#include <chrono>
#include <latch>
#include <signal.h>
#include <thread>

#include "world.hpp"

/// A VMM that lives and does not answer: noticed, said, and handled by the VM's policy.
namespace mergen::engine::test {
namespace {

using std::chrono::milliseconds;

/// A host whose VMMs are asked every millisecond, and hang while `frozen`.
struct ProbedWorld : World {
    ProbedWorld() {
        config.probeInterval = milliseconds(1);
        onQuery = [this](const Uuid&) {
            ++questions;
            if (frozen) throw Error(ErrorKind::Timeout, "no answer within 2000 ms");
        };
    }
    VmView runWebWith(Engine& engine, OnUnresponsive policy, RestartPolicy restartPolicy = RestartPolicy::No) const {
        CreateRequest asked = request();
        asked.onUnresponsive = policy;
        asked.restartPolicy = restartPolicy;
        return runWeb(engine, std::move(asked));
    }

    std::atomic<bool> frozen{false};
    std::atomic<unsigned> questions{0};
};

std::vector<std::string> causes(const Engine& engine) {
    std::vector<std::string> all;
    for (const Event& event : engine.events("web")) {
        if (event.operation == "probe" && event.outcome == "note") all.push_back(event.cause);
    }
    return all;
}

bool isSettled(const Engine& engine, VmState state) {
    const VmView vm = engine.get("web");
    return vm.state == state && !vm.holder && vm.lastEnd && vm.lastEnd->operation == "probe";
}

TEST(Probe, AVmmThatDoesNotAnswerIsSaidAndTakenBackWhenItDoes) {
    ProbedWorld world;
    const auto engine = world.boot();
    static_cast<void>(world.runWeb(*engine));
    ASSERT_TRUE(eventually([&] { return world.questions > 10; }));
    EXPECT_FALSE(engine->get("web").unresponsive);
    world.frozen = true;
    ASSERT_TRUE(eventually([&] { return engine->get("web").unresponsive.has_value(); }));
    const VmView vm = engine->get("web");
    EXPECT_EQ(vm.state, VmState::Running);
    EXPECT_EQ(vm.unresponsive->cause, "no answer within 2000 ms");
    world.frozen = false;
    ASSERT_TRUE(eventually([&] { return !engine->get("web").unresponsive; }));
    ASSERT_TRUE(eventually([&] { return causes(*engine).size() == 2; }));
    EXPECT_NE(causes(*engine)[0].find("does not answer: no answer within 2000 ms"), std::string::npos);
    EXPECT_NE(causes(*engine)[1].find("answers again"), std::string::npos);
    EXPECT_EQ(world.contradictions(*engine), "");
}

TEST(Probe, OnlyFailuresInARowCount) {
    ProbedWorld world;
    std::atomic<unsigned> asked{0};
    world.config.probeFailures = 3U;
    world.onQuery = [&](const Uuid&) {
        if (++asked % 3 != 0) throw Error(ErrorKind::Timeout, "no answer");
    };
    const auto engine = world.boot();
    static_cast<void>(world.runWeb(*engine));
    ASSERT_TRUE(eventually([&] { return asked > 30; }));
    EXPECT_TRUE(causes(*engine).empty());
}

TEST(Probe, WhatTheServerItselfLacksIsNoFailureOfTheVmm) {
    ProbedWorld world;
    std::atomic<unsigned> asked{0};
    world.onQuery = [&](const Uuid&) {
        ++asked;
        throw Error(ErrorKind::ResourceExhausted, "too many open files");
    };
    const auto engine = world.boot();
    static_cast<void>(world.runWebWith(*engine, OnUnresponsive::Stop));
    ASSERT_TRUE(eventually([&] { return asked > 30; }));
    EXPECT_TRUE(causes(*engine).empty());
    EXPECT_EQ(engine->get("web").state, VmState::Running);
}

TEST(Probe, LeavesAVmAloneThatAnOperationHolds) {
    ProbedWorld world;
    std::latch held(1), released(1);
    world.onBegin = [&](const std::string& effect) {
        if (effect != "vmm.pause") return;
        held.count_down();
        released.wait();
    };
    const auto engine = world.boot();
    static_cast<void>(world.runWebWith(*engine, OnUnresponsive::Stop));
    CreateRequest request = world.request();
    request.id = RecordId::parse("other");
    static_cast<void>(engine->create(request));
    static_cast<void>(engine->start("other"));
    std::jthread pausing([&] { static_cast<void>(engine->pause("web")); });
    held.wait();
    world.frozen = true;
    EXPECT_TRUE(eventually([&] { return engine->get("other").unresponsive.has_value(); }));
    EXPECT_EQ(engine->get("web").state, VmState::Running);
    world.frozen = false;
    released.count_down();
    pausing.join();
    EXPECT_EQ(engine->get("web").state, VmState::Paused);
    EXPECT_TRUE(causes(*engine).empty());
    EXPECT_EQ(world.contradictions(*engine), "");
}

TEST(Probe, APausedVmIsAskedToo) {
    ProbedWorld world;
    const auto engine = world.boot();
    static_cast<void>(world.runWeb(*engine));
    static_cast<void>(engine->pause("web"));
    world.frozen = true;
    ASSERT_TRUE(eventually([&] { return engine->get("web").unresponsive.has_value(); }));
    EXPECT_EQ(engine->get("web").state, VmState::Paused);
}

TEST(Probe, AStopForgetsIt) {
    ProbedWorld world;
    const auto engine = world.boot();
    static_cast<void>(world.runWeb(*engine));
    world.frozen = true;
    ASSERT_TRUE(eventually([&] { return engine->get("web").unresponsive.has_value(); }));
    EXPECT_EQ(engine->stop("web").by, StoppedBy::Sigterm);
    EXPECT_FALSE(engine->get("web").unresponsive);
    world.frozen = false;
    EXPECT_FALSE(engine->start("web").unresponsive);
    EXPECT_EQ(world.contradictions(*engine), "");
}

TEST(Probe, ThePolicyStopEndsTheVmmForGoodWhateverItsRestartPolicy) {
    ProbedWorld world;
    const auto engine = world.boot();
    const Uuid uuid = Uuid::parse(world.runWebWith(*engine, OnUnresponsive::Stop, RestartPolicy::Always).uuid);
    world.frozen = true;
    ASSERT_TRUE(eventually([&] { return isSettled(*engine, VmState::Failed); }));
    const VmView vm = engine->get("web");
    EXPECT_EQ(vm.lastEnd->by, EndedBy::Mergen);
    EXPECT_NE(vm.failure.find("had not answered"), std::string::npos) << vm.failure;
    EXPECT_FALSE(vm.unresponsive);
    EXPECT_FALSE(world.restartable.contains(uuid));
    EXPECT_EQ(world.contradictions(*engine), "");
}

TEST(Probe, ThePolicyRestartStartsTheVmAgain) {
    for (const RestartPolicy restartPolicy : {RestartPolicy::No, RestartPolicy::Always}) {
        ProbedWorld world;
        std::atomic<unsigned> launches{0};
        world.onEffect = [&](const std::string& effect, const std::string& moment) {
            if (moment != "after") return;
            if (effect == "supervisor.launch") ++launches;
            if (effect == "supervisor.signal") world.frozen = false;  // the next one is well
        };
        const auto engine = world.boot();
        static_cast<void>(world.runWebWith(*engine, OnUnresponsive::Restart, restartPolicy));
        world.frozen = true;
        ASSERT_TRUE(eventually([&] { return isSettled(*engine, VmState::Running); }));
        EXPECT_EQ(launches, 2U);
        EXPECT_EQ(engine->get("web").restarts, 0U) << "it is none of the restart policy's";
        EXPECT_FALSE(engine->get("web").unresponsive);
        EXPECT_EQ(world.contradictions(*engine), "");
        world.onEffect = {};
    }
}

TEST(Probe, AKillThatTakesLongKeepsNoOtherVmFromBeingAsked) {
    ProbedWorld world;
    std::latch released(1);
    world.onBegin = [&](const std::string& effect) {
        if (effect == "supervisor.signal") released.wait();
    };
    const auto engine = world.boot();
    constexpr int count = 40;  // more than there are threads of any kind
    for (int i = 0; i < count; ++i) {
        CreateRequest asked = world.request();
        asked.id = RecordId::parse("vm" + std::to_string(i));
        asked.onUnresponsive = OnUnresponsive::Stop;
        static_cast<void>(engine->create(asked));
        static_cast<void>(engine->start(asked.id->str()));
    }
    world.frozen = true;
    const auto all = [&](auto holds) { return eventually([&] { return std::ranges::all_of(engine->list(), holds); }); };
    EXPECT_TRUE(all([](const VmView& vm) { return vm.unresponsive.has_value(); }));
    released.count_down();
    EXPECT_TRUE(all([](const VmView& vm) { return vm.state == VmState::Failed && !vm.holder; }));
    EXPECT_EQ(world.contradictions(*engine), "");
}

TEST(Probe, AServerThatDiesAfterItsKillLeavesAVmThatSaysWhy) {
    World world;
    Uuid uuid;
    {
        const auto engine = world.boot();
        uuid = Uuid::parse(world.runWeb(*engine).uuid);
    }
    world.end(uuid, ExitStatus{true, SIGKILL, std::chrono::system_clock::now()}, SentSignal{SIGKILL, "probe"});
    const auto engine = world.boot();
    EXPECT_EQ(engine->get("web").state, VmState::Failed);
    EXPECT_NE(engine->get("web").failure.find("had not answered"), std::string::npos);
    EXPECT_EQ(world.contradictions(*engine), "");
}

TEST(Probe, ANewIntervalHoldsAtOnce) {
    ProbedWorld world;
    world.config.probeInterval = std::chrono::hours(1);
    const auto engine = world.boot();
    static_cast<void>(world.runWeb(*engine));
    world.frozen = true;
    for (const milliseconds interval : {milliseconds(0), milliseconds(1)}) {
        EngineConfig next = world.config;
        next.probeInterval = interval;
        engine->reconfigure(next);
    }
    EXPECT_TRUE(eventually([&] { return engine->get("web").unresponsive.has_value(); }));
}

}  // namespace
}  // namespace mergen::engine::test
