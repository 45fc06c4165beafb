#include <thread>

#include "world.hpp"

namespace mergen::engine::test {
namespace {

using namespace std::chrono_literals;

bool refusesMore(World& world, Engine& engine) {
    try {
        static_cast<void>(engine.create(world.request()));
    } catch (const Error& error) {
        EXPECT_EQ(error.kind(), ErrorKind::ResourceExhausted);
        return true;
    }
    return false;
}

TEST(Reconfigure, ALimitHoldsFromThenOn) {
    World world;
    world.config.maxVms = 1;
    const auto engine = world.boot();
    static_cast<void>(engine->create(world.request()));
    EXPECT_TRUE(refusesMore(world, *engine));
    EngineConfig next = world.config;
    next.maxVms = 2;
    engine->reconfigure(next);
    EXPECT_FALSE(refusesMore(world, *engine));
    EXPECT_TRUE(refusesMore(world, *engine));
    next.maxVms = 1;
    engine->reconfigure(next);
    EXPECT_EQ(engine->list().size(), 2U) << "what exists stays";
    EXPECT_EQ(world.contradictions(*engine), "");
}

TEST(Reconfigure, TakesOverWhatIsAdjustableAndNothingElse) {
    World world;
    const auto engine = world.boot();
    EngineConfig next = engine->config();
    next.maxVms = 7;
    next.startTimeout = 1s;
    next.stopGrace = 2s;
    next.killGrace = 3s;
    next.controlTimeout = 4s;
    next.probeInterval = 5h;
    next.probeTimeout = 6s;
    next.probeFailures = 8U;
    next.consoleLimit = Bytes{5000};
    next.portStart = 1;
    next.eventsPerVm = 16;
    next.unitPrefix = "other";
    next.dataRoot = "/nonexistent";
    engine->reconfigure(next);
    const EngineConfig& now = engine->config();
    EXPECT_EQ(std::size_t{now.maxVms}, 7U);
    EXPECT_EQ(std::chrono::milliseconds{now.startTimeout}, 1s);
    EXPECT_EQ(std::chrono::milliseconds{now.stopGrace}, 2s);
    EXPECT_EQ(std::chrono::milliseconds{now.killGrace}, 3s);
    EXPECT_EQ(std::chrono::milliseconds{now.controlTimeout}, 4s);
    EXPECT_EQ(std::chrono::milliseconds{now.probeInterval}, 5h);
    EXPECT_EQ(std::chrono::milliseconds{now.probeTimeout}, 6s);
    EXPECT_EQ(unsigned{now.probeFailures}, 8U);
    EXPECT_EQ(static_cast<Bytes>(now.consoleLimit), Bytes{5000});
    EXPECT_EQ(now.portStart, world.config.portStart);
    EXPECT_EQ(now.eventsPerVm, world.config.eventsPerVm);
    EXPECT_EQ(now.unitPrefix, world.config.unitPrefix);
    EXPECT_EQ(now.dataRoot, world.config.dataRoot);
}

// For ThreadSanitizer, above all.
TEST(Reconfigure, MayComeWhileOperationsRun) {
    World world;
    const auto engine = world.boot();
    const std::jthread reconfiguring([&](const std::stop_token& stop) {
        EngineConfig next = world.config;
        for (int i = 0; !stop.stop_requested(); ++i) {
            next.stopGrace = std::chrono::milliseconds(i % 1000);
            next.consoleLimit = Bytes{4096U + static_cast<std::uint64_t>(i)};
            engine->reconfigure(next);
        }
    });
    const VmView vm = engine->create(world.request()).vm;
    for (int i = 0; i < 10; ++i) {
        EXPECT_EQ(engine->start(vm.id).state, VmState::Running);
        EXPECT_EQ(engine->stop(vm.id).vm.state, VmState::Stopped);
    }
    EXPECT_EQ(world.contradictions(*engine), "");
}

}  // namespace
}  // namespace mergen::engine::test
