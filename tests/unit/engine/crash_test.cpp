#include "world.hpp"

/// `kill -9` of the server right before and right after every effect that an operation has on the host or on storage,
/// then a new server: whatever the moment, the host and the records must agree again, and the VM must work.
namespace mergen::engine::test {
namespace {

struct Scenario {
    const char* name;
    std::function<void(World&, Engine&)> prepare;
    std::function<void(World&, Engine&)> operation;
};

CreateRequest named(const World& world) {
    CreateRequest request = world.request();
    request.id = RecordId::parse("web");
    return request;
}

CreateRequest restarting(const World& world) {
    CreateRequest request = named(world);
    request.restartPolicy = RestartPolicy::Always;
    return request;
}

const std::vector<Scenario>& scenarios() {
    static const std::vector<Scenario> all{
        {"create", [](World&, Engine&) {}, [](World& w, Engine& e) { static_cast<void>(e.create(named(w))); }},
        {"create with autoStart", [](World&, Engine&) {},
         [](World& w, Engine& e) {
             CreateRequest request = named(w);
             request.autoStart = true;
             static_cast<void>(e.create(request));
         }},
        {"start", [](World& w, Engine& e) { static_cast<void>(e.create(named(w))); },
         [](World&, Engine& e) { static_cast<void>(e.start("web")); }},
        {"stop",
         [](World& w, Engine& e) {
             static_cast<void>(e.create(named(w)));
             static_cast<void>(e.start("web"));
         },
         [](World&, Engine& e) { static_cast<void>(e.stop("web")); }},
        {"stop of a guest that does not obey",
         [](World& w, Engine& e) {
             w.guestObeys = false;
             w.diesOnTerm = false;
             static_cast<void>(e.create(named(w)));
             static_cast<void>(e.start("web"));
         },
         [](World&, Engine& e) { static_cast<void>(e.stop("web")); }},
        {"delete of a running VM",
         [](World& w, Engine& e) {
             static_cast<void>(e.create(named(w)));
             static_cast<void>(e.start("web"));
         },
         [](World&, Engine& e) { e.remove("web", false); }},
        {"pause",
         [](World& w, Engine& e) {
             static_cast<void>(e.create(named(w)));
             static_cast<void>(e.start("web"));
         },
         [](World&, Engine& e) { static_cast<void>(e.pause("web")); }},
        {"resume",
         [](World& w, Engine& e) {
             static_cast<void>(e.create(named(w)));
             static_cast<void>(e.start("web"));
             static_cast<void>(e.pause("web"));
         },
         [](World&, Engine& e) { static_cast<void>(e.resume("web")); }},
        {"stop of a paused VM",
         [](World& w, Engine& e) {
             static_cast<void>(e.create(named(w)));
             static_cast<void>(e.start("web"));
             static_cast<void>(e.pause("web"));
         },
         [](World&, Engine& e) { static_cast<void>(e.stop("web")); }},
        {"start with a restart policy", [](World& w, Engine& e) { static_cast<void>(e.create(restarting(w))); },
         [](World&, Engine& e) { static_cast<void>(e.start("web")); }},
        {"stop of a VM that waits to be started again",
         [](World& w, Engine& e) {
             static_cast<void>(e.create(restarting(w)));
             const Uuid uuid = Uuid::parse(e.start("web").uuid);
             w.end(uuid, ExitStatus{true, 9, std::chrono::system_clock::now()});
         },
         [](World&, Engine& e) { static_cast<void>(e.stop("web")); }},
        {"delete that retains data", [](World& w, Engine& e) { static_cast<void>(e.create(named(w))); },
         [](World&, Engine& e) { e.remove("web", true); }},
    };
    return all;
}

/// Crashes at effect number `point`; false if the operation came to its end before that.
bool crashAt(World& world, Engine& engine, const Scenario& scenario, int point, std::string& where) {
    int count = 0;
    world.onEffect = [&](const std::string& effect, const std::string& moment) {
        if (count++ == point) {
            where = moment + " " + effect;
            throw Crash{};
        }
    };
    bool crashed = false;
    try {
        scenario.operation(world, engine);
    } catch (const Crash&) {
        crashed = true;
    }
    world.onEffect = {};
    return crashed;
}

bool retained(const World& world) {
    return std::filesystem::exists(world.config.dataRoot / "web");
}

TEST(Crash, AtEveryEffectOfEveryOperationIsRecoveredFrom) {
    int points = 0;
    for (const Scenario& scenario : scenarios()) {
        const bool retains = std::string(scenario.name) == "delete that retains data";
        for (int point = 0;; ++point) {
            World world;
            std::string where;
            {
                auto engine = world.boot();
                scenario.prepare(world, *engine);
                if (!crashAt(world, *engine, scenario, point, where)) break;
            }
            ++points;
            SCOPED_TRACE(std::string(scenario.name) + ", killed " + where);
            const auto engine = world.boot();
            const bool exists = !engine->list().empty();
            if (retains && !exists) {
                EXPECT_TRUE(retained(world)) << "the data that was to be kept is gone";
                std::filesystem::remove_all(world.config.dataRoot / "web");
            }
            EXPECT_EQ(world.contradictions(*engine), "");
            // And it works: the same VM, or a new one of the same id, runs and goes without a trace.
            if (!exists) static_cast<void>(engine->create(named(world)));
            static_cast<void>(engine->start("web"));
            EXPECT_EQ(engine->resume("web").state, VmState::Running);
            EXPECT_EQ(world.contradictions(*engine), "");
            engine->remove("web", false);
            EXPECT_EQ(world.contradictions(*engine), "");
            EXPECT_TRUE(engine->list().empty());
            EXPECT_TRUE(world.processes.empty() && world.wires.empty() && world.jails.empty() && world.records.empty());
        }
    }
    EXPECT_GT(points, 60) << "fewer effects than the operations have: the test lost its teeth";
}

TEST(Crash, DuringTheRecoveryFromACrashIsRecoveredFromToo) {
    int points = 0;
    for (const Scenario& scenario : scenarios()) {
        for (int point = 0;; ++point) {
            bool scenarioOver = false;
            for (int again = 0;; ++again) {
                World world;
                std::string where;
                {
                    auto engine = world.boot();
                    scenario.prepare(world, *engine);
                    if (!crashAt(world, *engine, scenario, point, where)) {
                        scenarioOver = true;
                        break;
                    }
                }
                bool recoveryOver = true;
                {
                    int count = 0;
                    world.onEffect = [&](const std::string& effect, const std::string& moment) {
                        if (count++ == again) {
                            recoveryOver = false;
                            where += ", then " + moment + " " + effect;
                            throw Error(ErrorKind::Internal, "the second crash");
                        }
                        if (count > again + 1) throw Error(ErrorKind::Internal, "dead");
                    };
                    const auto engine = world.boot();
                    world.onEffect = {};
                }
                if (recoveryOver) break;
                ++points;
                SCOPED_TRACE(std::string(scenario.name) + ", killed " + where);
                const auto engine = world.boot();
                if (std::string(scenario.name) == "delete that retains data" && engine->list().empty()) {
                    EXPECT_TRUE(retained(world));
                    std::filesystem::remove_all(world.config.dataRoot / "web");
                }
                EXPECT_EQ(world.contradictions(*engine), "");
                if (engine->list().empty()) static_cast<void>(engine->create(named(world)));
                static_cast<void>(engine->start("web"));
                EXPECT_EQ(engine->resume("web").state, VmState::Running);
                EXPECT_EQ(world.contradictions(*engine), "");
            }
            if (scenarioOver) break;
        }
    }
    EXPECT_GT(points, 100);
}

}  // namespace
}  // namespace mergen::engine::test
