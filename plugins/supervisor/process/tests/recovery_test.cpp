// What only this backend promises: its files, its parent process, and what happens when either server or parent is
// killed at any point.
#include <array>
#include <fcntl.h>
#include <functional>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

#include <mergen/base/file.hpp>
#include <mergen/base/text.hpp>
#include <mergen/sdk/failpoint.hpp>

#include "observation.hpp"
#include "process_under_test.hpp"

namespace mergen::supervisor {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using namespace std::chrono_literals;

namespace fs = std::filesystem;

const SupervisorUnderTest backend = processUnderTest();

/// Waits until a file is there whose folder exists.
void awaitFile(const fs::path& file) {
    const UniqueFd changes(::inotify_init1(IN_CLOEXEC | IN_NONBLOCK));
    ASSERT_GE(::inotify_add_watch(changes.get(), file.parent_path().c_str(), IN_MOVED_TO | IN_CREATE), 0);
    while (!fs::exists(file)) {
        pollfd polled{changes.get(), POLLIN, 0};
        ASSERT_GT(::poll(&polled, 1, static_cast<int>(std::chrono::milliseconds(patience).count())), 0) << file;
        std::array<char, 4096> events{};
        while (::read(changes.get(), events.data(), events.size()) > 0) {
        }
    }
}

class ProcessRecovery : public SupervisorFixture {
protected:
    ProcessRecovery() : SupervisorFixture(backend) {}
    ~ProcessRecovery() override {
        ::unsetenv("MERGEN_FAILPOINTS");
#ifdef MERGEN_WITH_FAILPOINTS
        failpoint::arm("");
#endif
    }

    [[nodiscard]] fs::path root() { return host().paths().runRoot / "supervisor"; }
    [[nodiscard]] fs::path folderOf(const OwnerTag& owner) { return root() / owner.vm.str(); }
    [[nodiscard]] ProcessIdentity identityIn(const OwnerTag& owner, const char* file) {
        return ProcessIdentity::parse(readFile(folderOf(owner) / file, 4096).value_or("")).value();
    }
    void rewrite(const OwnerTag& owner, const char* file, const ProcessIdentity& identity) {
        writeFileAtomically(folderOf(owner) / file, identity.str(), 0600);
    }

    /// Runs `work` in a process of its own, as another mergend, which is then killed with SIGKILL. The fixture's own
    /// server is stopped meanwhile.
    void inKilledServer(const std::function<void(SupervisorBackend&)>& work) {
        stopServer();
        std::array<int, 2> ends{};
        ASSERT_EQ(::pipe2(ends.data(), O_CLOEXEC), 0);
        UniqueFd done(ends[0]);
        UniqueFd doneEnd(ends[1]);
        const pid_t server = ::fork();
        if (server == 0) {
            char failed = 0;
            try {
                const auto supervisor = makeServer();
                work(*supervisor);
            } catch (const Error&) {
                failed = 1;
            }
            static_cast<void>(!::write(doneEnd.get(), &failed, 1));
            for (;;) ::pause();
        }
        doneEnd.reset();
        char failed = 0;
        // End of file: it was killed before by a failpoint.
        const bool worked = ::read(done.get(), &failed, 1) != 1 || failed == 0;
        EXPECT_TRUE(worked);
        ::kill(server, SIGKILL);
        int status = 0;
        ASSERT_EQ(::waitpid(server, &status, 0), server);
        ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << describeStatus(status);
    }
};

TEST_F(ProcessRecovery, AServerThatIsKilledLeavesItsProcessesRunning) {
    const OwnerTag owner = newOwner();
    inKilledServer([&](SupervisorBackend& server) { server.launch(specOf(owner, {"ready", "linger"})); });
    awaitConsole(owner, "ready");
    startServer();
    const ProcessStatus seen = supervisor().status(owner);
    EXPECT_EQ(seen.state, ProcessState::Running);
    EXPECT_GT(seen.pid, 0);
    EXPECT_THAT(consoleText(owner), HasSubstr("ready " + std::to_string(seen.pid)));
    EXPECT_TRUE(supervisor().signal(owner, SIGTERM, "test"));
    EXPECT_EQ(exits().await(owner).exit->code, SIGTERM);
}

TEST_F(ProcessRecovery, WhatEndsAfterItsServerWasKilledIsToldWithItsExitCode) {
    const OwnerTag owner = newOwner();
    inKilledServer([&](SupervisorBackend& server) {
        server.launch(specOf(owner, {"flood", "4000000", "say", "the end", "exit", "9"}));
    });
    startServer();
    const ProcessStatus ended = supervisor().waitExit(owner, patience);
    ASSERT_TRUE(ended.exit) << ended.note;
    EXPECT_EQ(ended.exit->code, 9);
    EXPECT_TRUE(consoleText(owner).ends_with("the end\n"));
}

TEST_F(ProcessRecovery, TheParentSurvivesEverySignalButKill) {
    const OwnerTag owner = newOwner();
    const ProcessStatus launched = launchLingering(owner);
    const pid_t parent = identityIn(owner, "parent").pid;
    for (const int signal : {SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGPIPE, SIGUSR1, SIGUSR2, SIGALRM}) {
        EXPECT_EQ(::kill(parent, signal), 0);
    }
    EXPECT_EQ(supervisor().waitExit(owner, 30ms).pid, launched.pid);
}

TEST_F(ProcessRecovery, AKilledParentTakesItsVmmAlong) {
    const OwnerTag owner = newOwner();
    const ProcessStatus launched = launchLingering(owner);
    ASSERT_EQ(::kill(identityIn(owner, "parent").pid, SIGKILL), 0);
    const ProcessStatus told = exits().await(owner);
    EXPECT_EQ(told.state, ProcessState::Exited);
    EXPECT_FALSE(told.exit);
    EXPECT_EQ(told.note, "its parent was killed");
    EXPECT_FALSE(ProcessIdentity::of(launched.pid));
    EXPECT_EQ(supervisor().waitExit(owner, patience).state, ProcessState::Exited);
    EXPECT_FALSE(supervisor().signal(owner, SIGKILL, "test"));
}

TEST_F(ProcessRecovery, AParentThatIsKilledWhileNoServerRunsIsReportedByTheNext) {
    const OwnerTag owner = newOwner();
    const ProcessStatus launched = launchLingering(owner);
    const pid_t parent = identityIn(owner, "parent").pid;
    stopServer();
    ASSERT_EQ(::kill(parent, SIGKILL), 0);
    EXPECT_TRUE(endsInTime(launched.pid));
    startServer();
    const ProcessStatus seen = supervisor().waitExit(owner, patience);
    EXPECT_EQ(seen.state, ProcessState::Exited);
    EXPECT_FALSE(seen.exit);
    EXPECT_EQ(seen.note, "its parent was killed");
}

TEST_F(ProcessRecovery, AVmmThatOutlivesItsKilledParentIsKilled) {
    const OwnerTag owner = newOwner();
    const ProcessStatus launched = launchLingering(owner, {"cling"});
    ASSERT_EQ(::kill(identityIn(owner, "parent").pid, SIGKILL), 0);
    EXPECT_EQ(exits().await(owner).note, "its parent was killed");
    EXPECT_FALSE(ProcessIdentity::of(launched.pid));
}

TEST_F(ProcessRecovery, AVmmThatOutlivedItsParentWhileNoServerRanIsKilledByTheNext) {
    const OwnerTag owner = newOwner();
    const ProcessStatus launched = launchLingering(owner, {"cling"});
    const pid_t parent = identityIn(owner, "parent").pid;
    stopServer();
    ASSERT_EQ(::kill(parent, SIGKILL), 0);
    EXPECT_TRUE(endsInTime(parent));
    EXPECT_TRUE(ProcessIdentity::of(launched.pid)) << "the test's own premise";
    EXPECT_EQ(observe(folderOf(owner)).status.state, ProcessState::Running) << "its disk is in use";
    startServer();
    EXPECT_EQ(supervisor().waitExit(owner, patience).state, ProcessState::Exited);
    EXPECT_FALSE(ProcessIdentity::of(launched.pid));
}

TEST_F(ProcessRecovery, NothingInAPidNamespaceOutlivesItsKilledParentWhateverItDid) {
    if (::geteuid() != 0) GTEST_SKIP() << "needs root: process-id namespaces";
    const OwnerTag owner = newOwner();
    ProcessSpec spec = specOf(owner, {"cling", "descend", "ready", "linger"});
    spec.pidNamespace = true;
    const ProcessStatus launched = supervisor().launch(spec);
    awaitConsole(owner, "ready");
    const std::vector<pid_t> all = processesOf(owner);
    EXPECT_EQ(all.size(), 4U) << "parent, init, program, descendant";
    const pid_t parent = identityIn(owner, "parent").pid;
    stopServer();  // or it would be the server that ends them
    ASSERT_EQ(::kill(parent, SIGKILL), 0);
    for (const pid_t pid : all) EXPECT_TRUE(endsInTime(pid));
    startServer();
    EXPECT_EQ(supervisor().waitExit(owner, patience).note, "its parent was killed");
    EXPECT_FALSE(ProcessIdentity::of(launched.pid));
}

TEST_F(ProcessRecovery, AKilledInitTakesTheProgramAlongAndTheEndIsKnown) {
    if (::geteuid() != 0) GTEST_SKIP() << "needs root: process-id namespaces";
    const OwnerTag owner = newOwner();
    ProcessSpec spec = specOf(owner, {"ready", "linger"});
    spec.pidNamespace = true;
    const ProcessStatus launched = supervisor().launch(spec);
    awaitConsole(owner, "ready");
    const pid_t parent = identityIn(owner, "parent").pid;
    for (const pid_t pid : processesOf(owner)) {
        if (pid == parent || pid == launched.pid) continue;
        ASSERT_EQ(::kill(pid, SIGKILL), 0);
    }
    const ProcessStatus ended = supervisor().waitExit(owner, patience);
    ASSERT_TRUE(ended.exit) << ended.note;
    EXPECT_TRUE(ended.exit->signalled);
    EXPECT_EQ(ended.exit->code, SIGKILL);
}

TEST_F(ProcessRecovery, APidThatIsAnothersNowIsNeverSignalled) {
    const OwnerTag bystander = newOwner();
    const OwnerTag owner = newOwner();
    const ProcessStatus other = launchLingering(bystander);
    launchLingering(owner);
    stopServer();
    ASSERT_EQ(::kill(identityIn(owner, "parent").pid, SIGKILL), 0);
    EXPECT_TRUE(endsInTime(identityIn(owner, "vmm").pid));
    // As if the numbers had been given out again: living processes, but not those that were written down.
    for (const char* const file : {"parent", "vmm"}) {
        ProcessIdentity identity = identityIn(owner, file);
        identity.pid = other.pid;
        // Both may have been started within one tick of the clock.
        identity.startTime = ProcessIdentity::of(other.pid).value().startTime + 1;
        rewrite(owner, file, identity);
    }
    startServer();
    const ProcessStatus seen = supervisor().status(owner);
    EXPECT_EQ(seen.state, ProcessState::Exited);
    EXPECT_EQ(seen.note, "its parent was killed");
    EXPECT_FALSE(supervisor().signal(owner, SIGKILL, "test"));
    supervisor().forget(owner);
    EXPECT_EQ(supervisor().waitExit(bystander, 30ms).pid, other.pid) << "alive and well";
}

TEST_F(ProcessRecovery, FilesThatDoNotFitTheProcessThatHoldsTheLockAreNoGroundToForgetIt) {
    const OwnerTag bystander = newOwner();
    const OwnerTag owner = newOwner();
    const ProcessStatus other = launchLingering(bystander);
    const ProcessStatus launched = launchLingering(owner);
    const ProcessIdentity parent = identityIn(owner, "parent");
    const ProcessIdentity vmm = identityIn(owner, "vmm");
    stopServer();
    const std::uint64_t notItsStart = ProcessIdentity::of(other.pid).value().startTime + 1;
    rewrite(owner, "parent", {other.pid, notItsStart, parent.bootId});
    rewrite(owner, "vmm", {other.pid, notItsStart, vmm.bootId});
    startServer();
    EXPECT_EQ(supervisor().status(owner).state, ProcessState::Exited);
    EXPECT_THAT(supervisor().status(owner).note, HasSubstr("parent.lock"));
    EXPECT_FALSE(supervisor().signal(owner, SIGKILL, "test"));
    EXPECT_EQ(kindOf([&] { supervisor().forget(owner); }), ErrorKind::FailedPrecondition) << "a disk may be in use";
    EXPECT_TRUE(ProcessIdentity::of(launched.pid));
    EXPECT_TRUE(ProcessIdentity::of(other.pid));
    rewrite(owner, "parent", parent);
    rewrite(owner, "vmm", vmm);
    restart();
    EXPECT_EQ(supervisor().status(owner).pid, launched.pid);
}

TEST_F(ProcessRecovery, ProcessesOfAnotherBootHaveEnded) {
    const OwnerTag owner = newOwner();
    launchLingering(owner);
    stopServer();
    ASSERT_EQ(::kill(identityIn(owner, "parent").pid, SIGKILL), 0);
    EXPECT_TRUE(endsInTime(identityIn(owner, "vmm").pid));
    const ProcessIdentity self = ProcessIdentity::self();
    for (const char* const file : {"parent", "vmm"}) {
        rewrite(owner, file, {self.pid, self.startTime, "00000000-0000-4000-8000-000000000000"});
    }
    startServer();
    ASSERT_THAT(supervisor().list(), SizeIs(1));
    EXPECT_EQ(supervisor().list().front().state, ProcessState::Exited);
    EXPECT_FALSE(supervisor().list().front().exit);
    EXPECT_EQ(supervisor().list().front().note, "the host was restarted");
    EXPECT_FALSE(supervisor().signal(owner, SIGKILL, "test")) << "or this test would be no more";
}

TEST_F(ProcessRecovery, ThePsLineNamesOwnerAndProgram) {
    const OwnerTag owner = newOwner();
    launchLingering(owner);
    const std::string line =
        readFile("/proc/" + std::to_string(identityIn(owner, "parent").pid) + "/cmdline", 65536).value();
    const std::vector<std::string> words = split(line, '\0');
    EXPECT_THAT(words, AllOf(Contains(owner.str()), Contains(probe().string())));
}

TEST_F(ProcessRecovery, AnOrdinaryEndLeavesNoWarning) {
    const OwnerTag owner = newOwner();
    launchToEnd(specOf(owner, {"say", "the end", "exit", "3"}));
    static_cast<void>(exits().await(owner));
    for (const test::LogLine& line : host().log().lines()) EXPECT_LT(line.level, LogLevel::Warning) << line.event;
}

TEST_F(ProcessRecovery, NoOneElseCanWriteTheFilesOfAVm) {
    const OwnerTag owner = newOwner();
    launchLingering(owner);
    for (const fs::path& path : {root(), folderOf(owner), folderOf(owner) / "parent", folderOf(owner) / "vmm",
                                 folderOf(owner) / "owner", folderOf(owner) / "parent.lock"}) {
        struct stat status {};
        ASSERT_EQ(::lstat(path.c_str(), &status), 0) << path;
        EXPECT_EQ(status.st_mode & 077, 0U) << path;
        EXPECT_EQ(status.st_uid, ::geteuid()) << path;
    }
}

TEST_F(ProcessRecovery, TheVmmLeadsItsOwnGroupDiesWithItsParentAndGainsNothing) {
    EXPECT_THAT(linesOf({"show", "status"}), AllOf(Contains("NoNewPrivs:\t1"), Contains("pdeathsig 9")));
    EXPECT_THAT(linesOf({"show", "place"}), Contains("group-leader 1"));
}

TEST_F(ProcessRecovery, AFolderThatOthersMayWriteIsRefused) {
    stopServer();
    fs::permissions(root(), fs::perms(0777));
    std::string text;
    EXPECT_EQ(kindOf([&] { static_cast<void>(makeServer()); }, &text), ErrorKind::PermissionDenied);
    EXPECT_THAT(text, HasSubstr("mode 0700"));
    fs::permissions(root(), fs::perms(0700));
    startServer();
}

TEST_F(ProcessRecovery, AnotherInstancesProcessesAreNotListedAndNotTouched) {
    const Uuid vm = Uuid::random();
    const OwnerTag foreign{"ffffffff", vm};
    const fs::path folder = root() / vm.str();
    makeDirectories(folder, 0700);
    writeFileAtomically(folder / "owner", foreign.str() + "\n", 0600);
    makeDirectories(root() / (".ffffffff." + vm.str()), 0700);
    restart();
    EXPECT_THAT(supervisor().list(), IsEmpty());
    EXPECT_EQ(supervisor().status({host().instance(), vm}).state, ProcessState::Absent);
    supervisor().forget({host().instance(), vm});
    EXPECT_TRUE(fs::exists(folder / "owner"));
    EXPECT_TRUE(fs::exists(root() / (".ffffffff." + vm.str())));
}

TEST_F(ProcessRecovery, AMissingLauncherIsNamedAtStart) {
    test::TestHost other(ProcessSupervisor::keys, {{"launcher", "/nonexistent/mergen-vm"}});
    ProcessSupervisor server;
    server.configure(other);
    std::string text;
    EXPECT_EQ(kindOf([&] { server.start(); }, &text), ErrorKind::NotFound);
    EXPECT_THAT(text, HasSubstr("/nonexistent/mergen-vm"));
    EXPECT_FALSE(fs::exists(other.paths().runRoot / "supervisor"));
}

TEST_F(ProcessRecovery, SettingsOutOfBoundsAreRefused) {
    for (const auto& [key, value] : std::vector<std::pair<std::string, std::string>>{{"launcher", "bin/mergen-vm"},
                                                                                     {"launch_timeout", "99ms"},
                                                                                     {"launch_timeout", "601s"},
                                                                                     {"restart_delay", "0ms"},
                                                                                     {"restart_delay", "2h"},
                                                                                     {"restart_delay_max", "99ms"},
                                                                                     {"restart_reset", "25h"}}) {
        test::TestHost other(ProcessSupervisor::keys, {{key, value}});
        ProcessSupervisor server;
        std::string text;
        EXPECT_EQ(kindOf([&] { server.configure(other); }, &text), ErrorKind::InvalidArgument);
        EXPECT_THAT(text, HasSubstr(key));
    }
}

TEST_F(ProcessRecovery, ALauncherThatSaysNothingOrNonsenseIsAnErrorThatLeavesNothing) {
    for (const auto& [program, expected] : std::vector<std::pair<std::string, std::string>>{
             {"/bin/true", "without a word"}, {"/bin/echo", "mergen-vm said '--dir"}}) {
        test::TestHost other(ProcessSupervisor::keys, {{"launcher", program}});
        ProcessSupervisor server;
        server.configure(other);
        server.start();
        const OwnerTag owner = newOwner();
        std::string text;
        EXPECT_EQ(kindOf([&] { server.launch(specOf(owner, {"linger"})); }, &text), ErrorKind::Unavailable);
        EXPECT_THAT(text, HasSubstr(expected));
        EXPECT_THAT(server.list(), IsEmpty());
        EXPECT_THAT(listDirectory(other.paths().runRoot / "supervisor"), IsEmpty());
    }
}

/// A server whose restarts are so slow that they never come, and one process of it that waits for that.
class WaitingRestart : public ProcessRecovery {
protected:
    WaitingRestart()
        : other_(ProcessSupervisor::keys,
                 {{"launcher", MERGEN_TEST_LAUNCHER}, {"restart_delay", "1h"}, {"restart_delay_max", "1h"}}) {
        server_.configure(other_);
        server_.start();
        owner_ = {other_.instance(), Uuid::random()};
        ProcessSpec spec = specOf(newOwner(), {"linger"});
        spec.owner = owner_;
        spec.restart = {.policy = RestartPolicy::OnFailure, .arguments = spec.arguments};
        const pid_t pid = server_.launch(spec).pid;
        server_.permitRestarts(owner_, true);
        EXPECT_EQ(::kill(pid, SIGKILL), 0);
        awaitFile(folder() / "runs");
    }
    ~WaitingRestart() override { server_.forget(owner_); }

    [[nodiscard]] fs::path folder() { return other_.paths().runRoot / "supervisor" / owner_.vm.str(); }
    [[nodiscard]] ProcessSupervisor& server() { return server_; }
    [[nodiscard]] const OwnerTag& owner() const { return owner_; }

private:
    test::TestHost other_;
    ProcessSupervisor server_;
    OwnerTag owner_;
};

TEST_F(WaitingRestart, IsRunningWithoutAProcess) {
    const ProcessStatus waiting = server().status(owner());
    EXPECT_EQ(waiting.state, ProcessState::Running);
    EXPECT_EQ(waiting.pid, 0);
    EXPECT_EQ(waiting.restarts, 0U);
    EXPECT_FALSE(server().signal(owner(), SIGKILL, "test")) << "there is nothing to signal";
    server().permitRestarts(owner(), false);
    EXPECT_EQ(server().waitExit(owner(), patience).state, ProcessState::Exited);
}

TEST_F(WaitingRestart, EndsAtOnceWhenItIsForbidden) {
    server().permitRestarts(owner(), false);
    const ProcessStatus ended = server().waitExit(owner(), patience);
    EXPECT_EQ(ended.state, ProcessState::Exited);
    EXPECT_EQ(ended.exit->code, SIGKILL) << "its last run's";
    EXPECT_EQ(ended.restarts, 0U);
    EXPECT_THAT(server().pastRuns(owner()), IsEmpty()) << "no other run follows it";
}

TEST_F(WaitingRestart, EndsAlsoWhenTheServerThatForbadeItDiedBeforeItCouldSaySo) {
    fs::remove(folder() / "restart");
    server().permitRestarts(owner(), false);
    EXPECT_EQ(server().waitExit(owner(), patience).exit->code, SIGKILL);
}

TEST_F(WaitingRestart, EndsWithItsParent) {
    const auto parent = ProcessIdentity::parse(readFile(folder() / "parent", 4096).value());
    ASSERT_EQ(::kill(parent.value().pid, SIGKILL), 0);
    const ProcessStatus ended = server().waitExit(owner(), patience);
    EXPECT_EQ(ended.state, ProcessState::Exited);
    EXPECT_FALSE(ended.exit);
    EXPECT_EQ(ended.note, "its parent was killed");
}

TEST_F(ProcessRecovery, ARunThatLastedBeginsTheCountAnew) {
    test::TestHost other(ProcessSupervisor::keys,
                         {{"launcher", MERGEN_TEST_LAUNCHER}, {"restart_delay", "1ms"}, {"restart_reset", "1ms"}});
    ProcessSupervisor server;
    server.configure(other);
    server.start();
    const OwnerTag owner{other.instance(), Uuid::random()};
    ProcessSpec spec = specOf(newOwner(), {"linger"});
    spec.owner = owner;
    spec.restart = {.policy = RestartPolicy::OnFailure, .maxRestarts = 1, .arguments = spec.arguments};
    pid_t pid = server.launch(spec).pid;
    server.permitRestarts(owner, true);
    for (unsigned restarts = 1; restarts <= 4; ++restarts) {
        std::this_thread::sleep_for(2ms);  // a run that lasts, by this test's restart_reset
        ASSERT_EQ(::kill(pid, SIGKILL), 0);
        while (server.status(owner).restarts < restarts) std::this_thread::yield();
        pid = server.status(owner).pid;
        EXPECT_EQ(server.pastRuns(owner).back().attempt, 1U);
        EXPECT_EQ(server.pastRuns(owner).back().delay, 1ms);
    }
    server.permitRestarts(owner, false);
    EXPECT_TRUE(server.signal(owner, SIGKILL, "test"));
    EXPECT_EQ(server.waitExit(owner, patience).restarts, 4U);
    server.forget(owner);
}

#ifdef MERGEN_WITH_FAILPOINTS

/// The race of a stop with a restart, with the parent held at each point of it: whichever comes first, nothing runs
/// when the stop has been through, and what was never let go has done nothing.
TEST_F(ProcessRecovery, AStopWinsOverARestartWhereverThatIs) {
    for (const std::string step : {"launcher.again.planned", "launcher.again.after_fork", "launcher.again.after_vmm",
                                   "launcher.again.after_look"}) {
        SCOPED_TRACE(step);
        const OwnerTag owner = newOwner();
        ::setenv("MERGEN_FAILPOINTS", (step + "=delay(300)").c_str(), 1);
        const pid_t pid =
            launchRestarting(owner, {.policy = RestartPolicy::Always}, {}, {"say", "again", "linger"}).pid;
        ::unsetenv("MERGEN_FAILPOINTS");
        const std::string first = readFile(folderOf(owner) / "vmm", 4096).value();
        ASSERT_EQ(::kill(pid, SIGKILL), 0);
        if (step == "launcher.again.planned" || step == "launcher.again.after_fork") {
            awaitFile(folderOf(owner) / "runs");
        } else {
            while (readFile(folderOf(owner) / "vmm", 4096).value() == first) std::this_thread::yield();
        }
        supervisor().permitRestarts(owner, false);
        static_cast<void>(supervisor().signal(owner, SIGKILL, "stop"));
        const ProcessStatus ended = supervisor().waitExit(owner, patience);
        EXPECT_EQ(ended.state, ProcessState::Exited);
        ASSERT_TRUE(ended.exit) << ended.note;
        EXPECT_EQ(ended.exit->code, SIGKILL);
        EXPECT_EQ(ended.restarts, 0U);
        EXPECT_THAT(consoleText(owner), ::testing::Not(HasSubstr("again")));
        EXPECT_THAT(processesOf(owner), IsEmpty());
        supervisor().forget(owner);
    }
}

TEST_F(ProcessRecovery, AStopThatDiesAfterItForbadeRestartsHasForbiddenThem) {
    const OwnerTag owner = newOwner();
    inKilledServer([&](SupervisorBackend& server) {
        ProcessSpec spec = specOf(owner, {"linger"});
        spec.restart = {.policy = RestartPolicy::Always, .arguments = spec.arguments};
        server.launch(spec);
        server.permitRestarts(owner, true);
        failpoint::arm("supervisor.process.after_forbid=crash");
        server.permitRestarts(owner, false);
    });
    ASSERT_EQ(::kill(identityIn(owner, "vmm").pid, SIGKILL), 0);
    startServer();
    const ProcessStatus ended = supervisor().waitExit(owner, patience);
    EXPECT_EQ(ended.state, ProcessState::Exited);
    EXPECT_EQ(ended.restarts, 0U);
}

TEST_F(ProcessRecovery, ASignalOfAServerThatDiesAfterwardsIsKnownToBeOurs) {
    const OwnerTag owner = newOwner();
    inKilledServer([&](SupervisorBackend& server) {
        server.launch(specOf(owner, {"linger"}));
        server.signal(owner, SIGKILL, "stop");
    });
    startServer();
    EXPECT_EQ(supervisor().waitExit(owner, patience).sent, (SentSignal{SIGKILL, "stop"}));
}

/// Every step of a launch, in the server and in mergen-vm.
const std::vector<std::string> serverSteps{"supervisor.process.after_folder", "supervisor.process.before_intent",
                                           "supervisor.process.after_intent", "supervisor.process.after_spawn",
                                           "supervisor.process.after_report", "supervisor.process.after_watch"};
const std::vector<std::string> launcherSteps{"launcher.after_lock", "launcher.after_parent", "launcher.after_fork",
                                             "launcher.after_vmm"};

TEST_F(ProcessRecovery, AServerThatIsKilledAtAnyStepOfALaunchLeavesWhatTheNextCanClear) {
    for (const std::string& step : serverSteps) {
        SCOPED_TRACE(step);
        const OwnerTag owner = newOwner();
        inKilledServer([&](SupervisorBackend& server) {
            failpoint::arm(step + "=crash");
            server.launch(specOf(owner, {"linger"}));
        });
        startServer();
        const bool intended = step != serverSteps[0] && step != serverSteps[1];
        ASSERT_THAT(supervisor().list(), SizeIs(intended ? 1 : 0));
        if (intended) {
            const ProcessStatus found = supervisor().list().front();
            EXPECT_EQ(found.owner, owner);
            if (found.state == ProcessState::Running) {
                EXPECT_GT(found.pid, 0);
                EXPECT_TRUE(supervisor().signal(owner, SIGKILL, "test"));
            } else {
                EXPECT_EQ(found.note, "its launch was interrupted before the program was executed");
            }
            EXPECT_EQ(supervisor().waitExit(owner, patience).state, ProcessState::Exited);
            supervisor().forget(owner);
        }
        EXPECT_THAT(listDirectory(root()), IsEmpty());
        EXPECT_THAT(processesOf(owner), IsEmpty());
        EXPECT_EQ(launchToEnd(specOf(owner, {"exit", "2"})).exit->code, 2);
        supervisor().forget(owner);
    }
}

TEST_F(ProcessRecovery, ALaunchThatFailsAtAnyStepLeavesNothing) {
    for (const std::string& step : serverSteps) {
        SCOPED_TRACE(step);
        const OwnerTag owner = newOwner();
        failpoint::arm(step + "=error(out of luck)");
        std::string text;
        EXPECT_EQ(kindOf(
                      [&] {
                          supervisor().launch(specOf(owner, {"descend", "linger"}));
                      },
                      &text),
                  ErrorKind::Internal);
        failpoint::arm("");
        EXPECT_THAT(text, HasSubstr("out of luck"));
        EXPECT_THAT(processesOf(owner), IsEmpty());
        EXPECT_THAT(listDirectory(root()), IsEmpty());
        EXPECT_THAT(host().log().lines("supervisor.process.undo_failed"), IsEmpty());
        EXPECT_EQ(launchToEnd(specOf(owner, {"exit", "2"})).exit->code, 2);
        supervisor().forget(owner);
    }
}

TEST_F(ProcessRecovery, AParentThatIsKilledAtAnyStepOfALaunchLeavesNothing) {
    for (const std::string& step : launcherSteps) {
        for (const std::string action : {"crash", "error(out of luck)"}) {
            SCOPED_TRACE(step + "=" + action);
            const OwnerTag owner = newOwner();
            ::setenv("MERGEN_FAILPOINTS", (step + "=" + action).c_str(), 1);
            std::string text;
            const auto kind = kindOf([&] { supervisor().launch(specOf(owner, {"linger"})); }, &text);
            ::unsetenv("MERGEN_FAILPOINTS");
            EXPECT_EQ(kind, action == "crash" ? ErrorKind::Unavailable : ErrorKind::Internal) << text;
            EXPECT_THAT(processesOf(owner), IsEmpty());
            EXPECT_THAT(listDirectory(root()), IsEmpty());
            EXPECT_EQ(launchToEnd(specOf(owner, {"exit", "2"})).exit->code, 2);
            supervisor().forget(owner);
        }
    }
}

TEST_F(ProcessRecovery, AServerAndAParentThatAreBothKilledLeaveWhatTheNextServerCanClear) {
    for (const std::string& step : launcherSteps) {
        SCOPED_TRACE(step);
        const OwnerTag owner = newOwner();
        inKilledServer([&](SupervisorBackend& server) {
            // The server is killed before it hears that the parent was.
            ::setenv("MERGEN_FAILPOINTS", (step + "=crash").c_str(), 1);
            failpoint::arm("supervisor.process.after_spawn=crash");
            server.launch(specOf(owner, {"linger"}));
        });
        startServer();
        const ProcessStatus found = supervisor().waitExit(owner, patience);
        EXPECT_EQ(found.state, ProcessState::Exited);
        EXPECT_FALSE(found.exit);
        EXPECT_FALSE(found.note.empty());
        supervisor().forget(owner);
        EXPECT_THAT(processesOf(owner), IsEmpty());
        EXPECT_THAT(listDirectory(root()), IsEmpty());
    }
}

TEST_F(ProcessRecovery, TheReasonOfAFailedLaunchIsKeptForTheNextServer) {
    const OwnerTag owner = newOwner();
    ProcessSpec spec = specOf(owner, {});
    spec.arguments.front() = "/nonexistent/vmm";
    inKilledServer([&](SupervisorBackend& server) {
        failpoint::arm("supervisor.process.after_spawn=crash");
        server.launch(spec);
    });
    startServer();
    const ProcessStatus found = supervisor().waitExit(owner, patience);
    EXPECT_EQ(found.state, ProcessState::Exited);
    EXPECT_THAT(found.note, AllOf(HasSubstr("could not be started"), HasSubstr("/nonexistent/vmm")));
}

TEST_F(ProcessRecovery, ALauncherThatHangsIsGivenUp) {
    test::TestHost other(ProcessSupervisor::keys, {{"launcher", MERGEN_TEST_LAUNCHER}, {"launch_timeout", "300ms"}});
    ProcessSupervisor server;
    server.configure(other);
    server.start();
    for (const std::string& step : launcherSteps) {
        SCOPED_TRACE(step);
        const OwnerTag owner = newOwner();
        ::setenv("MERGEN_FAILPOINTS", (step + "=delay(600000)").c_str(), 1);
        EXPECT_EQ(kindOf([&] { server.launch(specOf(owner, {"linger"})); }), ErrorKind::Timeout);
        ::unsetenv("MERGEN_FAILPOINTS");
        EXPECT_THAT(processesOf(owner), IsEmpty());
        EXPECT_THAT(listDirectory(other.paths().runRoot / "supervisor"), IsEmpty());
    }
}

TEST_F(ProcessRecovery, ALaunchThatHangsWhileItsServerIsKilledIsGivenUpByTheNext) {
    test::TestHost other(ProcessSupervisor::keys, {{"launcher", MERGEN_TEST_LAUNCHER}, {"launch_timeout", "300ms"}});
    const OwnerTag owner = newOwner();
    inKilledServer([&](SupervisorBackend&) {
        ProcessSupervisor server;
        server.configure(other);
        server.start();
        ::setenv("MERGEN_FAILPOINTS", "launcher.after_parent=delay(600000)", 1);
        failpoint::arm("supervisor.process.after_spawn=crash");
        server.launch(specOf(owner, {"linger"}));
    });
    ProcessSupervisor server;
    server.configure(other);
    // Before it has said who it is, nobody could end it: it would stay Running.
    awaitFile(other.paths().runRoot / "supervisor" / owner.vm.str() / "parent");
    server.start();
    EXPECT_EQ(server.waitExit(owner, patience).state, ProcessState::Exited);
    server.forget(owner);
    EXPECT_THAT(processesOf(owner), IsEmpty());
}

TEST_F(ProcessRecovery, AForgetThatIsInterruptedIsFinishedByTheNextServer) {
    const OwnerTag owner = newOwner();
    inKilledServer([&](SupervisorBackend& server) {
        server.launch(specOf(owner, {"exit", "0"}));
        static_cast<void>(server.waitExit(owner, patience));
        failpoint::arm("supervisor.process.mid_forget=crash");
        server.forget(owner);
    });
    startServer();
    EXPECT_THAT(supervisor().list(), IsEmpty());
    EXPECT_THAT(listDirectory(root()), IsEmpty());
}

TEST_F(ProcessRecovery, AParentThatIsKilledBeforeItWritesTheEndLosesOnlyTheStatus) {
    ::setenv("MERGEN_FAILPOINTS", "launcher.before_exit=crash", 1);
    const OwnerTag owner = newOwner();
    const ProcessStatus ended = launchToEnd(specOf(owner, {"say", "the end", "exit", "3"}));
    EXPECT_EQ(ended.state, ProcessState::Exited);
    EXPECT_FALSE(ended.exit);
    EXPECT_EQ(ended.note, "its parent was killed");
    EXPECT_EQ(consoleText(owner), "the end\n");
}

#endif

}  // namespace
}  // namespace mergen::supervisor
