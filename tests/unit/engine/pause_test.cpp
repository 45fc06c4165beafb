#include "world.hpp"

namespace mergen::engine::test {
namespace {

ErrorKind kindOf(const std::function<void()>& call) {
    try {
        call();
    } catch (const Error& error) {
        return error.kind();
    }
    ADD_FAILURE() << "nothing was thrown";
    return ErrorKind::Internal;
}

TEST(Pause, FreezesTheGuestAndResumeLetsItGoOn) {
    World world;
    const auto engine = world.boot();
    const Uuid uuid = Uuid::parse(world.runWeb(*engine).uuid);
    for (int i = 0; i < 2; ++i) {
        EXPECT_EQ(engine->pause("web").state, VmState::Paused);
        EXPECT_EQ(world.guests.at(uuid), GuestState::Paused);
    }
    EXPECT_EQ(world.contradictions(*engine), "");
    EXPECT_EQ(engine->start("web").state, VmState::Paused) << "it runs already, and stays as it is";
    for (int i = 0; i < 2; ++i) {
        EXPECT_EQ(engine->resume("web").state, VmState::Running);
        EXPECT_EQ(world.guests.at(uuid), GuestState::Running);
    }
    EXPECT_EQ(world.contradictions(*engine), "");
}

TEST(Pause, IsKeptOverARestartOfTheServer) {
    World world;
    {
        const auto engine = world.boot();
        static_cast<void>(world.runWeb(*engine));
        static_cast<void>(engine->pause("web"));
    }
    const auto engine = world.boot();
    EXPECT_EQ(engine->get("web").state, VmState::Paused);
    EXPECT_EQ(engine->resume("web").state, VmState::Running);
}

TEST(Pause, OfAVmThatDoesNotRunIsRefusedWithItsState) {
    World world;
    const auto engine = world.boot();
    static_cast<void>(world.runWeb(*engine));
    static_cast<void>(engine->stop("web"));
    EXPECT_EQ(kindOf([&] { static_cast<void>(engine->pause("web")); }), ErrorKind::FailedPrecondition);
    EXPECT_EQ(kindOf([&] { static_cast<void>(engine->resume("web")); }), ErrorKind::FailedPrecondition);
    EXPECT_EQ(kindOf([&] { static_cast<void>(engine->pause("nobody")); }), ErrorKind::NotFound);
}

TEST(Pause, IsNotSupportedWhereTheVmmCannot) {
    World world;
    world.pauses = false;
    const auto engine = world.boot();
    static_cast<void>(world.runWeb(*engine));
    EXPECT_EQ(kindOf([&] { static_cast<void>(engine->pause("web")); }), ErrorKind::NotSupported);
    EXPECT_EQ(engine->get("web").state, VmState::Running);
}

TEST(Pause, ThatCannotBeWrittenDownIsUndone) {
    World world;
    const auto engine = world.boot();
    const Uuid uuid = Uuid::parse(world.runWeb(*engine).uuid);
    int puts = 0;
    world.onEffect = [&](const std::string& effect, const std::string& moment) {
        if (effect == "storage.put" && moment == "before" && ++puts == 2) throw Error(ErrorKind::Unavailable, "no");
    };
    EXPECT_EQ(kindOf([&] { static_cast<void>(engine->pause("web")); }), ErrorKind::Unavailable);
    world.onEffect = {};
    EXPECT_EQ(engine->get("web").state, VmState::Running);
    EXPECT_EQ(world.guests.at(uuid), GuestState::Running);
}

TEST(Pause, OfAVmmThatDoesNotAnswerFailsAndChangesNothing) {
    World world;
    const auto engine = world.boot();
    static_cast<void>(world.runWeb(*engine));
    world.guests.clear();
    EXPECT_EQ(kindOf([&] { static_cast<void>(engine->pause("web")); }), ErrorKind::Unavailable);
    EXPECT_EQ(engine->get("web").state, VmState::Running);
}

TEST(Pause, IsNoHindranceToAStopOrADelete) {
    for (const bool obeys : {true, false}) {
        World world;
        world.guestObeys = obeys;
        const auto engine = world.boot();
        static_cast<void>(world.runWeb(*engine));
        static_cast<void>(engine->pause("web"));
        EXPECT_EQ(engine->stop("web").vm.state, VmState::Stopped);
        EXPECT_EQ(world.contradictions(*engine), "");
        static_cast<void>(engine->start("web"));
        static_cast<void>(engine->pause("web"));
        engine->remove("web", false);
        EXPECT_EQ(world.contradictions(*engine), "");
    }
}

}  // namespace
}  // namespace mergen::engine::test
