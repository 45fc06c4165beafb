#include "ending.hpp"

#include <filesystem>
#include <fstream>
#include <signal.h>
#include <string>

#include "world.hpp"

/// What ended a VM, told apart.
namespace mergen::engine::test {
namespace {

TEST(Ending, IsOfTheGuestTheVmmMergenOrSomebodyElse) {
    const auto by = [](bool signalled, int code, const std::optional<SentSignal>& sent = {}) {
        return endOf(ExitStatus{signalled, code, {}}, sent, "", nullptr).by;
    };
    EXPECT_EQ(by(false, 0), EndedBy::Guest);
    EXPECT_EQ(by(false, 1), EndedBy::Vmm);
    for (const int fault : {SIGSEGV, SIGABRT, SIGBUS, SIGILL, SIGSYS}) EXPECT_EQ(by(true, fault), EndedBy::Vmm);
    for (const int signal : {SIGKILL, SIGTERM, SIGINT}) EXPECT_EQ(by(true, signal), EndedBy::Other);
    EXPECT_EQ(by(true, SIGKILL, SentSignal{SIGKILL, "stop"}), EndedBy::Mergen);
    EXPECT_EQ(by(false, 0, SentSignal{SIGTERM, "stop"}), EndedBy::Mergen);
    // Whoever is ending already when SIGKILL comes ends as it was about to.
    EXPECT_EQ(by(false, 0, SentSignal{SIGKILL, "probe"}), EndedBy::Guest);
    EXPECT_EQ(by(false, 1, SentSignal{SIGKILL, "probe"}), EndedBy::Vmm);
}

TEST(Ending, OfSomebodyElsesSignalNamesTheOomKiller) {
    EXPECT_NE(endOf(ExitStatus{true, SIGKILL, {}}, {}, "", nullptr).detail.find("OOM killer"), std::string::npos);
}

TEST(Ending, OfAStopIsTheGuestsIfItObeyedAndMergensIfNot) {
    for (const bool obeys : {true, false}) {
        World world;
        world.guestObeys = obeys;
        const auto engine = world.boot();
        static_cast<void>(world.runWeb(*engine));
        const VmView vm = engine->stop("web").vm;
        ASSERT_TRUE(vm.lastEnd);
        EXPECT_EQ(vm.lastEnd->by, obeys ? EndedBy::Guest : EndedBy::Mergen);
        EXPECT_EQ(vm.lastEnd->operation, "stop");
        EXPECT_EQ(vm.lastEnd->exit, vm.lastExit);
        const auto later = world.boot();
        EXPECT_EQ(later->get("web").lastEnd->by, vm.lastEnd->by) << "it is in the record";
        EXPECT_EQ(later->get("web").lastEnd->detail, vm.lastEnd->detail);
    }
}

TEST(Ending, IsKnownAlsoWhenTheServerDiesBetweenItsSignalAndTheRecord) {
    for (const bool obeys : {true, false}) {
        int points = 0;
        for (bool over = false; !over;) {
            World world;
            world.guestObeys = obeys;
            {
                const auto engine = world.boot();
                static_cast<void>(world.runWeb(*engine));
                bool ended = false;
                int after = 0;
                world.onEffect = [&](const std::string& effect, const std::string& moment) {
                    const bool ends = effect == (obeys ? "vmm.requestStop" : "supervisor.signal");
                    ended = ended || (ends && moment == "after");
                    if (ended && after++ == points) throw Crash{};
                };
                over = true;
                try {
                    static_cast<void>(engine->stop("web"));
                } catch (const Crash&) {
                    over = false;
                }
                world.onEffect = {};
            }
            const auto engine = world.boot();
            EXPECT_EQ(engine->get("web").state, VmState::Stopped);
            ASSERT_TRUE(engine->get("web").lastEnd) << "crash " << points;
            EXPECT_EQ(engine->get("web").lastEnd->by, obeys ? EndedBy::Guest : EndedBy::Mergen) << "crash " << points;
            EXPECT_EQ(engine->get("web").lastEnd->operation, "stop") << "crash " << points;
            EXPECT_EQ(world.contradictions(*engine), "");
            ++points;
        }
        EXPECT_GT(points, 4);
    }
}

TEST(Ending, ThatNobodySawIsLost) {
    World world;
    {
        const auto engine = world.boot();
        static_cast<void>(world.runWeb(*engine));
    }
    world.processes.clear();
    const auto engine = world.boot();
    ASSERT_TRUE(engine->get("web").lastEnd);
    EXPECT_EQ(engine->get("web").lastEnd->by, EndedBy::Lost);
    EXPECT_EQ(engine->get("web").lastEnd->exit, std::nullopt);
}

TEST(Ending, BySomebodyElseMakesTheVmFailedAndSaysSo) {
    World world;
    const auto engine = world.boot();
    const Uuid uuid = Uuid::parse(world.runWeb(*engine).uuid);
    world.end(uuid, ExitStatus{true, SIGKILL, std::chrono::system_clock::now()});
    ASSERT_TRUE(eventually([&] { return engine->get("web").state == VmState::Failed; }));
    EXPECT_EQ(engine->get("web").lastEnd->by, EndedBy::Other);
    EXPECT_NE(engine->get("web").failure.find("OOM killer"), std::string::npos);
}

const std::string panic = "Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100";

TEST(Ending, WithExitZeroAfterAPanicMakesTheVmFailedAndSaysThePanic) {
    World world;
    const auto engine = world.boot();
    const Uuid uuid = Uuid::parse(world.runWeb(*engine).uuid);
    world.end(uuid, ExitStatus{false, 0, std::chrono::system_clock::now()}, {}, panic);
    ASSERT_TRUE(eventually([&] { return engine->get("web").state == VmState::Failed; }));
    EXPECT_EQ(engine->get("web").lastEnd->by, EndedBy::Panic);
    EXPECT_NE(engine->get("web").lastEnd->detail.find("Attempted to kill init!"), std::string::npos);
    EXPECT_EQ(engine->get("web").failure, engine->get("web").lastEnd->detail);
    EXPECT_EQ(world.boot()->get("web").lastEnd->by, EndedBy::Panic) << "it is in the record";
}

TEST(Ending, IsNoPanicIfAStopWasObeyedOrTheVmmFailed) {
    World world;
    world.guestObeys = false;
    const auto engine = world.boot();
    const Uuid uuid = Uuid::parse(world.runWeb(*engine).uuid);
    world.onBegin = [&](const std::string& effect) {
        if (effect == "vmm.requestStop") world.end(uuid, ExitStatus{false, 0, {}}, {}, panic);
    };
    const Stopped stopped = engine->stop("web");
    world.onBegin = {};
    EXPECT_EQ(stopped.by, StoppedBy::Guest);
    EXPECT_EQ(stopped.vm.lastEnd->by, EndedBy::Guest);
    EXPECT_EQ(stopped.vm.state, VmState::Stopped);
    static_cast<void>(engine->start("web"));
    world.end(uuid, ExitStatus{false, 1, std::chrono::system_clock::now()});
    ASSERT_TRUE(eventually([&] { return engine->get("web").state == VmState::Failed; }));
    EXPECT_EQ(engine->get("web").lastEnd->by, EndedBy::Vmm);
}

void print(const World& world, const Engine& engine, const std::string& text) {
    const auto console = engine.get("web").paths.console();
    std::filesystem::create_directories(console.parent_path());
    std::ofstream(console) << text;
    ASSERT_TRUE(std::filesystem::exists(console)) << world.root;
}

TEST(Ending, OfAVmmThatFailsHasItsLastWordsAlsoAfterAnAdoption) {
    for (const bool adopted : {false, true}) {
        World world;
        auto engine = world.boot();
        const Uuid uuid = Uuid::parse(world.runWeb(*engine).uuid);
        print(world, *engine, "thread 'main' panicked at \x1b[31mvmm.rs\n");
        if (adopted) engine.reset();
        world.end(uuid, ExitStatus{false, 1, std::chrono::system_clock::now()});
        if (adopted) engine = world.boot();
        ASSERT_TRUE(eventually([&] { return engine->get("web").state == VmState::Failed; }));
        const std::string failure = engine->get("web").failure;
        EXPECT_NE(failure.find("its last output: thread 'main' panicked at \\x1b"), std::string::npos) << failure;
    }
}

}  // namespace
}  // namespace mergen::engine::test
