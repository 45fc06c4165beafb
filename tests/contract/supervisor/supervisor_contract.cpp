#include "supervisor_contract.hpp"

#include <algorithm>
#include <charconv>
#include <fcntl.h>
#include <future>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <thread>
#include <unistd.h>

#include <mergen/base/file.hpp>
#include <mergen/base/text.hpp>

namespace mergen {

namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;
using ::testing::UnorderedElementsAre;
using namespace std::chrono_literals;

/// A network namespace of this process's own, with persistent taps in it; gone with the object.
class PrivateNamespace {
public:
    explicit PrivateNamespace(const std::vector<std::string>& taps = {}) {
        // On a thread of its own: unshare(2) binds the thread, and the test's must stay where it is.
        std::thread([&] {
            if (::unshare(CLONE_NEWNET) != 0) return;
            fd_.reset(::open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC));
            for (const std::string& name : taps) {
                const UniqueFd tun = attachHere(name);
                if (!tun || ::ioctl(tun.get(), TUNSETPERSIST, 1) != 0) {
                    fd_.reset();
                    return;
                }
            }
        }).join();
    }
    /// Takes a tap of it; for a thread that ends afterwards, as it stays in the namespace. Nothing if it cannot be had.
    [[nodiscard]] UniqueFd attachTo(const std::string& tap) const {
        return ::setns(fd_.get(), CLONE_NEWNET) == 0 ? attachHere(tap) : UniqueFd();
    }
    [[nodiscard]] bool made() const { return static_cast<bool>(fd_); }
    [[nodiscard]] std::filesystem::path handle() const {
        return "/proc/" + std::to_string(::getpid()) + "/fd/" + std::to_string(fd_.get());
    }
    /// As readlink of /proc/PID/ns/net shows it.
    [[nodiscard]] std::string name() const {
        struct stat status {};
        ::fstat(fd_.get(), &status);
        return "net:[" + std::to_string(status.st_ino) + "]";
    }

private:
    static UniqueFd attachHere(const std::string& tap) {
        UniqueFd tun(::open("/dev/net/tun", O_RDWR | O_CLOEXEC));
        ifreq request{};
        tap.copy(static_cast<char*>(request.ifr_name), IFNAMSIZ - 1);
        request.ifr_flags = static_cast<short>(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR);
        if (!tun || ::ioctl(tun.get(), TUNSETIFF, &request) != 0) return {};
        return tun;
    }

    UniqueFd fd_;
};

bool isRoot() {
    return ::geteuid() == 0;
}

}  // namespace

TEST_P(SupervisorContract, AnOwnerThatWasNeverLaunchedIsAbsent) {
    const OwnerTag owner = newOwner();
    EXPECT_EQ(supervisor().status(owner).state, ProcessState::Absent);
    EXPECT_EQ(supervisor().status(owner).owner, owner);
    EXPECT_FALSE(supervisor().signal(owner, SIGTERM, "test"));
    EXPECT_EQ(supervisor().waitExit(owner, patience).state, ProcessState::Absent);
    EXPECT_NO_THROW(supervisor().forget(owner));
    EXPECT_THAT(supervisor().list(), IsEmpty());
}

TEST_P(SupervisorContract, LaunchReturnsWhenTheProgramRunsAndGivesItsPid) {
    const OwnerTag owner = newOwner();
    const ProcessStatus launched = launchLingering(owner);  // the probe says the same pid
    EXPECT_EQ(launched.state, ProcessState::Running);
    EXPECT_EQ(launched.owner, owner);
    EXPECT_FALSE(launched.exit);
    const ProcessStatus seen = supervisor().status(owner);
    EXPECT_EQ(seen.state, ProcessState::Running);
    EXPECT_EQ(seen.pid, launched.pid);
}

TEST_P(SupervisorContract, ExitCodeIsKeptUntilItIsForgotten) {
    const OwnerTag owner = newOwner();
    const SystemTime before = std::chrono::system_clock::now() - 1s;
    const ProcessStatus ended = launchToEnd(specOf(owner, {"say", "farewell", "exit", "7"}));
    EXPECT_EQ(ended.state, ProcessState::Exited);
    EXPECT_EQ(ended.pid, 0);
    ASSERT_TRUE(ended.exit);
    EXPECT_FALSE(ended.exit->signalled);
    EXPECT_EQ(ended.exit->code, 7);
    EXPECT_GT(ended.exit->at, before);
    EXPECT_LE(ended.exit->at, std::chrono::system_clock::now());
    EXPECT_EQ(supervisor().status(owner).exit, ended.exit);
    ASSERT_THAT(supervisor().list(), SizeIs(1));
    EXPECT_EQ(supervisor().list().front().exit, ended.exit);

    supervisor().forget(owner);
    EXPECT_EQ(supervisor().status(owner).state, ProcessState::Absent);
    EXPECT_THAT(supervisor().list(), IsEmpty());
    EXPECT_EQ(consoleText(owner), "farewell\n") << "the console stays";
    EXPECT_NO_THROW(supervisor().forget(owner)) << "a repeated forget succeeds";
}

TEST_P(SupervisorContract, ExitCodesAreToldWhole) {
    for (const int code : {0, 1, 127, 255}) {
        const ProcessStatus ended = launchToEnd(specOf(newOwner(), {"exit", std::to_string(code)}));
        ASSERT_TRUE(ended.exit);
        EXPECT_EQ(ended.exit->code, code);
        EXPECT_FALSE(ended.exit->signalled);
    }
}

TEST_P(SupervisorContract, DeathBySignalIsNoExitCode) {
    for (const int signal : {SIGSEGV, SIGABRT, SIGKILL, SIGTERM}) {
        const ProcessStatus ended = launchToEnd(specOf(newOwner(), {"die", std::to_string(signal)}));
        ASSERT_TRUE(ended.exit);
        EXPECT_TRUE(ended.exit->signalled);
        EXPECT_EQ(ended.exit->code, signal);
    }
}

TEST_P(SupervisorContract, TheListenerIsToldOfAnEndOnce) {
    const OwnerTag first = newOwner();
    const OwnerTag second = newOwner();
    launchLingering(first);
    launchLingering(second);
    EXPECT_TRUE(supervisor().signal(first, SIGKILL, "test"));
    const ProcessStatus told = exits().await(first);
    EXPECT_EQ(told.state, ProcessState::Exited);
    EXPECT_EQ(told.exit, supervisor().status(first).exit);
    EXPECT_EQ(exits().count(second), 0U);
    EXPECT_TRUE(supervisor().signal(second, SIGKILL, "test"));
    EXPECT_EQ(exits().await(second).owner, second);
    EXPECT_EQ(exits().count(first), 1U);
}

TEST_P(SupervisorContract, AProgramThatEndsAtOnceIsToldAsWell) {
    const OwnerTag owner = newOwner();
    supervisor().launch(specOf(owner, {"exit", "3"}));
    const ProcessStatus told = exits().await(owner);
    ASSERT_TRUE(told.exit);
    EXPECT_EQ(told.exit->code, 3);
}

TEST_P(SupervisorContract, SignalsReachTheProgramAndOnlyIt) {
    const OwnerTag deaf = newOwner();
    const OwnerTag other = newOwner();
    launchLingering(deaf, {"deaf"});
    launchLingering(other);
    EXPECT_TRUE(supervisor().signal(deaf, SIGTERM, "test"));
    EXPECT_EQ(supervisor().waitExit(deaf, 50ms).state, ProcessState::Running) << "it ignores SIGTERM";
    EXPECT_TRUE(supervisor().signal(deaf, SIGKILL, "test"));
    const ProcessStatus ended = supervisor().waitExit(deaf, patience);
    ASSERT_TRUE(ended.exit);
    EXPECT_EQ(ended.exit->code, SIGKILL);
    EXPECT_EQ(supervisor().status(other).state, ProcessState::Running);
    EXPECT_FALSE(supervisor().signal(deaf, SIGKILL, "test")) << "it has ended";
}

TEST_P(SupervisorContract, WaitExitGivesRunningAtTheTimeout) {
    const OwnerTag owner = newOwner();
    launchLingering(owner);
    EXPECT_EQ(supervisor().waitExit(owner, 0ms).state, ProcessState::Running);
    EXPECT_EQ(supervisor().waitExit(owner, 30ms).state, ProcessState::Running);
}

TEST_P(SupervisorContract, WaitExitEndsWithTheProcess) {
    const OwnerTag owner = newOwner();
    launchLingering(owner);
    auto waiting = std::async(std::launch::async, [&] { return supervisor().waitExit(owner, patience); });
    EXPECT_TRUE(supervisor().signal(owner, SIGTERM, "test"));
    const ProcessStatus ended = waiting.get();
    EXPECT_EQ(ended.state, ProcessState::Exited);
    ASSERT_TRUE(ended.exit);
    EXPECT_EQ(ended.exit->code, SIGTERM);
}

TEST_P(SupervisorContract, ASecondLaunchIsRefusedUntilTheFirstIsForgotten) {
    const OwnerTag owner = newOwner();
    const ProcessStatus first = launchLingering(owner);
    EXPECT_EQ(kindOf([&] { supervisor().launch(specOf(owner, {"linger"})); }), ErrorKind::AlreadyExists);
    EXPECT_EQ(supervisor().status(owner).pid, first.pid) << "the first is untouched";
    EXPECT_EQ(kindOf([&] { supervisor().forget(owner); }), ErrorKind::FailedPrecondition);
    EXPECT_EQ(supervisor().status(owner).state, ProcessState::Running);

    supervisor().signal(owner, SIGKILL, "test");
    EXPECT_EQ(supervisor().waitExit(owner, patience).state, ProcessState::Exited);
    EXPECT_EQ(kindOf([&] { supervisor().launch(specOf(owner, {"linger"})); }), ErrorKind::AlreadyExists);
    supervisor().forget(owner);
    EXPECT_EQ(launchToEnd(specOf(owner, {"say", "again", "exit", "4"})).exit->code, 4);
    EXPECT_THAT(consoleText(owner), AllOf(HasSubstr("ready"), HasSubstr("again"))) << "the console goes on";
}

TEST_P(SupervisorContract, ConsoleHoldsOutputAndErrorsInOrder) {
    const OwnerTag owner = newOwner();
    launchToEnd(specOf(owner, {"say", "one", "complain", "two", "say", "three"}));
    EXPECT_EQ(consoleText(owner), "one\ntwo\nthree\n");
}

TEST_P(SupervisorContract, AProgramThatClosesItsOutputGoesOn) {
    const OwnerTag owner = newOwner();
    const ProcessStatus launched = supervisor().launch(specOf(owner, {"say", "last words", "hush", "linger"}));
    awaitConsole(owner, "last words");
    EXPECT_EQ(supervisor().waitExit(owner, 30ms).state, ProcessState::Running);
    EXPECT_EQ(supervisor().status(owner).pid, launched.pid);
}

TEST_P(SupervisorContract, StandardInputIsEmpty) {
    EXPECT_THAT(linesOf({"read-end"}), ElementsAre("read 0"));
}

TEST_P(SupervisorContract, AFloodStaysBoundedAndItsEndIsKept) {
    constexpr std::uint64_t flood = 50U << 20U;
    constexpr std::uint64_t limit = 1U << 20U;
    const OwnerTag owner = newOwner();
    ProcessSpec spec = specOf(owner, {"flood", std::to_string(flood), "say", "the end"});
    spec.consoleLimit = Bytes{limit};
    ASSERT_EQ(launchToEnd(spec).exit->code, 0);

    std::uint64_t onDisk = 0;
    for (const auto& entry : std::filesystem::directory_iterator(consoleOf(owner).parent_path())) {
        onDisk += entry.file_size();
    }
    EXPECT_LE(onDisk, 2 * limit);
    const std::string text = consoleText(owner);
    EXPECT_GE(text.size(), limit);
    std::vector<std::string> lines = split(text, '\n');
    ASSERT_GT(lines.size(), 3U);
    lines.pop_back();  // after the last newline
    EXPECT_EQ(lines.back(), "the end");
    lines.pop_back();
    lines.erase(lines.begin());  // its beginning may be cut
    long long expected = static_cast<long long>(flood / 64 - lines.size());
    for (const std::string& line : lines) {
        long long number = -1;
        std::from_chars(line.data(), line.data() + line.size(), number);
        ASSERT_EQ(number, expected++) << "something is missing before '" << line << "'";
    }
}

TEST_P(SupervisorContract, EnvironmentIsExactlyWhatIsGiven) {
    const OwnerTag owner = newOwner();
    ProcessSpec spec = specOf(owner, {"show", "env"});
    spec.environment = {"A=1", "EMPTY=", "TEXT=a b=c $HOME \"'"};
    launchToEnd(spec);
    EXPECT_EQ(consoleText(owner), "env A=1\nenv EMPTY=\nenv TEXT=a b=c $HOME \"'\n");
    EXPECT_THAT(linesOf({"show", "env"}), IsEmpty());
}

TEST_P(SupervisorContract, ArgumentsAreWordsAndNeverAShellLine) {
    for (const std::string word : {"a b", "$(exit 9)", "'\"`;|&>*?~#", "", "--", "--uid", "%n%s", "\xc3\xa4\xff"}) {
        EXPECT_THAT(linesOf({"say", word}), ElementsAre(word));
    }
    EXPECT_THAT(linesOf({"say", "two\nlines"}), ElementsAre("two", "lines"));
}

TEST_P(SupervisorContract, NoDescriptorButTheStandardThreeIsInherited) {
    const UniqueFd open = openFile("/dev/zero", O_RDONLY);  // of this process, as a server has many
    const std::vector<std::string> lines = linesOf({"show", "fds"});
    ASSERT_THAT(lines, SizeIs(3));
    EXPECT_EQ(lines[0], "fd 0 /dev/null");
    EXPECT_THAT(lines[1], HasSubstr("fd 1 "));
    EXPECT_THAT(lines[2], HasSubstr("fd 2 "));
}

TEST_P(SupervisorContract, SignalsAreDefaultAndNoneIsBlocked) {
    // As a server that ignores some and blocks others.
    const auto before = ::signal(SIGUSR1, SIG_IGN);
    sigset_t blocked;
    sigset_t old;
    ::sigemptyset(&blocked);
    ::sigaddset(&blocked, SIGTERM);
    ::pthread_sigmask(SIG_BLOCK, &blocked, &old);
    const std::vector<std::string> lines = linesOf({"show", "status"});
    ::pthread_sigmask(SIG_SETMASK, &old, nullptr);
    ::signal(SIGUSR1, before);
    EXPECT_THAT(lines, Contains("SigBlk:\t0000000000000000"));
    EXPECT_THAT(lines, Contains("SigIgn:\t0000000000000000"));
}

TEST_P(SupervisorContract, WorkingDirectoryIsEntered) {
    const OwnerTag owner = newOwner();
    ProcessSpec spec = specOf(owner, {"show", "place"});
    spec.workingDirectory = host().root();
    launchToEnd(spec);
    EXPECT_THAT(consoleText(owner), HasSubstr("cwd " + host().root().string() + "\n"));
}

TEST_P(SupervisorContract, UserAndGroupsAreDroppedWhole) {
    if (!isRoot()) GTEST_SKIP() << "needs root: only root can become another user";
    const OwnerTag owner = newOwner();
    ProcessSpec spec = specOf(owner, {"show", "ids", "show", "status"});
    spec.credentials = {1900000321, 1900000322};
    spec.groups = {54401, 54400};
    launchToEnd(spec);
    const std::vector<std::string> lines = split(consoleText(owner), '\n');
    EXPECT_THAT(lines, Contains("uids 1900000321 1900000321 1900000321"));
    EXPECT_THAT(lines, Contains("gids 1900000322 1900000322 1900000322"));
    EXPECT_THAT(lines, Contains("groups 54400 54401"));
    EXPECT_THAT(lines, Contains("CapEff:\t0000000000000000"));
    EXPECT_THAT(lines, Contains("CapPrm:\t0000000000000000"));
    EXPECT_THAT(lines, Contains("NoNewPrivs:\t1"));
}

TEST_P(SupervisorContract, WithoutSupplementaryGroupsThereAreNone) {
    if (!isRoot()) GTEST_SKIP() << "needs root: only root can become another user";
    const OwnerTag owner = newOwner();
    ProcessSpec spec = specOf(owner, {"show", "ids"});
    spec.credentials = {1900000321, 1900000322};
    launchToEnd(spec);
    EXPECT_THAT(split(consoleText(owner), '\n'), Contains("groups"));
}

TEST_P(SupervisorContract, AnotherUserIsRefusedWithoutRoot) {
    if (isRoot()) GTEST_SKIP() << "needs an ordinary user: root may become anyone";
    const OwnerTag owner = newOwner();
    ProcessSpec spec = specOf(owner, {"exit", "0"});
    spec.credentials.uid += 1;
    EXPECT_EQ(kindOf([&] { supervisor().launch(spec); }), ErrorKind::PermissionDenied);
    EXPECT_EQ(supervisor().status(owner).state, ProcessState::Absent);
}

TEST_P(SupervisorContract, NetworkNamespaceIsEntered) {
    if (!isRoot()) GTEST_SKIP() << "needs root: network namespaces";
    const PrivateNamespace network;
    if (!network.made()) GTEST_SKIP() << "this host does not let us make a network namespace";
    const OwnerTag owner = newOwner();
    ProcessSpec spec = specOf(owner, {"show", "netns"});
    spec.netns = network.handle();
    launchToEnd(spec);
    EXPECT_THAT(split(consoleText(owner), '\n'), ElementsAre("netns " + network.name(), "interface lo", ""));
}

TEST_P(SupervisorContract, AMissingNetworkNamespaceIsNoReasonToRunInTheHosts) {
    if (!isRoot()) GTEST_SKIP() << "needs root: network namespaces";
    const OwnerTag owner = newOwner();
    ProcessSpec spec = specOf(owner, {"linger"});
    spec.netns = host().root() / "no-such-namespace";
    std::string text;
    EXPECT_EQ(kindOf([&] { supervisor().launch(spec); }, &text), ErrorKind::NotFound);
    EXPECT_THAT(text, HasSubstr("no-such-namespace"));
    EXPECT_EQ(supervisor().status(owner).state, ProcessState::Absent);
}

TEST_P(SupervisorContract, TapsComeOpenUnderTheNumbersAskedFor) {
    if (!isRoot()) GTEST_SKIP() << "needs root: network namespaces";
    const PrivateNamespace network({"tap-a", "tap-b"});
    if (!network.made()) GTEST_SKIP() << "this host does not let us make a network namespace with taps";
    const OwnerTag owner = newOwner();
    ProcessSpec spec = specOf(owner, {"show", "fds", "ready", "linger"});
    spec.netns = network.handle();
    spec.taps = {{IfName::parse("tap-b"), 5}, {IfName::parse("tap-a"), 3}};
    spec.credentials = {1900000321, 1900000322};
    const ProcessStatus launched = supervisor().launch(spec);
    awaitConsole(owner, "ready");
    std::vector<std::string> lines = split(consoleText(owner), '\n');
    lines.resize(lines.size() - 2);  // "ready", and after its newline
    EXPECT_THAT(lines, ElementsAre("fd 0 /dev/null", HasSubstr("fd 1 "), HasSubstr("fd 2 "), "fd 3 /dev/net/tun",
                                   "fd 5 /dev/net/tun"));
    const std::string info = "/proc/" + std::to_string(launched.pid) + "/fdinfo/";
    EXPECT_THAT(readFile(info + "3", 4096).value_or(""), HasSubstr("iff:\ttap-a\n"));
    EXPECT_THAT(readFile(info + "5", 4096).value_or(""), HasSubstr("iff:\ttap-b\n"));

    // Held by the VMM alone: when it has ended, another can have them.
    supervisor().signal(owner, SIGKILL, "test");
    supervisor().waitExit(owner, patience);
    supervisor().forget(owner);
    spec.arguments = specOf(owner, {"exit", "0"}).arguments;
    EXPECT_EQ(launchToEnd(spec).exit->code, 0);
}

TEST_P(SupervisorContract, ATapThatSomebodyHoldsForAMomentIsAwaited) {
    if (!isRoot()) GTEST_SKIP() << "needs root: network namespaces";
    const PrivateNamespace network({"tap-a"});
    if (!network.made()) GTEST_SKIP() << "this host does not let us make a network namespace with taps";
    ProcessSpec spec = specOf(newOwner(), {"exit", "0"});
    spec.netns = network.handle();
    spec.taps = {{IfName::parse("tap-a"), 3}};
    // As a child that is being started has a copy of whatever its parent had open.
    std::promise<bool> held;
    const std::jthread holder([&] {
        const UniqueFd tap = network.attachTo("tap-a");
        held.set_value(static_cast<bool>(tap));
        ::poll(nullptr, 0, 100);
    });
    ASSERT_TRUE(held.get_future().get());
    const ProcessStatus ended = launchToEnd(spec);
    ASSERT_TRUE(ended.exit);
    EXPECT_EQ(ended.exit->code, 0);
}

TEST_P(SupervisorContract, AMissingTapIsNotMade) {
    if (!isRoot()) GTEST_SKIP() << "needs root: network namespaces";
    const PrivateNamespace network;
    if (!network.made()) GTEST_SKIP() << "this host does not let us make a network namespace";
    const OwnerTag owner = newOwner();
    ProcessSpec spec = specOf(owner, {"linger"});
    spec.netns = network.handle();
    spec.taps = {{IfName::parse("tap-none"), 3}};
    std::string text;
    EXPECT_EQ(kindOf([&] { supervisor().launch(spec); }, &text), ErrorKind::NotFound);
    EXPECT_THAT(text, HasSubstr("tap-none"));
    EXPECT_EQ(supervisor().status(owner).state, ProcessState::Absent);
    spec.taps.clear();
    spec.arguments = specOf(owner, {"show", "netns"}).arguments;
    launchToEnd(spec);
    EXPECT_THAT(consoleText(owner), Not(HasSubstr("tap-none")));
}

TEST_P(SupervisorContract, WhatCannotBeExecutedIsNamedAndLeavesNothing) {
    const std::filesystem::path plain = host().root() / "plain-file";
    writeFileAtomically(plain, "no program", 0644);
    const std::filesystem::path nonsense = host().root() / "nonsense";
    writeFileAtomically(nonsense, "no program", 0755);

    struct Case {
        std::string what;
        std::function<void(ProcessSpec&)> spoil;
        ErrorKind kind;
        std::string text;
    };
    const std::vector<Case> cases{
        {"program missing", [&](ProcessSpec& s) { s.arguments[0] = "/nonexistent/vmm"; }, ErrorKind::NotFound,
         "/nonexistent/vmm"},
        {"program not executable", [&](ProcessSpec& s) { s.arguments[0] = plain.string(); },
         ErrorKind::PermissionDenied, plain.string()},
        {"program a folder", [&](ProcessSpec& s) { s.arguments[0] = "/proc"; }, ErrorKind::PermissionDenied, "/proc"},
        {"program no program", [&](ProcessSpec& s) { s.arguments[0] = nonsense.string(); }, ErrorKind::Internal,
         nonsense.string()},
        {"program relative", [&](ProcessSpec& s) { s.arguments[0] = "vmm"; }, ErrorKind::InvalidArgument, "vmm"},
        {"no program", [&](ProcessSpec& s) { s.arguments.clear(); }, ErrorKind::InvalidArgument, "program"},
        {"NUL", [&](ProcessSpec& s) { s.arguments.emplace_back("a\0b", 3); }, ErrorKind::InvalidArgument, "NUL"},
        {"environment", [&](ProcessSpec& s) { s.environment = {"PATH"}; }, ErrorKind::InvalidArgument, "PATH"},
        {"folder missing", [&](ProcessSpec& s) { s.workingDirectory = "/nonexistent/cwd"; }, ErrorKind::NotFound,
         "/nonexistent/cwd"},
        {"folder relative", [&](ProcessSpec& s) { s.workingDirectory = "cwd"; }, ErrorKind::InvalidArgument, "cwd"},
        {"console's folder missing", [&](ProcessSpec& s) { s.console = "/nonexistent/console"; }, ErrorKind::NotFound,
         "/nonexistent"},
        {"no console limit", [&](ProcessSpec& s) { s.consoleLimit = Bytes{0}; }, ErrorKind::InvalidArgument, "limit"},
        {"namespace missing", [&](ProcessSpec& s) { s.netns = "/nonexistent/netns"; }, ErrorKind::NotFound,
         "/nonexistent/netns"},
        {"tap at a standard descriptor",
         [&](ProcessSpec& s) {
             s.taps = {{IfName::parse("tap-a"), 2}};
         },
         ErrorKind::InvalidArgument, "tap-a"},
        {"two taps at one number",
         [&](ProcessSpec& s) {
             s.taps = {{IfName::parse("tap-a"), 3}, {IfName::parse("tap-b"), 3}};
         },
         ErrorKind::InvalidArgument, "tap-b"},
        {"another instance's", [&](ProcessSpec& s) { s.owner.instance = "ffffffff"; }, ErrorKind::InvalidArgument,
         "ffffffff"},
    };
    const OwnerTag owner = newOwner();
    for (const Case& one : cases) {
        SCOPED_TRACE(one.what);
        ProcessSpec spec = specOf(owner, {"linger"});
        one.spoil(spec);
        std::string text;
        EXPECT_EQ(kindOf([&] { supervisor().launch(spec); }, &text), one.kind) << text;
        EXPECT_THAT(text, HasSubstr(one.text));
        EXPECT_EQ(supervisor().status(owner).state, ProcessState::Absent);
        EXPECT_THAT(processesOf(owner), IsEmpty());
    }
    EXPECT_THAT(supervisor().list(), IsEmpty());
    EXPECT_EQ(exits().count(owner), 0U) << "what never ran does not end";
    EXPECT_EQ(launchToEnd(specOf(owner, {"exit", "6"})).exit->code, 6) << "a failed launch is no hindrance";
}

TEST_P(SupervisorContract, NothingThatItMadeOutlivesIt) {
    const OwnerTag owner = newOwner();
    launchLingering(owner, {"descend"});
    const std::string text = consoleText(owner);
    const std::size_t at = text.find("descendant ");
    ASSERT_NE(at, std::string::npos) << text;
    const pid_t descendant = std::stoi(text.substr(at + 11));
    EXPECT_TRUE(ProcessIdentity::of(descendant)) << "its own session, its own parent gone";
    EXPECT_TRUE(supervisor().signal(owner, SIGKILL, "test"));
    EXPECT_EQ(supervisor().waitExit(owner, patience).state, ProcessState::Exited);
    EXPECT_FALSE(ProcessIdentity::of(descendant));
}

/// Names the process-id namespace of a process.
std::string pidNamespaceOf(pid_t pid) {
    return std::filesystem::read_symlink("/proc/" + std::to_string(pid) + "/ns/pid").string();
}

TEST_P(SupervisorContract, APidNamespaceOfItsOwnHidesTheHostAndLeavesStatusAndSignalsAsTheyAre) {
    if (!isRoot()) GTEST_SKIP() << "needs root: process-id namespaces";
    const OwnerTag owner = newOwner();
    ProcessSpec spec = specOf(owner, {"ready", "linger"});
    spec.pidNamespace = true;
    const ProcessStatus launched = supervisor().launch(spec);
    awaitConsole(owner, "ready");
    // 1 is init's, and a thread that a sanitizer starts before the program has a number, too.
    EXPECT_THAT(consoleText(owner), ::testing::MatchesRegex("ready [2-9]\n"));
    EXPECT_NE(pidNamespaceOf(launched.pid), pidNamespaceOf(::getpid()));
    restart();
    EXPECT_EQ(supervisor().status(owner).pid, launched.pid) << "a new server knows it by the host's number";
    EXPECT_TRUE(supervisor().signal(owner, SIGTERM, "test"));
    const ProcessStatus ended = supervisor().waitExit(owner, patience);
    ASSERT_TRUE(ended.exit) << ended.note;
    EXPECT_TRUE(ended.exit->signalled);
    EXPECT_EQ(ended.exit->code, SIGTERM);
}

TEST_P(SupervisorContract, NothingInAPidNamespaceOutlivesTheProgram) {
    if (!isRoot()) GTEST_SKIP() << "needs root: process-id namespaces";
    const OwnerTag owner = newOwner();
    ProcessSpec spec = specOf(owner, {"descend", "exit", "4"});
    spec.pidNamespace = true;
    EXPECT_EQ(launchToEnd(spec).exit->code, 4);
    EXPECT_THAT(consoleText(owner), HasSubstr("descendant "));
    EXPECT_THAT(processesOf(owner), ::testing::IsEmpty());
}

TEST_P(SupervisorContract, ARestartHasAPidNamespaceOfItsOwnAgain) {
    if (!isRoot()) GTEST_SKIP() << "needs root: process-id namespaces";
    const OwnerTag owner = newOwner();
    ProcessSpec spec = specOf(owner, {"ready", "linger"});
    spec.pidNamespace = true;
    spec.restart = {.policy = RestartPolicy::OnFailure,
                    .arguments = specOf(owner, {"say", "again", "ready", "linger"}).arguments};
    const ProcessStatus first = supervisor().launch(spec);
    awaitConsole(owner, "ready ");
    supervisor().permitRestarts(owner, true);
    ASSERT_EQ(::kill(first.pid, SIGKILL), 0);
    awaitConsole(owner, "again\nready ");
    const ProcessStatus second = supervisor().status(owner);
    EXPECT_NE(second.pid, first.pid);
    EXPECT_NE(pidNamespaceOf(second.pid), pidNamespaceOf(::getpid()));
}

TEST_P(SupervisorContract, ListGivesTheRunningAndTheEnded) {
    std::vector<OwnerTag> owners;
    for (int i = 0; i < 4; ++i) owners.push_back(newOwner());
    launchLingering(owners[0]);
    launchToEnd(specOf(owners[1], {"exit", "1"}));
    launchLingering(owners[2]);
    launchToEnd(specOf(owners[3], {"exit", "0"}));
    supervisor().forget(owners[3]);
    std::map<OwnerTag, ProcessState> seen;
    for (const ProcessStatus& status : supervisor().list()) seen[status.owner] = status.state;
    EXPECT_EQ(seen, (std::map<OwnerTag, ProcessState>{{owners[0], ProcessState::Running},
                                                      {owners[1], ProcessState::Exited},
                                                      {owners[2], ProcessState::Running}}));
}

TEST_P(SupervisorContract, VmsDoNotWaitForEachOther) {
    std::vector<OwnerTag> owners;
    for (int i = 0; i < 24; ++i) owners.push_back(newOwner());
    std::vector<std::thread> threads;
    for (std::size_t worker = 0; worker < 8; ++worker) {
        threads.emplace_back([&, worker] {
            for (std::size_t at = worker; at < owners.size(); at += 8) {
                try {
                    supervisor().launch(specOf(owners[at], {"linger"}));
                    EXPECT_EQ(supervisor().status(owners[at]).state, ProcessState::Running);
                    EXPECT_TRUE(supervisor().signal(owners[at], SIGKILL, "test"));
                    const ProcessStatus ended = supervisor().waitExit(owners[at], patience);
                    EXPECT_EQ(ended.exit ? ended.exit->code : -1, SIGKILL) << ended.note;
                    supervisor().forget(owners[at]);
                } catch (const Error& error) {
                    ADD_FAILURE() << error.what();
                }
            }
        });
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_THAT(supervisor().list(), IsEmpty());
}

TEST_P(SupervisorContract, StopMayComeTwiceAndLeavesProcessesAlone) {
    if (!supervisor().traits().survivesServer) GTEST_SKIP() << "processes of this backend end with the server";
    const OwnerTag owner = newOwner();
    const ProcessStatus launched = launchLingering(owner);
    supervisor().stop();
    supervisor().stop();
    EXPECT_EQ(ProcessIdentity::of(launched.pid)->pid, launched.pid);
    restart();
    EXPECT_EQ(supervisor().status(owner).pid, launched.pid);
}

TEST_P(SupervisorContract, ANewServerAdoptsWhatRuns) {
    if (!supervisor().traits().survivesServer) GTEST_SKIP() << "processes of this backend end with the server";
    const OwnerTag owner = newOwner();
    const ProcessStatus launched = launchLingering(owner);
    restart();
    ASSERT_THAT(supervisor().list(), SizeIs(1));
    EXPECT_EQ(supervisor().list().front().owner, owner);
    EXPECT_EQ(supervisor().list().front().pid, launched.pid);
    EXPECT_EQ(kindOf([&] { supervisor().launch(specOf(owner, {"linger"})); }), ErrorKind::AlreadyExists);
    EXPECT_EQ(kindOf([&] { supervisor().forget(owner); }), ErrorKind::FailedPrecondition);
    EXPECT_TRUE(supervisor().signal(owner, SIGTERM, "test"));
    const ProcessStatus told = exits().await(owner);
    ASSERT_TRUE(told.exit);
    EXPECT_EQ(told.exit->code, SIGTERM);
}

TEST_P(SupervisorContract, ANewServerKnowsHowThoseEndedThatEndedMeanwhile) {
    if (!supervisor().traits().survivesServer) GTEST_SKIP() << "processes of this backend end with the server";
    constexpr int flood = 4 << 20;
    const OwnerTag owner = newOwner();
    ProcessSpec spec = specOf(owner, {"flood", std::to_string(flood), "say", "the end", "exit", "5"});
    spec.consoleLimit = Bytes{16U << 20U};
    const pid_t pid = supervisor().launch(spec).pid;
    stopServer();
    if (pid > 0) {
        ASSERT_TRUE(endsInTime(pid));
    }
    startServer();
    const ProcessStatus ended = supervisor().waitExit(owner, patience);
    ASSERT_TRUE(ended.exit) << ended.note;
    EXPECT_EQ(ended.exit->code, 5);
    const std::string text = consoleText(owner);
    EXPECT_EQ(text.size(), static_cast<std::size_t>(flood) + 8) << "nothing of the console is lost";
    EXPECT_TRUE(text.ends_with("the end\n"));
}

TEST_P(SupervisorContract, WhoSentTheSignalThatEndedItIsKept) {
    const OwnerTag ours = newOwner();
    const OwnerTag theirs = newOwner();
    const OwnerTag polite = newOwner();
    launchLingering(ours);
    const pid_t pid = launchLingering(theirs).pid;
    launchLingering(polite, {"obey"});
    EXPECT_TRUE(supervisor().signal(ours, SIGKILL, "stop"));
    ASSERT_EQ(::kill(pid, SIGKILL), 0);
    EXPECT_TRUE(supervisor().signal(polite, SIGTERM, "delete"));
    EXPECT_EQ(supervisor().waitExit(ours, patience).sent, (SentSignal{SIGKILL, "stop"}));
    EXPECT_EQ(supervisor().waitExit(theirs, patience).sent, std::nullopt) << "it came from elsewhere";
    const ProcessStatus obeyed = supervisor().waitExit(polite, patience);
    EXPECT_EQ(obeyed.exit->code, 0);
    EXPECT_EQ(obeyed.sent, (SentSignal{SIGTERM, "delete"})) << "it ended by itself, but because of a signal";
    if (!supervisor().traits().survivesServer) return;
    restart();
    EXPECT_EQ(supervisor().status(ours).sent, (SentSignal{SIGKILL, "stop"}));
}

TEST_P(SupervisorContract, ASignalIsSentByAWordOnly) {
    const OwnerTag owner = newOwner();
    launchLingering(owner);
    for (const std::string by : {"", "two words", "a\nline", "Stop"}) {
        EXPECT_EQ(kindOf([&] { supervisor().signal(owner, SIGTERM, by); }), ErrorKind::InvalidArgument) << by;
    }
    EXPECT_EQ(supervisor().status(owner).state, ProcessState::Running);
}

TEST_P(SupervisorContract, AFailureIsFollowedByARestartThatIsToldAndCounted) {
    const OwnerTag owner = newOwner();
    const pid_t first =
        launchRestarting(owner, {.policy = RestartPolicy::OnFailure}, {}, {"ready", "say", "again", "linger"}).pid;
    EXPECT_EQ(supervisor().status(owner).restarts, 0U);
    EXPECT_THAT(supervisor().pastRuns(owner), IsEmpty());
    ASSERT_EQ(::kill(first, SIGKILL), 0);
    exits().awaitRestart(owner, [&] { return supervisor().status(owner).restarts == 1; });
    awaitConsole(owner, "again");
    const ProcessStatus second = supervisor().status(owner);
    EXPECT_EQ(second.state, ProcessState::Running);
    EXPECT_NE(second.pid, first);
    EXPECT_THAT(consoleText(owner), HasSubstr("ready " + std::to_string(second.pid)));
    ASSERT_THAT(supervisor().pastRuns(owner), SizeIs(1));
    const PastRun run = supervisor().pastRuns(owner).front();
    EXPECT_EQ(run.number, 1U);
    EXPECT_TRUE(run.exit.signalled);
    EXPECT_EQ(run.exit.code, SIGKILL);
    EXPECT_EQ(run.sent, std::nullopt);
    EXPECT_EQ(run.attempt, 1U);
    ASSERT_TRUE(run.restartedAt);
    EXPECT_GE(*run.restartedAt, run.exit.at);
    EXPECT_EQ(exits().count(owner), 0U) << "it has not ended for good";
}

TEST_P(SupervisorContract, ASuccessIsFollowedByARestartOnlyIfThePolicyIsAlways) {
    const OwnerTag onFailure = newOwner();
    launchRestarting(onFailure, {.policy = RestartPolicy::OnFailure}, {"obey"}, {"exit", "9"});
    EXPECT_TRUE(supervisor().signal(onFailure, SIGTERM, "test"));
    EXPECT_EQ(supervisor().waitExit(onFailure, patience).exit->code, 0);
    EXPECT_EQ(supervisor().status(onFailure).restarts, 0U);
    EXPECT_FALSE(supervisor().status(onFailure).exhausted);

    const OwnerTag always = newOwner();
    launchRestarting(always, {.policy = RestartPolicy::Always, .maxRestarts = 1}, {"obey"},
                     {"say", "again", "exit", "0"});
    EXPECT_TRUE(supervisor().signal(always, SIGTERM, "test"));
    const ProcessStatus ended = supervisor().waitExit(always, patience);
    EXPECT_EQ(ended.exit->code, 0);
    EXPECT_EQ(ended.restarts, 1U);
    EXPECT_TRUE(ended.exhausted);
    EXPECT_THAT(consoleText(always), HasSubstr("again"));
}

TEST_P(SupervisorContract, AnEndOfTheGuestsOwnAfterAPanicIsAFailure) {
    const std::string said = "Kernel panic - not syncing: Attempted to kill init!";
    const OwnerTag owner = newOwner();
    // SIGTERM of ours, not sent through the backend: to that the probe ends by itself.
    const pid_t first = launchRestarting(owner, {.policy = RestartPolicy::OnFailure},
                                         {"say", "[    1.1] " + said, "obey"}, {"obey", "say", "again", "linger"})
                            .pid;
    ASSERT_EQ(::kill(first, SIGTERM), 0);
    exits().awaitRestart(owner, [&] { return supervisor().status(owner).restarts == 1; });
    ASSERT_THAT(supervisor().pastRuns(owner), SizeIs(1));
    const PastRun run = supervisor().pastRuns(owner).front();
    EXPECT_EQ(run.exit.code, 0);
    EXPECT_FALSE(run.exit.signalled);
    EXPECT_EQ(run.panic, said);
    awaitConsole(owner, "again");
    // What an earlier run printed says nothing of this one.
    ASSERT_EQ(::kill(supervisor().status(owner).pid, SIGTERM), 0);
    const ProcessStatus ended = supervisor().waitExit(owner, patience);
    EXPECT_EQ(ended.exit->code, 0);
    EXPECT_EQ(ended.panic, "");
    EXPECT_EQ(ended.restarts, 1U);
}

TEST_P(SupervisorContract, APanicIsToldOfAnEndThatNothingFollows) {
    const ProcessStatus panicked =
        launchToEnd(specOf(newOwner(), {"say", "Kernel panic - not syncing: Oops", "exit", "0"}));
    EXPECT_EQ(panicked.panic, "Kernel panic - not syncing: Oops");
    const ProcessStatus failed =
        launchToEnd(specOf(newOwner(), {"say", "Kernel panic - not syncing: Oops", "exit", "1"}));
    EXPECT_EQ(failed.panic, "") << "the VMM's own failure says more";
    EXPECT_EQ(launchToEnd(specOf(newOwner(), {"say", "fine", "exit", "0"})).panic, "");
}

TEST_P(SupervisorContract, RestartsInARowComeEverMoreSlowlyAndEndWhenTheyAreUsedUp) {
    const OwnerTag owner = newOwner();
    launchRestarting(owner, {.policy = RestartPolicy::OnFailure, .maxRestarts = 4}, {}, {"exit", "1"});
    EXPECT_TRUE(supervisor().signal(owner, SIGKILL, "test"));
    const ProcessStatus ended = supervisor().waitExit(owner, patience);
    EXPECT_EQ(ended.exit->code, 1);
    EXPECT_EQ(ended.restarts, 4U);
    EXPECT_TRUE(ended.exhausted);
    const std::vector<PastRun> runs = supervisor().pastRuns(owner);
    ASSERT_THAT(runs, SizeIs(4));
    for (std::size_t i = 0; i < runs.size(); ++i) {
        EXPECT_EQ(runs[i].number, i + 1);
        EXPECT_EQ(runs[i].attempt, i + 1);
        if (i > 0) {
            EXPECT_GE(runs[i].delay, runs[i - 1].delay);
        }
    }
    EXPECT_GT(runs.back().delay, runs.front().delay);
    EXPECT_EQ(exits().await(owner).restarts, 4U);
    EXPECT_EQ(exits().count(owner), 1U);
}

TEST_P(SupervisorContract, NothingIsRestartedBeforeItIsPermitted) {
    const OwnerTag owner = newOwner();
    ProcessSpec spec = specOf(owner, {"exit", "1"});
    spec.restart = {.policy = RestartPolicy::Always, .arguments = spec.arguments};
    EXPECT_EQ(launchToEnd(spec).restarts, 0U);
    supervisor().permitRestarts(owner, true);
    EXPECT_EQ(supervisor().status(owner).state, ProcessState::Exited) << "what has ended stays so";
}

TEST_P(SupervisorContract, NothingIsRestartedAfterItIsForbidden) {
    const OwnerTag owner = newOwner();
    launchRestarting(owner, {.policy = RestartPolicy::Always}, {}, {"exit", "1"});
    supervisor().permitRestarts(owner, false);
    supervisor().permitRestarts(owner, false);  // again: nothing
    EXPECT_TRUE(supervisor().signal(owner, SIGKILL, "stop"));
    const ProcessStatus ended = supervisor().waitExit(owner, patience);
    EXPECT_EQ(ended.exit->code, SIGKILL);
    EXPECT_EQ(ended.restarts, 0U);
    EXPECT_FALSE(ended.exhausted);
    supervisor().permitRestarts(newOwner(), true);  // nobody's: nothing
}

TEST_P(SupervisorContract, FilesThatWouldHinderTheNextRunAreRemovedBeforeIt) {
    const OwnerTag owner = newOwner();
    const std::filesystem::path stale = host().root() / "stale";
    writeFileAtomically(stale, "left", 0600);
    launchRestarting(owner, {.policy = RestartPolicy::OnFailure, .maxRestarts = 1, .stale = {stale}}, {},
                     {"exit", "0"});
    EXPECT_TRUE(std::filesystem::exists(stale));
    EXPECT_TRUE(supervisor().signal(owner, SIGKILL, "test"));
    EXPECT_EQ(supervisor().waitExit(owner, patience).exit->code, 0);
    EXPECT_FALSE(std::filesystem::exists(stale));
}

TEST_P(SupervisorContract, ANextRunThatCannotBeExecutedIsAFailedOne) {
    const OwnerTag owner = newOwner();
    ProcessSpec spec = specOf(owner, {"ready", "linger"});
    spec.restart = {.policy = RestartPolicy::OnFailure, .maxRestarts = 2, .arguments = {"/nonexistent/vmm"}};
    const pid_t pid = supervisor().launch(spec).pid;
    supervisor().permitRestarts(owner, true);
    ASSERT_EQ(::kill(pid, SIGKILL), 0);
    const ProcessStatus ended = supervisor().waitExit(owner, patience);
    EXPECT_EQ(ended.exit->code, 127);
    EXPECT_THAT(ended.note, HasSubstr("/nonexistent/vmm"));
    EXPECT_TRUE(ended.exhausted);
    ASSERT_THAT(supervisor().pastRuns(owner), SizeIs(2));
    EXPECT_THAT(supervisor().pastRuns(owner).back().note, HasSubstr("/nonexistent/vmm"));
}

TEST_P(SupervisorContract, RestartsGoOnWithoutAServerAndTheNextOneKnowsOfThem) {
    if (!supervisor().traits().survivesServer) GTEST_SKIP() << "processes of this backend end with the server";
    const OwnerTag owner = newOwner();
    const pid_t first = launchRestarting(owner, {.policy = RestartPolicy::Always}, {}, {"ready", "linger"}).pid;
    stopServer();
    ASSERT_EQ(::kill(first, SIGKILL), 0);
    awaitConsole(owner, [](const std::string& text) { return text.find("ready", 1) != std::string::npos; });
    startServer();
    ASSERT_THAT(supervisor().list(), SizeIs(1));
    const ProcessStatus second = supervisor().list().front();
    EXPECT_EQ(second.state, ProcessState::Running);
    EXPECT_EQ(second.restarts, 1U);
    ASSERT_THAT(supervisor().pastRuns(owner), SizeIs(1));
    EXPECT_EQ(supervisor().pastRuns(owner).front().exit.code, SIGKILL);
    EXPECT_TRUE(supervisor().pastRuns(owner).front().restartedAt);

    ASSERT_EQ(::kill(second.pid, SIGKILL), 0);
    exits().awaitRestart(owner, [&] { return supervisor().status(owner).restarts == 2; });
}

}  // namespace mergen
