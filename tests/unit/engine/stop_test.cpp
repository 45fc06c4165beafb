#include <chrono>
#include <signal.h>

#include "ending.hpp"
#include "world.hpp"

/// The steps of a stop: each has its own deadline, and the reply says which of them ended the VM.
namespace mergen::engine::test {
namespace {

using std::chrono::milliseconds;
using Waits = std::vector<std::pair<std::string, milliseconds>>;

/// Settings of a different length each, so that none can stand for another.
void setDeadlines(World& world) {
    world.config.controlTimeout = milliseconds(11);
    world.config.stopGrace = milliseconds(22);
    world.config.killGrace = milliseconds(33);
}

TEST(Stop, SaysWhichStepEndedTheVm) {
    struct Case {
        bool obeys, diesOnTerm;
        StoppedBy by;
    };
    for (const Case& each :
         {Case{true, true, StoppedBy::Guest}, {false, true, StoppedBy::Sigterm}, {false, false, StoppedBy::Sigkill}}) {
        World world;
        world.guestObeys = each.obeys;
        world.diesOnTerm = each.diesOnTerm;
        const auto engine = world.boot();
        static_cast<void>(world.runWeb(*engine));
        const Stopped stopped = engine->stop("web");
        EXPECT_EQ(stopped.by, each.by);
        EXPECT_EQ(stopped.vm.state, VmState::Stopped);
        EXPECT_EQ(stopped.vm.lastEnd->by, each.by == StoppedBy::Guest ? EndedBy::Guest : EndedBy::Mergen);
        EXPECT_EQ(engine->stop("web").by, StoppedBy::Nothing);
        static_cast<void>(engine->start("web"));
        EXPECT_EQ(engine->remove("web", false), each.by);
    }
}

TEST(Stop, OfAVmThatNeverRanWasEndedByNothing) {
    World world;
    const auto engine = world.boot();
    const std::string id = engine->create(world.request()).vm.id;
    EXPECT_EQ(engine->stop(id).by, StoppedBy::Nothing);
    EXPECT_EQ(engine->remove(id, false), StoppedBy::Nothing);
}

TEST(Stop, OfAVmmThatFailsInThatMomentClaimsNoStep) {
    const auto by = [](const std::optional<ExitStatus>& exit, const std::optional<SentSignal>& sent = {}) {
        ProcessStatus process;
        process.state = ProcessState::Exited;
        process.exit = exit;
        process.sent = sent;
        return stoppedBy(process);
    };
    EXPECT_EQ(by(ExitStatus{true, SIGSEGV, {}}), StoppedBy::Other);
    EXPECT_EQ(by(ExitStatus{false, 1, {}}), StoppedBy::Other);
    EXPECT_EQ(by({}), StoppedBy::Other) << "its parent was killed with it";
    EXPECT_EQ(by(ExitStatus{false, 0, {}}), StoppedBy::Guest);
    EXPECT_EQ(by(ExitStatus{false, 0, {}}, SentSignal{SIGTERM, "stop"}), StoppedBy::Sigterm);
    EXPECT_EQ(by(ExitStatus{true, SIGKILL, {}}, SentSignal{SIGKILL, "stop"}), StoppedBy::Sigkill);
    // As endOf() has it: SIGKILL found it ending.
    EXPECT_EQ(by(ExitStatus{false, 0, {}}, SentSignal{SIGKILL, "stop"}), StoppedBy::Guest);
    EXPECT_EQ(by(ExitStatus{false, 1, {}}, SentSignal{SIGKILL, "stop"}), StoppedBy::Other);
}

TEST(Stop, GivesEachStepADeadlineOfItsOwn) {
    World world;
    setDeadlines(world);
    world.guestObeys = false;
    world.diesOnTerm = false;
    const auto engine = world.boot();
    static_cast<void>(world.runWeb(*engine));
    world.clearWaits();
    EXPECT_EQ(engine->stop("web").by, StoppedBy::Sigkill);
    EXPECT_EQ(world.waits(), (Waits{{"query", milliseconds(11)},
                                    {"requestStop", milliseconds(11)},
                                    {"exit", milliseconds(22)},
                                    {"exit", milliseconds(33)},
                                    {"exit", milliseconds(33)}}));
}

TEST(Stop, WaitsForAnAnswerOfTheVmmNoLongerThanForTheGuest) {
    for (const auto& [grace, wait] :
         {std::pair(milliseconds(2000), milliseconds(2000)), std::pair(milliseconds(0), milliseconds(1000)),
          std::pair(milliseconds(9000), milliseconds(5000))}) {
        World world;
        world.config.controlTimeout = milliseconds(5000);
        world.config.stopGrace = grace;
        const auto engine = world.boot();
        static_cast<void>(world.runWeb(*engine));
        world.clearWaits();
        EXPECT_EQ(engine->stop("web").by, StoppedBy::Guest);
        EXPECT_EQ(world.waits(), (Waits{{"query", wait}, {"requestStop", wait}, {"exit", grace}}));
    }
}

TEST(Stop, OfAPausedVmResumesItAndKillsItIfThatFails) {
    for (const bool resumes : {true, false}) {
        World world;
        setDeadlines(world);
        const auto engine = world.boot();
        static_cast<void>(world.runWeb(*engine));
        static_cast<void>(engine->pause("web"));
        world.onEffect = [&](const std::string& effect, const std::string& moment) {
            if (!resumes && effect == "vmm.resume" && moment == "before")
                throw Error(ErrorKind::Timeout, "no answer within 11 ms");
        };
        world.clearWaits();
        const Stopped stopped = engine->stop("web");
        world.onEffect = {};
        EXPECT_EQ(stopped.by, resumes ? StoppedBy::Guest : StoppedBy::Sigterm);
        EXPECT_EQ(world.waits(),
                  resumes
                      ? (Waits{{"query", milliseconds(11)},
                               {"resume", milliseconds(11)},
                               {"requestStop", milliseconds(11)},
                               {"exit", milliseconds(22)}})
                      : (Waits{{"query", milliseconds(11)}, {"resume", milliseconds(11)}, {"exit", milliseconds(33)}}));
        EXPECT_EQ(world.contradictions(*engine), "");
    }
}

TEST(Stop, OfAVmmThatAnswersNothingGoesStraightToTheSignals) {
    World world;
    setDeadlines(world);
    const auto engine = world.boot();
    static_cast<void>(world.runWeb(*engine));
    world.onQuery = [](const Uuid&) { throw Error(ErrorKind::Timeout, "no answer within 11 ms"); };
    world.clearWaits();
    EXPECT_EQ(engine->stop("web").by, StoppedBy::Sigterm);
    EXPECT_EQ(world.waits(), (Waits{{"query", milliseconds(11)}, {"exit", milliseconds(33)}}));
    EXPECT_EQ(world.contradictions(*engine), "");
}

}  // namespace
}  // namespace mergen::engine::test
