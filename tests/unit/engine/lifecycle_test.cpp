#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <fstream>
#include <sys/stat.h>
#include <thread>

#include <gmock/gmock.h>

#include "world.hpp"

namespace mergen::engine::test {
namespace {

std::string stepsOf(const Engine& engine, const std::string& id, const std::string& operation) {
    std::string steps;
    for (const Event& event : engine.events(id)) {
        if (event.operation == operation && !event.step.empty()) steps += event.step + ":" + event.outcome + " ";
    }
    return steps;
}

TEST(Lifecycle, StartStopStartDeleteLeavesTheHostAsItWas) {
    World world;
    const auto engine = world.boot();
    const VmView vm = engine->create(world.request()).vm;
    EXPECT_EQ(engine->start(vm.id).state, VmState::Running);
    EXPECT_EQ(engine->get(vm.id).pid, 4242);
    EXPECT_EQ(world.contradictions(*engine), "");
    const std::string before =
        "host:ok ports:ok intent:ok lend-disks:ok run-directory:ok reserve:ok prepare:ok plan:ok ";
    const std::string after = "boot:ok publish:ok commit:ok ";
    EXPECT_THAT(stepsOf(*engine, vm.id, "start"),
                ::testing::AnyOf(before + "network:ok launch:ok " + after, before + "launch:ok network:ok " + after));
    EXPECT_EQ(engine->stop(vm.id).vm.state, VmState::Stopped);
    EXPECT_EQ(engine->get(vm.id).pid, 0);
    EXPECT_EQ(world.contradictions(*engine), "");
    const VmView again = engine->start(vm.id);
    EXPECT_EQ(again.guestAddress, vm.guestAddress);
    EXPECT_EQ(again.ports, vm.ports);
    engine->remove(vm.id, false);
    EXPECT_TRUE(engine->list().empty());
    EXPECT_TRUE(world.processes.empty());
    EXPECT_TRUE(world.wires.empty());
    EXPECT_TRUE(world.jails.empty());
    EXPECT_EQ(world.contradictions(*engine), "");
}

TEST(Lifecycle, StartAndStopAreIdempotent) {
    World world;
    const auto engine = world.boot();
    const VmView vm = engine->create(world.request()).vm;
    EXPECT_EQ(engine->stop(vm.id).vm.state, VmState::Created);
    static_cast<void>(engine->start(vm.id));
    int effects = 0;
    world.onEffect = [&](const std::string&, const std::string&) { ++effects; };
    EXPECT_EQ(engine->start(vm.id).state, VmState::Running);
    EXPECT_EQ(effects, 0);
    world.onEffect = {};
    static_cast<void>(engine->stop(vm.id));
    EXPECT_EQ(engine->stop(vm.id).vm.state, VmState::Stopped);
}

TEST(Lifecycle, UnknownVmIsNotFoundForEveryOperation) {
    World world;
    const auto engine = world.boot();
    const std::vector<std::function<void()>> calls{
        [&] { static_cast<void>(engine->get("nobody")); },
        [&] { static_cast<void>(engine->start("nobody")); },
        [&] { static_cast<void>(engine->stop("nobody")); },
        [&] { engine->remove("nobody", false); },
        [&] { static_cast<void>(engine->events("nobody")); },
        [&] { static_cast<void>(engine->console("nobody", {.bytes = 10})); }};
    for (const auto& call : calls) {
        try {
            call();
            ADD_FAILURE() << "accepted";
        } catch (const Error& error) {
            EXPECT_EQ(error.kind(), ErrorKind::NotFound);
        }
    }
}

TEST(Lifecycle, SecondOperationIsRefusedAndToldWhoHoldsTheVm) {
    World world;
    const auto engine = world.boot();
    const VmView vm = engine->create(world.request()).vm;
    const VmView other = engine->create(world.request()).vm;

    std::mutex mutex;
    std::condition_variable changed;
    bool inside = false, goOn = false;
    // Before the call takes the world's own lock: in the first step of the start, on its thread.
    const auto startThread = std::jthread([&] {
        bool first = true;
        world.onEffect = [&, first](const std::string& effect, const std::string& moment) mutable {
            if (!first || effect != "network.attach" || moment != "before") return;
            first = false;
            std::unique_lock lock(mutex);
            inside = true;
            changed.notify_all();
            changed.wait(lock, [&] { return goOn; });
        };
        static_cast<void>(engine->start(vm.id));
    });
    {
        std::unique_lock lock(mutex);
        changed.wait(lock, [&] { return inside; });
    }
    for (const auto& call : std::vector<std::function<void()>>{[&] { static_cast<void>(engine->stop(vm.id)); },
                                                               [&] { static_cast<void>(engine->start(vm.id)); },
                                                               [&] { engine->remove(vm.id, false); }}) {
        try {
            call();
            ADD_FAILURE() << "a second operation was let in";
        } catch (const Error& error) {
            EXPECT_EQ(error.kind(), ErrorKind::Conflict);
            EXPECT_NE(std::string(error.what()).find("'start'"), std::string::npos) << error.what();
        }
    }
    EXPECT_EQ(engine->get(vm.id).state, VmState::Starting);
    ASSERT_TRUE(engine->get(vm.id).holder.has_value());
    EXPECT_EQ(engine->get(vm.id).holder->operation, "start");
    EXPECT_EQ(engine->get(other.id).state, VmState::Created) << "other VMs do not wait";
    {
        const std::lock_guard lock(mutex);
        goOn = true;
        changed.notify_all();
    }
    EXPECT_TRUE(eventually([&] { return engine->get(vm.id).state == VmState::Running && !engine->get(vm.id).holder; }));
}

TEST(Lifecycle, FailureOfAnyStartStepUndoesAllAndTheNextStartWorks) {
    for (const std::string effect :
         {"storage.put", "network.reserve", "network.attach", "supervisor.launch", "vmm.boot", "network.publish"}) {
        for (const std::string moment : {"before", "after"}) {
            World world;
            const auto engine = world.boot();
            const VmView vm = engine->create(world.request()).vm;
            bool armed = true;
            world.onEffect = [&](const std::string& name, const std::string& when) {
                if (armed && name == effect && when == moment) {
                    armed = false;
                    throw Error(ErrorKind::Unavailable, "injected into " + effect);
                }
            };
            EXPECT_THROW(static_cast<void>(engine->start(vm.id)), Error) << effect << " " << moment;
            if (effect == "storage.put") {
                // Either not even the intent was written, and the VM is what it was; or it was, and nothing told us.
                EXPECT_EQ(engine->get(vm.id).state, VmState::Created);
                continue;
            }
            EXPECT_EQ(engine->get(vm.id).state, VmState::Failed);
            EXPECT_NE(engine->get(vm.id).failure.find("injected into " + effect), std::string::npos);
            EXPECT_EQ(world.contradictions(*engine), "") << effect << " " << moment;
            EXPECT_EQ(engine->start(vm.id).state, VmState::Running) << effect << " " << moment;
            EXPECT_EQ(engine->get(vm.id).failure, "");
        }
    }
}

TEST(Lifecycle, WireAndVmmAreMadeAtOnceUnlessTheVmmInheritsItsTap) {
    for (const bool inherits : {false, true}) {
        World world;
        world.inheritsTap = inherits;
        const auto engine = world.boot();
        const VmView vm = engine->create(world.request()).vm;
        std::atomic<int> begun{0}, together{0};
        world.onBegin = [&](const std::string& effect) {
            if (effect != "network.attach" && effect != "supervisor.launch") return;
            ++begun;
            if (inherits) {
                EXPECT_EQ(begun, effect == "network.attach" ? 1 : 2) << effect;
            } else if (eventually([&] { return begun == 2; })) {  // each awaits the other
                ++together;
            }
        };
        EXPECT_EQ(engine->start(vm.id).state, VmState::Running);
        EXPECT_EQ(together, inherits ? 0 : 2);
        EXPECT_EQ(world.contradictions(*engine), "");
    }
}

TEST(Lifecycle, WhereWireAndVmmBothFailBothAreUndoneAndTheFirstErrorIsTold) {
    for (const std::string sooner : {"network.attach", "supervisor.launch"}) {
        World world;
        const auto engine = world.boot();
        const VmView vm = engine->create(world.request()).vm;
        std::atomic<bool> armed{true}, failed{false};
        world.onBegin = [&](const std::string& effect) {
            const bool first = effect == sooner;
            if (!armed || (!first && effect != "network.attach" && effect != "supervisor.launch")) return;
            if (!first) {
                // Its event is there: the error is the first one by then.
                EXPECT_TRUE(eventually([&] {
                    return std::ranges::any_of(engine->events(vm.id), [&](const Event& event) {
                        return event.outcome == "failed" && event.cause == "injected into " + sooner;
                    });
                }));
            }
            throw Error(ErrorKind::Unavailable, "injected into " + effect);
        };
        try {
            static_cast<void>(engine->start(vm.id));
            ADD_FAILURE() << "started";
        } catch (const Error& error) {
            EXPECT_EQ(error.what(), "injected into " + sooner);
        }
        EXPECT_EQ(engine->get(vm.id).state, VmState::Failed);
        EXPECT_EQ(world.contradictions(*engine), "");
        EXPECT_THAT(stepsOf(*engine, vm.id, "start"),
                    ::testing::EndsWith("launch:undone network:undone prepare:undone reserve:undone "
                                        "run-directory:undone lend-disks:undone "));
        armed = false;
        EXPECT_EQ(engine->start(vm.id).state, VmState::Running);
    }
}

TEST(Lifecycle, GuestThatIgnoresTheRequestIsKilled) {
    World world;
    world.guestObeys = false;
    for (const bool diesOnTerm : {true, false}) {
        world.diesOnTerm = diesOnTerm;
        const auto engine = world.boot();
        const VmView vm = engine->create(world.request()).vm;
        static_cast<void>(engine->start(vm.id));
        const VmView stopped = engine->stop(vm.id).vm;
        EXPECT_EQ(stopped.state, VmState::Stopped);
        ASSERT_TRUE(stopped.lastExit.has_value());
        EXPECT_EQ(stopped.lastExit->code, diesOnTerm ? 15 : 9);
        bool told = false;
        for (const Event& event : engine->events(vm.id)) {
            told = told || event.cause == (diesOnTerm ? "ended by SIGTERM" : "ended by SIGKILL");
        }
        EXPECT_TRUE(told);
        EXPECT_EQ(world.contradictions(*engine), "");
    }
}

TEST(Lifecycle, TeardownGoesOnAfterAStepThatFailsAndStopCanBeAskedAgain) {
    World world;
    const auto engine = world.boot();
    const VmView vm = engine->create(world.request()).vm;
    static_cast<void>(engine->start(vm.id));
    std::atomic<bool> armed{true};
    world.onEffect = [&](const std::string& effect, const std::string& moment) {
        if (armed && effect == "network.detach" && moment == "before")
            throw Error(ErrorKind::Unavailable, "netlink is busy");
    };
    EXPECT_THROW(static_cast<void>(engine->stop(vm.id)), Error);
    EXPECT_FALSE(std::filesystem::exists(vm.paths.runDir)) << "the steps after the failed one did not run";
    EXPECT_NE(engine->get(vm.id).failure.find("netlink is busy"), std::string::npos);
    armed = false;
    whenFree([&] { EXPECT_EQ(engine->stop(vm.id).vm.state, VmState::Stopped); });
    EXPECT_EQ(world.contradictions(*engine), "");
}

TEST(Lifecycle, DeleteCanBeAskedAgainAfterItFailed) {
    World world;
    const auto engine = world.boot();
    const VmView vm = engine->create(world.request()).vm;
    static_cast<void>(engine->start(vm.id));
    std::atomic<bool> armed{true};
    world.onEffect = [&](const std::string& effect, const std::string&) {
        if (armed && effect == "storage.erase") throw Error(ErrorKind::ResourceExhausted, "disk full");
    };
    EXPECT_THROW(engine->remove(vm.id, false), Error);
    EXPECT_EQ(engine->get(vm.id).state, VmState::Deleting);
    EXPECT_THROW(static_cast<void>(engine->start(vm.id)), Error);
    armed = false;
    whenFree([&] {
        try {
            engine->remove(vm.id, false);
        } catch (const Error& error) {
            // The end of the VMM, settled on the engine's own thread, may have completed the delete first.
            if (error.kind() != ErrorKind::NotFound) throw;
        }
    });
    EXPECT_TRUE(engine->list().empty());
    EXPECT_EQ(world.contradictions(*engine), "");
}

TEST(Lifecycle, GuestThatEndsByItselfIsStoppedAndItsWireTaken) {
    World world;
    const auto engine = world.boot();
    const VmView vm = engine->create(world.request()).vm;
    static_cast<void>(engine->start(vm.id));
    world.end(Uuid::parse(vm.uuid), ExitStatus{false, 0, {}});
    EXPECT_TRUE(eventually([&] { return engine->get(vm.id).state == VmState::Stopped && !engine->get(vm.id).holder; }));
    EXPECT_EQ(engine->get(vm.id).lastExit->code, 0);
    EXPECT_EQ(world.contradictions(*engine), "");
    EXPECT_EQ(engine->start(vm.id).state, VmState::Running);
}

TEST(Lifecycle, VmmThatIsKilledMakesTheVmFailedWithTheCause) {
    World world;
    const auto engine = world.boot();
    const VmView vm = engine->create(world.request()).vm;
    static_cast<void>(engine->start(vm.id));
    world.end(Uuid::parse(vm.uuid), ExitStatus{true, 9, {}});
    EXPECT_TRUE(eventually([&] { return engine->get(vm.id).state == VmState::Failed && !engine->get(vm.id).holder; }));
    EXPECT_NE(engine->get(vm.id).failure.find("signal 9"), std::string::npos);
    EXPECT_EQ(world.contradictions(*engine), "");
    EXPECT_EQ(engine->start(vm.id).state, VmState::Running);
}

TEST(Lifecycle, VmmThatDiesDuringItsStartIsNoticedEvenIfTheStartSucceeds) {
    World world;
    const auto engine = world.boot();
    const VmView vm = engine->create(world.request()).vm;
    world.onEffect = [&](const std::string& effect, const std::string& moment) {
        if (effect == "network.publish" && moment == "after") world.end(Uuid::parse(vm.uuid), ExitStatus{true, 11, {}});
    };
    static_cast<void>(engine->start(vm.id));
    EXPECT_TRUE(eventually([&] { return engine->get(vm.id).state == VmState::Failed && !engine->get(vm.id).holder; }));
    EXPECT_EQ(world.contradictions(*engine), "");
}

TEST(Lifecycle, ConsoleGivesTheLastBytesOfBothHalves) {
    World world;
    const auto engine = world.boot();
    const VmView vm = engine->create(world.request()).vm;
    EXPECT_EQ(engine->console(vm.id, {.bytes = 100}), "");
    std::ofstream(vm.paths.logsDir / "console.log.1") << "older ";
    std::ofstream(vm.paths.logsDir / "console.log") << "newer";
    EXPECT_EQ(engine->console(vm.id, {.bytes = 100}), "older newer");
    EXPECT_EQ(engine->console(vm.id, {.bytes = 7}), "r newer");
    EXPECT_EQ(engine->console(vm.id, {.bytes = 2}), "er");
}

TEST(Lifecycle, PortThatAnotherProgramTookSinceIsNotTakenFromIt) {
    World world;
    std::string id;
    {
        const auto engine = world.boot();
        id = engine->create(world.request()).vm.id;
    }
    world.busyPorts = {20000};
    const auto engine = world.boot();
    const auto events = engine->events(id);
    EXPECT_TRUE(std::ranges::any_of(events, [](const Event& event) {
        return event.operation == "recover" && event.cause.find("20000/tcp") != std::string::npos;
    }));
    try {
        static_cast<void>(engine->start(id));
        FAIL() << "started";
    } catch (const Error& error) {
        EXPECT_EQ(error.kind(), ErrorKind::AlreadyExists);
    }
    EXPECT_EQ(engine->get(id).state, VmState::Created) << "nothing has happened to it";
    EXPECT_EQ(engine->get(id).ports.front().host, 20000) << "the port is still the VM's";
    EXPECT_EQ(world.contradictions(*engine), "");
    world.busyPorts.clear();
    EXPECT_EQ(engine->start(id).state, VmState::Running);
    EXPECT_EQ(world.contradictions(*engine), "");
}

TEST(Lifecycle, FullDiskKeepsNobodyFromStoppingAndDeleting) {
    World world;
    const auto engine = world.boot();
    const VmView vm = engine->create(world.request()).vm;
    const VmView idle = engine->create(world.request()).vm;
    static_cast<void>(engine->start(vm.id));
    world.onEffect = [](const std::string& effect, const std::string& moment) {
        if (effect == "storage.put" && moment == "before") throw Error(ErrorKind::ResourceExhausted, "disk full");
    };
    EXPECT_THROW(static_cast<void>(engine->start(idle.id)), Error);
    EXPECT_EQ(engine->get(idle.id).state, VmState::Created);
    EXPECT_EQ(engine->stop(vm.id).vm.state, VmState::Stopped);
    EXPECT_EQ(world.contradictions(*engine), "the process of " + vm.id + " is not forgotten\n")
        << "how it ended is written nowhere else";
    whenFree([&] { engine->remove(vm.id, false); });
    engine->remove(idle.id, false);
    EXPECT_TRUE(world.records.empty());
    EXPECT_EQ(world.contradictions(*engine), "");
}

TEST(Lifecycle, RecordThatSomebodyEditedCanStillBeChanged) {
    World world;
    const auto engine = world.boot();
    const VmView vm = engine->create(world.request()).vm;
    world.records.at(vm.id).record.documents["env"] += "# edited\n";
    world.records.at(vm.id).revision = Revision{12345};
    EXPECT_EQ(engine->start(vm.id).state, VmState::Running);
    engine->remove(vm.id, false);
    EXPECT_TRUE(world.records.empty());
}

TEST(Lifecycle, DrainWaitsForWhatIsInProgressAndRefusesTheRest) {
    World world;
    const auto engine = world.boot();
    const VmView vm = engine->create(world.request()).vm;
    static_cast<void>(engine->start(vm.id));
    EXPECT_TRUE(engine->drain(std::chrono::seconds(5)));
    try {
        static_cast<void>(engine->stop(vm.id));
        FAIL() << "accepted while draining";
    } catch (const Error& error) {
        EXPECT_EQ(error.kind(), ErrorKind::Unavailable);
    }
    EXPECT_EQ(engine->get(vm.id).state, VmState::Running) << "the VM is left alone";
}

TEST(Lifecycle, EventsAreBounded) {
    World world;
    world.config.eventsPerVm = 20;
    const auto engine = world.boot();
    const VmView vm = engine->create(world.request()).vm;
    for (int i = 0; i < 10; ++i) {
        static_cast<void>(engine->start(vm.id));
        static_cast<void>(engine->stop(vm.id));
    }
    const auto events = engine->events(vm.id);
    EXPECT_EQ(events.size(), 20U);
    for (std::size_t i = 1; i < events.size(); ++i) EXPECT_LT(events[i - 1].sequence, events[i].sequence);
}

}  // namespace
}  // namespace mergen::engine::test
