#include <algorithm>
#include <atomic>
#include <chrono>
#include <latch>
#include <mutex>
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
    ASSERT_EQ(causes(*engine).size(), 2U);
    EXPECT_NE(causes(*engine)[0].find("does not answer: no answer within 2000 ms"), std::string::npos);
    EXPECT_NE(causes(*engine)[1].find("answers again"), std::string::npos);
    EXPECT_EQ(world.contradictions(*engine), "");
}

TEST(Probe, WhoSeesTheWordComeOrGoFindsTheEvent) {
    ProbedWorld world;
    const auto engine = world.boot();
    static_cast<void>(world.runWeb(*engine));
    for (std::size_t i = 1; i <= 100; ++i) {
        world.frozen = i % 2 == 1;
        ASSERT_TRUE(eventually([&] { return engine->get("web").unresponsive.has_value() == (i % 2 == 1); }));
        ASSERT_EQ(causes(*engine).size(), i);
    }
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

/// Counts the lines of one event.
class CountingLog final : public Log {
public:
    explicit CountingLog(std::string event) : event_(std::move(event)) {}
    void write(LogLevel, std::string_view event, std::span<const LogField>) noexcept override {
        if (event == event_) ++lines;
    }
    std::atomic<unsigned> lines{0};

private:
    const std::string event_;
};

TEST(Probe, WhatTheServerItselfLacksIsSaidOnceForAllVms) {
    ProbedWorld world;
    CountingLog log("vm.probe.failed");
    world.log = &log;
    std::atomic<unsigned> asked{0};
    std::atomic<const char*> lack{"too many open files"};
    world.onQuery = [&](const Uuid&) {
        ++asked;
        if (const char* cause = lack) throw Error(ErrorKind::ResourceExhausted, cause);
    };
    const auto engine = world.boot();
    for (int i = 0; i < 5; ++i) {
        CreateRequest wanted = world.request();
        wanted.id = RecordId::parse("vm" + std::to_string(i));
        static_cast<void>(engine->create(wanted));
        static_cast<void>(engine->start(wanted.id->str()));
    }
    const auto awaitQuestions = [&] {
        const unsigned before = asked;
        return eventually([&] { return asked > before + 100; });
    };
    ASSERT_TRUE(awaitQuestions());
    EXPECT_EQ(log.lines, 1U);
    lack = "out of memory";
    ASSERT_TRUE(awaitQuestions());
    EXPECT_EQ(log.lines, 2U);
    lack = nullptr;
    ASSERT_TRUE(awaitQuestions());
    lack = "out of memory";
    EXPECT_TRUE(eventually([&] { return log.lines > 2; })) << "it is news again";
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

TEST(Probe, OneThatNeverAnswersIsGivenTwiceTheTimeAfterEachRestart) {
    ProbedWorld world;
    world.config.probeFailures = 3U;
    std::mutex mutex;
    unsigned failures = 0;                   // since the last kill; guarded by mutex
    std::vector<unsigned> failuresTillKill;  // guarded by mutex
    constexpr unsigned enough = 40;
    std::atomic<bool> reset{false};
    std::atomic<unsigned> answers{0};
    std::latch released(1);
    world.onQuery = [&](const Uuid&) {
        if (!world.frozen) {
            ++answers;
            return;
        }
        const bool wait = [&] {
            const std::lock_guard lock(mutex);
            return ++failures > enough && reset;
        }();
        if (wait) released.wait();  // no more failures than these are needed
        throw Error(ErrorKind::Timeout, "no answer");
    };
    world.onEffect = [&](const std::string& effect, const std::string& moment) {
        if (effect != "supervisor.signal" || moment != "before") return;
        const std::lock_guard lock(mutex);
        failuresTillKill.push_back(std::exchange(failures, 0));
    };
    const auto kills = [&] {
        const std::lock_guard lock(mutex);
        return failuresTillKill.size();
    };
    const auto engine = world.boot();
    static_cast<void>(world.runWebWith(*engine, OnUnresponsive::Restart));
    world.frozen = true;
    ASSERT_TRUE(eventually([&] { return kills() == 5; }));
    world.frozen = false;
    {
        const std::lock_guard lock(mutex);
        for (std::size_t i = 0; i < failuresTillKill.size(); ++i) EXPECT_GE(failuresTillKill[i], 3U << i) << i;
        failures = 0;
    }
    // It has answered for as long as it would have been given.
    const unsigned before = answers;
    ASSERT_TRUE(eventually([&] { return answers > before + (3U << 5U); }));
    reset = true;
    world.frozen = true;
    EXPECT_TRUE(eventually([&] { return kills() == 6; }));
    released.count_down();
    world.onEffect = {};
}

/// Ended by the kill of one that does not answer.
void endByProbe(World& world, const Uuid& vm) {
    world.end(vm, ExitStatus{true, SIGKILL, std::chrono::system_clock::now()}, SentSignal{SIGKILL, "probe"});
}

bool hasFailedToKill(const Engine& engine) {
    return std::ranges::any_of(engine.events("web"), [](const Event& event) {
        return event.operation == "probe" && event.step == "kill" && event.outcome == "failed";
    });
}

TEST(Probe, AKillThatSucceedsLateIsFollowedByWhatThePolicySays) {
    for (const OnUnresponsive policy : {OnUnresponsive::Restart, OnUnresponsive::Stop}) {
        ProbedWorld world;
        world.diesOnKill = false;
        const auto engine = world.boot();
        const Uuid uuid = Uuid::parse(world.runWebWith(*engine, policy, RestartPolicy::Always).uuid);
        world.frozen = true;
        ASSERT_TRUE(eventually([&] { return hasFailedToKill(*engine); }));
        EXPECT_NE(engine->get("web").state, VmState::Failed);
        world.frozen = false;
        endByProbe(world, uuid);
        const VmState final = policy == OnUnresponsive::Restart ? VmState::Running : VmState::Failed;
        EXPECT_TRUE(eventually([&] { return isSettled(*engine, final); }));
        EXPECT_EQ(engine->get("web").restarts, 0U) << "its parent had no permission to restart it";
        EXPECT_EQ(world.restartable.contains(uuid), policy == OnUnresponsive::Restart);
        EXPECT_EQ(world.contradictions(*engine), "");
    }
}

TEST(Probe, AKillThatSucceedsUnderTheNextServerIsFollowedByWhatThePolicySays) {
    for (const OnUnresponsive policy : {OnUnresponsive::Restart, OnUnresponsive::Stop}) {
        ProbedWorld world;
        world.diesOnKill = false;
        Uuid uuid;
        {
            const auto engine = world.boot();
            uuid = Uuid::parse(world.runWebWith(*engine, policy, RestartPolicy::Always).uuid);
            world.frozen = true;
            ASSERT_TRUE(eventually([&] { return hasFailedToKill(*engine); }));
        }
        world.config.probeInterval = milliseconds(0);  // it is not killed a second time
        const auto engine = world.boot();
        EXPECT_EQ(engine->get("web").state, VmState::Running);
        world.frozen = false;
        endByProbe(world, uuid);
        const VmState final = policy == OnUnresponsive::Restart ? VmState::Running : VmState::Failed;
        EXPECT_TRUE(eventually([&] { return isSettled(*engine, final); }));
        EXPECT_EQ(engine->get("web").restarts, 0U) << "its parent had no permission to restart it";
        EXPECT_EQ(world.contradictions(*engine), "");
    }
}

/// A host whose server died when it had withdrawn the restarts of "web" and not killed it yet.
struct WithdrawnWorld : ProbedWorld {
    WithdrawnWorld() {
        std::optional<StoredRecord> between;
        onEffect = [&](const std::string& effect, const std::string& moment) {
            if (effect != "supervisor.signal" || moment != "before" || between) return;
            between = records.at("web");
            frozen = false;
            throw Error(ErrorKind::Unavailable, "an I/O error");
        };
        {
            const auto engine = boot();
            uuid = Uuid::parse(runWebWith(*engine, OnUnresponsive::Stop, RestartPolicy::Always).uuid);
            frozen = true;
            EXPECT_TRUE(eventually([&] { return hasFailedToKill(*engine) && !engine->get("web").holder; }));
        }
        onEffect = {};
        records.at("web") = between.value();
        restartable.erase(uuid);
    }

    Uuid uuid;
};

TEST(Probe, AServerThatDiesBeforeItsKillLeavesTheRestartPolicyToTheNext) {
    WithdrawnWorld world;
    world.end(world.uuid, ExitStatus{false, 1, std::chrono::system_clock::now()});
    const auto engine = world.boot();
    EXPECT_TRUE(eventually([&] {
        const VmView vm = engine->get("web");
        return vm.state == VmState::Running && !vm.holder && vm.lastEnd;
    }));
    EXPECT_EQ(engine->get("web").lastEnd->by, EndedBy::Vmm);
    EXPECT_EQ(world.contradictions(*engine), "");
}

TEST(Probe, OneThatAnswersTheNextServerHasItsRestartPolicyAgain) {
    WithdrawnWorld world;
    {
        const auto engine = world.boot();
        EXPECT_TRUE(world.restartable.contains(world.uuid));
        EXPECT_EQ(world.contradictions(*engine), "");
    }
    world.frozen = true;
    world.config.probeInterval = milliseconds(0);
    const auto engine = world.boot();
    EXPECT_TRUE(world.restartable.contains(world.uuid)) << "the withdrawal is over, also in the record";
    EXPECT_EQ(world.contradictions(*engine), "");
}

TEST(Probe, OneThatCannotBeSignalledKeepsItsRestartPolicy) {
    ProbedWorld world;
    world.onEffect = [](const std::string& effect, const std::string& moment) {
        if (effect == "supervisor.signal" && moment == "before") throw Error(ErrorKind::Unavailable, "an I/O error");
    };
    const auto engine = world.boot();
    const Uuid uuid = Uuid::parse(world.runWebWith(*engine, OnUnresponsive::Stop, RestartPolicy::Always).uuid);
    world.frozen = true;
    ASSERT_TRUE(eventually([&] { return hasFailedToKill(*engine); }));
    world.frozen = false;
    ASSERT_TRUE(eventually([&] { return !engine->get("web").unresponsive && !engine->get("web").holder; }));
    EXPECT_EQ(engine->get("web").state, VmState::Running);
    EXPECT_TRUE(world.restartable.contains(uuid));
    EXPECT_EQ(world.contradictions(*engine), "");
    world.onEffect = {};
}

TEST(Probe, AGuestThatEndsJustBeforeTheKillIsNotStartedAgainstItsWill) {
    for (const RestartPolicy restartPolicy : {RestartPolicy::No, RestartPolicy::OnFailure, RestartPolicy::Always}) {
        ProbedWorld world;
        std::atomic<unsigned> launches{0};
        Uuid uuid;
        bool ended = false;
        world.onEffect = [&](const std::string& effect, const std::string& moment) {
            if (moment != "before") return;
            if (effect == "supervisor.launch") ++launches;
            if (effect != "supervisor.signal" || std::exchange(ended, true)) return;
            world.frozen = false;
            world.end(uuid, ExitStatus{false, 0, std::chrono::system_clock::now()});
        };
        const auto engine = world.boot();
        uuid = Uuid::parse(world.runWebWith(*engine, OnUnresponsive::Restart, restartPolicy).uuid);
        world.frozen = true;
        // What its own policy asks for is done by the server, as the kill had forbidden it to the VM's parent.
        const bool again = restartPolicy == RestartPolicy::Always;
        ASSERT_TRUE(eventually([&] {
            const VmView vm = engine->get("web");
            return vm.lastEnd && !vm.holder && vm.state == (again ? VmState::Running : VmState::Stopped);
        }));
        EXPECT_EQ(engine->get("web").lastEnd->by, EndedBy::Guest);
        EXPECT_EQ(launches, again ? 2U : 1U);
        EXPECT_EQ(world.contradictions(*engine), "");
        world.onEffect = {};
    }
}

TEST(Probe, AKillThatCouldNotBeNotedIsFollowedByWhatThePolicySays) {
    for (const OnUnresponsive policy : {OnUnresponsive::Restart, OnUnresponsive::Stop}) {
        for (const bool late : {false, true}) {
            ProbedWorld world;
            world.diesOnKill = !late;
            Uuid uuid;
            world.onEffect = [&](const std::string& effect, const std::string& moment) {
                if (effect != "supervisor.signal" || moment != "after") return;
                world.processes.at(uuid).sent.reset();  // for want of room
                world.frozen = false;
            };
            const auto engine = world.boot();
            const bool restart = policy == OnUnresponsive::Restart;
            uuid = Uuid::parse(
                world.runWebWith(*engine, policy, restart ? RestartPolicy::No : RestartPolicy::Always).uuid);
            world.frozen = true;
            if (late) {
                ASSERT_TRUE(eventually([&] { return hasFailedToKill(*engine); }));
                world.end(uuid, ExitStatus{true, SIGKILL, std::chrono::system_clock::now()});
            }
            EXPECT_TRUE(eventually([&] { return isSettled(*engine, restart ? VmState::Running : VmState::Failed); }));
            EXPECT_EQ(engine->get("web").lastEnd->by, EndedBy::Mergen);
            EXPECT_EQ(world.contradictions(*engine), "");
            world.onEffect = {};
        }
    }
}

TEST(Probe, AKillWhoseEndNobodySawIsFollowedByWhatThePolicySays) {
    for (const OnUnresponsive policy : {OnUnresponsive::Restart, OnUnresponsive::Stop}) {
        ProbedWorld world;
        Uuid uuid;
        world.onEffect = [&](const std::string& effect, const std::string& moment) {
            if (effect != "supervisor.signal" || moment != "after") return;
            ProcessStatus& process = world.processes.at(uuid);
            process.exit.reset();
            process.sent.reset();
            process.note = "its parent was killed";
            world.frozen = false;
        };
        const auto engine = world.boot();
        uuid = Uuid::parse(world.runWebWith(*engine, policy).uuid);
        world.frozen = true;
        const VmState final = policy == OnUnresponsive::Restart ? VmState::Running : VmState::Failed;
        EXPECT_TRUE(eventually([&] {
            const VmView vm = engine->get("web");
            return vm.state == final && !vm.holder && vm.lastEnd;
        }));
        EXPECT_EQ(world.contradictions(*engine), "");
        world.onEffect = {};
    }
}

TEST(Probe, AnEndThatTheNextRunHasIsNotThatOfTheKillBefore) {
    ProbedWorld world;
    world.onEffect = [&](const std::string& effect, const std::string& moment) {
        if (effect == "supervisor.signal" && moment == "after") world.frozen = false;
    };
    const auto engine = world.boot();
    const Uuid uuid = Uuid::parse(world.runWebWith(*engine, OnUnresponsive::Restart).uuid);
    world.frozen = true;
    ASSERT_TRUE(eventually([&] { return isSettled(*engine, VmState::Running); }));
    world.end(uuid, ExitStatus{true, SIGKILL, std::chrono::system_clock::now()});
    EXPECT_TRUE(eventually([&] { return engine->get("web").state == VmState::Failed && !engine->get("web").holder; }));
    EXPECT_EQ(engine->get("web").lastEnd->by, EndedBy::Other);
    EXPECT_EQ(world.contradictions(*engine), "");
    world.onEffect = {};
}

TEST(Probe, AServerThatDiesAfterItsKillLeavesTheRestartToTheNext) {
    World world;
    {
        const auto engine = world.boot();
        CreateRequest asked = world.request();
        asked.onUnresponsive = OnUnresponsive::Restart;
        endByProbe(world, Uuid::parse(world.runWeb(*engine, asked).uuid));
        engine->drain(std::chrono::seconds(10));
    }
    const auto engine = world.boot();
    EXPECT_TRUE(eventually([&] { return isSettled(*engine, VmState::Running); }));
    EXPECT_EQ(world.contradictions(*engine), "");
}

/// What the records say at the moment at which a killed VM has been settled and its start has not begun.
TEST(Probe, AServerThatDiesBeforeTheRestartLeavesItToTheNext) {
    for (const bool stopped : {false, true}) {
        ProbedWorld world;
        std::optional<StoredRecord> between;
        world.onEffect = [&](const std::string& effect, const std::string& moment) {
            if (effect != "supervisor.forget" || moment != "after" || between) return;
            if (world.restartable.empty() && world.frozen.exchange(false)) between = world.records.at("web");
        };
        {
            const auto engine = world.boot();
            static_cast<void>(world.runWebWith(*engine, OnUnresponsive::Restart));
            world.frozen = true;
            ASSERT_TRUE(eventually([&] { return isSettled(*engine, VmState::Running); }));
            static_cast<void>(engine->stop("web"));
        }
        world.onEffect = {};
        ASSERT_TRUE(between);
        if (!stopped) world.records.at("web") = *between;
        const auto engine = world.boot();
        EXPECT_TRUE(eventually([&] {
            return engine->get("web").state == (stopped ? VmState::Stopped : VmState::Running) &&
                   !engine->get("web").holder;
        }));
        EXPECT_EQ(world.contradictions(*engine), "");
    }
}

TEST(Probe, ARestartThatFailsIsTriedOnce) {
    for (const char* step : {"hostLacks", "boot"}) {
        ProbedWorld world;
        std::atomic<unsigned> prepared{0};
        world.onEffect = [&](const std::string& effect, const std::string& moment) {
            if (moment == "before" && effect == "vmm.prepare") ++prepared;
        };
        {
            const auto engine = world.boot();
            static_cast<void>(world.runWebWith(*engine, OnUnresponsive::Restart));
            (std::string_view(step) == "boot" ? world.bootError : world.hostLacks) = "no room";
            world.frozen = true;
            ASSERT_TRUE(eventually([&] {
                const VmView vm = engine->get("web");
                return vm.state == VmState::Failed && !vm.holder && vm.failure.find("no room") != std::string::npos;
            }));
            EXPECT_EQ(world.contradictions(*engine), "");
        }
        world.bootError.clear();
        world.hostLacks.clear();
        const auto engine = world.boot();
        EXPECT_EQ(engine->get("web").state, VmState::Failed);
        EXPECT_EQ(prepared, std::string_view(step) == "boot" ? 2U : 1U);
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

TEST(Probe, AReloadThatKeepsTheIntervalKeepsTheRound) {
    ProbedWorld world;
    world.config.probeInterval = milliseconds(500);
    std::mutex mutex;
    std::set<Uuid> asked;  // guarded by mutex
    world.onQuery = [&](const Uuid& vm) {
        const std::lock_guard lock(mutex);
        asked.insert(vm);
    };
    const auto engine = world.boot();
    constexpr std::size_t count = 40;  // more than threads ask: some are in the second half of a thread's round
    for (std::size_t i = 0; i < count; ++i) {
        CreateRequest wanted = world.request();
        wanted.id = RecordId::parse("vm" + std::to_string(i));
        static_cast<void>(engine->create(wanted));
        static_cast<void>(engine->start(wanted.id->str()));
    }
    EXPECT_TRUE(eventually([&] {
        engine->reconfigure(world.config);
        const std::lock_guard lock(mutex);
        return asked.size() == count;
    }));
}

}  // namespace
}  // namespace mergen::engine::test
