#include <thread>

#include <mergen/engine/asked_by.hpp>

#include "world.hpp"

namespace mergen::engine::test {
namespace {

std::set<std::string> askersOf(const Engine& engine, const std::string& id, const std::string& operation) {
    std::set<std::string> askers;
    for (const Event& event : engine.events(id)) {
        if (event.operation == operation) askers.insert(event.by);
    }
    return askers;
}

TEST(AskedBy, EveryEventOfAnOperationNamesWhoAskedForIt) {
    World world;
    const auto engine = world.boot();
    std::string id;
    {
        const AskedBy asker("token:ci");
        id = engine->create(world.request()).vm.id;
    }
    {
        const AskedBy asker("uid:1000");
        engine->start(id);
    }
    engine->stop(id);
    EXPECT_EQ(askersOf(*engine, id, "create"), std::set<std::string>{"token:ci"});
    EXPECT_EQ(askersOf(*engine, id, "start"), std::set<std::string>{"uid:1000"});
    EXPECT_EQ(askersOf(*engine, id, "stop"), std::set<std::string>{""});
}

TEST(AskedBy, AnOperationThatFailsNamesThemInItsUndosToo) {
    World world;
    const auto engine = world.boot();
    const std::string id = engine->create(world.request()).vm.id;
    world.bootError = "no";
    const AskedBy asker("token:ci");
    EXPECT_THROW(engine->start(id), Error);
    EXPECT_EQ(askersOf(*engine, id, "start"), std::set<std::string>{"token:ci"});
}

TEST(AskedBy, TheNewestOfAThreadCountsAndOtherThreadsHaveTheirOwn) {
    EXPECT_EQ(AskedBy::current(), "");
    const AskedBy outer("outer");
    {
        const AskedBy inner("inner");
        EXPECT_EQ(AskedBy::current(), "inner");
        std::jthread([] { EXPECT_EQ(AskedBy::current(), ""); }).join();
    }
    EXPECT_EQ(AskedBy::current(), "outer");
}

}  // namespace
}  // namespace mergen::engine::test
