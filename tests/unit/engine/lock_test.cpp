// The lock file of a VM: against programs beside this server.
#include <algorithm>
#include <array>
#include <atomic>
#include <cstdlib>
#include <fcntl.h>
#include <fstream>
#include <grp.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

#include <mergen/base/fd.hpp>
#include <mergen/base/file.hpp>

#include "vm_lock.hpp"
#include "world.hpp"

namespace mergen::engine::test {
namespace {

namespace fs = std::filesystem;

class Folder {
public:
    Folder() {
        std::string pattern = fs::temp_directory_path() / "mergen-lock-XXXXXX";
        path = ::mkdtemp(pattern.data());
    }
    ~Folder() { static_cast<void>(removeTree(path)); }
    Folder(const Folder&) = delete;
    Folder& operator=(const Folder&) = delete;
    fs::path path;
};

/// What another program has when it holds the file. To flock(2) every open file is a holder of its own, so it need not
/// be another process.
UniqueFd hold(const fs::path& file) {
    UniqueFd fd(::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    EXPECT_EQ(::flock(fd.get(), LOCK_EX | LOCK_NB), 0) << file;
    return fd;
}

bool isFree(const fs::path& file) {
    const UniqueFd fd(::open(file.c_str(), O_RDONLY | O_CLOEXEC));
    return fd && ::flock(fd.get(), LOCK_SH | LOCK_NB) == 0;
}

/// A process that does `work` and then holds on until it is ended; its exit status if `work` gives one but 0.
class Child {
public:
    explicit Child(const std::function<int()>& work) {
        std::array<int, 2> ends{};
        EXPECT_EQ(::pipe2(ends.data(), O_CLOEXEC), 0);
        pid_ = ::fork();
        if (pid_ == 0) {
            const int status = work();
            if (status != 0) ::_exit(status);
            static_cast<void>(!::write(ends[1], "x", 1));
            for (;;) ::pause();
        }
        ::close(ends[1]);
        char ready = 0;
        ready_ = ::read(ends[0], &ready, 1) == 1;
        ::close(ends[0]);
    }
    ~Child() { end(); }
    Child(const Child&) = delete;
    Child& operator=(const Child&) = delete;
    [[nodiscard]] bool ready() const { return ready_; }
    [[nodiscard]] pid_t pid() const { return pid_; }
    int end() {
        if (pid_ <= 0) return status_;
        ::kill(pid_, SIGKILL);
        ::waitpid(pid_, &status_, 0);
        pid_ = -1;
        return status_;
    }

private:
    pid_t pid_ = -1;
    int status_ = 0;
    bool ready_ = false;
};

std::string refusal(const std::function<void()>& call, ErrorKind kind = ErrorKind::Conflict) {
    try {
        call();
    } catch (const Error& error) {
        EXPECT_EQ(error.kind(), kind) << error.what();
        return error.what();
    }
    ADD_FAILURE() << "nothing was refused";
    return {};
}

TEST(VmLock, IsPlainAndOfOwnersModeAndTellsItsOwner) {
    const Folder folder;
    const fs::path file = folder.path / "web.lock";
    {
        const VmLock lock(file, "mergen:0a1b2c3d:x");
        EXPECT_FALSE(isFree(file));
        struct stat status {};
        ASSERT_EQ(::lstat(file.c_str(), &status), 0);
        EXPECT_EQ(status.st_mode, static_cast<mode_t>(S_IFREG | 0640));
        EXPECT_EQ(status.st_uid, ::geteuid());
        EXPECT_EQ(contentOf(file), "mergen:0a1b2c3d:x\n");
    }
    EXPECT_TRUE(isFree(file));
    // One that an operator made, and everybody could read: whoever can read it can lock it.
    static_cast<void>(hold(folder.path / "db.lock"));
    ASSERT_EQ(::chmod((folder.path / "db.lock").c_str(), 0666), 0);
    const VmLock lock(folder.path / "db.lock", "me");
    struct stat status {};
    ASSERT_EQ(::lstat((folder.path / "db.lock").c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 07777U, 0640U);
}

TEST(VmLock, HeldByAnotherProcessIsRefusedWithItsPidAndFreeWhenThatEnds) {
    const Folder folder;
    const fs::path file = folder.path / "web.lock";
    Child child([&] {
        const int fd = ::open(file.c_str(), O_RDWR | O_CREAT, 0600);
        return ::flock(fd, LOCK_EX | LOCK_NB) == 0 ? 0 : 1;
    });
    ASSERT_TRUE(child.ready());
    const std::string text = refusal([&] { const VmLock lock(file, "me"); });
    EXPECT_NE(text.find(file.string()), std::string::npos) << text;
    EXPECT_NE(text.find("process " + std::to_string(child.pid()) + " ("), std::string::npos) << text;
    EXPECT_EQ(contentOf(file), "") << "nothing is written into what another holds";
    child.end();
    const VmLock lock(file, "me");
}

TEST(VmLock, IsNotInheritedByAProgramThatIsStartedMeanwhile) {
    const Folder folder;
    const fs::path list = folder.path / "list";
    {
        const VmLock lock(folder.path / "web.lock", "me");
        const UniqueFd output(::open(list.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
        const pid_t pid = ::fork();
        if (pid == 0) {  // not by spawn(), which closes all that it is not told to keep
            ::dup2(output.get(), STDOUT_FILENO);
            ::execl("/bin/ls", "ls", "-l", "/proc/self/fd", nullptr);
            ::_exit(127);
        }
        int status = -1;
        ASSERT_EQ(::waitpid(pid, &status, 0), pid);
        ASSERT_EQ(status, 0);
    }
    EXPECT_NE(contentOf(list).find("list"), std::string::npos) << "its own output is there";
    EXPECT_EQ(contentOf(list).find("web.lock"), std::string::npos) << contentOf(list);
}

TEST(VmLock, IsGivenBackAlsoWhereAForkedProcessStillHasTheDescriptor) {
    const Folder folder;
    std::optional<VmLock> lock;
    lock.emplace(folder.path / "web.lock", "me");
    const Child child([] { return 0; });  // forked, not executed: it has all that we have
    ASSERT_TRUE(child.ready());
    lock.reset();
    EXPECT_TRUE(isFree(folder.path / "web.lock"));
}

TEST(VmLock, WhatIsNoPlainFileIsRefusedAtOnceAndALinkIsNotFollowed) {
    const Folder folder;
    std::ofstream(folder.path / "precious") << "keep";
    fs::create_symlink(folder.path / "precious", folder.path / "link.lock");
    ASSERT_EQ(::mkfifo((folder.path / "fifo.lock").c_str(), 0600), 0);
    fs::create_directory(folder.path / "folder.lock");
    for (const char* name : {"link.lock", "folder.lock", "fifo.lock"}) {
        EXPECT_THROW(VmLock(folder.path / name, "me"), Error) << name;
    }
    EXPECT_EQ(contentOf(folder.path / "precious"), "keep");
}

TEST(VmLock, ExcludesThoseThatTakeItWhileOthersRemoveIt) {
    const Folder folder;
    const fs::path file = folder.path / "web.lock";
    std::atomic<int> inside{0}, together{0}, taken{0};
    {
        std::vector<std::jthread> threads;
        for (int i = 0; i < 4; ++i) {
            threads.emplace_back([&] {
                for (int round = 0; round < 500; ++round) {
                    try {
                        VmLock lock(file, "me");
                        if (++inside != 1) ++together;
                        ++taken;
                        std::this_thread::yield();
                        --inside;
                        lock.remove();
                    } catch (const Error& error) {
                        EXPECT_EQ(error.kind(), ErrorKind::Conflict) << error.what();
                    }
                }
            });
        }
    }
    EXPECT_EQ(together, 0);
    EXPECT_GT(taken, 0);
    EXPECT_FALSE(fs::exists(file));
}

TEST(VmLock, CannotBeTakenByTheUserOfAVm) {
    if (::geteuid() != 0) GTEST_SKIP() << "needs root, to be another user for a while";
    const Folder folder;
    ASSERT_EQ(::chmod(folder.path.c_str(), 0711), 0);
    const fs::path file = folder.path / "web.lock";
    { const VmLock lock(file, "me"); }
    Child child([&] {
        constexpr id_t user = 1900000000;
        if (::setgroups(0, nullptr) != 0 || ::setresgid(user, user, user) != 0 || ::setresuid(user, user, user) != 0)
            return 2;
        return ::open(file.c_str(), O_RDONLY) < 0 && errno == EACCES ? 3 : 4;
    });
    ASSERT_FALSE(child.ready());
    EXPECT_EQ(WEXITSTATUS(child.end()), 3) << "3: refused, as it must be";
}

TEST(LockedVm, EveryChangeIsRefusedAndChangesNothingUntilItIsFree) {
    World world;
    const auto engine = world.boot();
    CreateRequest request = world.request();
    request.id = RecordId::parse("web");
    const VmView vm = engine->create(request).vm;
    EXPECT_TRUE(fs::exists(vm.paths.lock));
    const auto refused = [&](const std::function<void()>& call) {
        const auto records = world.records;
        const UniqueFd holder = hold(vm.paths.lock);
        const std::string text = refusal(call);
        EXPECT_NE(text.find("VM 'web' is locked: "), std::string::npos) << text;
        EXPECT_NE(text.find(std::to_string(::getpid())), std::string::npos) << text;
        EXPECT_EQ(world.records.at("web").revision, records.at("web").revision);
        EXPECT_EQ(world.contradictions(*engine), "");
        EXPECT_EQ(engine->get("web").id, "web") << "and reading needs no lock";
    };
    refused([&] { engine->start("web"); });
    EXPECT_EQ(engine->start("web").state, VmState::Running);
    EXPECT_TRUE(isFree(vm.paths.lock)) << "held for the operation, not for the life of the VM";
    refused([&] { engine->stop("web"); });
    EXPECT_EQ(engine->get("web").state, VmState::Running);
    refused([&] { engine->remove("web", false); });
    EXPECT_EQ(engine->stop("web").vm.state, VmState::Stopped);
    engine->remove("web", false);
    EXPECT_FALSE(fs::exists(vm.paths.lock));
    EXPECT_EQ(world.contradictions(*engine), "");
}

TEST(LockedVm, ACreateWhoseLockAnotherProgramHoldsMakesNothing) {
    World world;
    const auto engine = world.boot();
    CreateRequest request = world.request();
    request.id = RecordId::parse("web");
    {
        const UniqueFd holder = hold(world.config.runRoot / "web.lock");
        refusal([&] { static_cast<void>(engine->create(request)); });
        EXPECT_TRUE(engine->list().empty());
        EXPECT_TRUE(world.records.empty());
        EXPECT_TRUE(fs::is_empty(world.config.dataRoot));
    }
    static_cast<void>(engine->create(request));
    EXPECT_EQ(world.contradictions(*engine), "");
}

TEST(LockedVm, ACreateThatFailsLeavesNoLockFile) {
    World world;
    const auto engine = world.boot();
    world.onEffect = [](const std::string& effect, const std::string& moment) {
        if (effect == "storage.put" && moment == "before") throw Error(ErrorKind::ResourceExhausted, "full");
    };
    EXPECT_THROW(static_cast<void>(engine->create(world.request())), Error);
    EXPECT_TRUE(fs::is_empty(world.config.runRoot));
}

TEST(LockedVm, TheEndOfItsVmmIsSettledWhenTheLockIsFree) {
    World world;
    const auto engine = world.boot();
    const VmView vm = engine->create(world.request()).vm;
    engine->start(vm.id);
    {
        const UniqueFd holder = hold(vm.paths.lock);
        world.end(Uuid::parse(vm.uuid), ExitStatus{true, 9, {}});
        const auto noted = [&] { return engine->events(vm.id).back().cause.find("postponed") != std::string::npos; };
        EXPECT_TRUE(eventually(noted));
        EXPECT_EQ(engine->get(vm.id).state, VmState::Running) << "as it was: nothing is changed while it is locked";
    }
    EXPECT_TRUE(eventually([&] { return engine->get(vm.id).state == VmState::Failed; }));
    EXPECT_EQ(world.contradictions(*engine), "");
}

/// A host on which the server ended in the middle of starting "late", beside a VM that runs.
void crashInStart(World& world) {
    const auto engine = world.boot();
    CreateRequest request = world.request();
    request.id = RecordId::parse("well");
    static_cast<void>(engine->create(request));
    engine->start("well");
    request.id = RecordId::parse("late");
    static_cast<void>(engine->create(request));
    world.onEffect = [](const std::string& effect, const std::string& moment) {
        if (effect == "vmm.boot" && moment == "before") throw Crash();
    };
    EXPECT_THROW(engine->start("late"), Crash);
    world.onEffect = nullptr;
}

TEST(LockedVm, RecoveryOfOthersIsNotDelayedAndItsOwnIsDoneWhenItIsFree) {
    World world;
    crashInStart(world);
    std::unique_ptr<Engine> engine;
    {
        const UniqueFd holder = hold(world.config.runRoot / "late.lock");
        engine = world.boot();
        EXPECT_EQ(engine->get("well").state, VmState::Running);
        EXPECT_EQ(engine->get("late").state, VmState::Starting);
        EXPECT_NE(engine->events("late").back().cause.find("postponed"), std::string::npos);
        refusal([&] { engine->start("late"); });
        refusal([&] { engine->remove("late", false); });
        const auto events = engine->events("late");
        EXPECT_EQ(std::ranges::count_if(events, [](const Event& event) { return event.operation == "recover"; }), 1)
            << "said once, however often it is tried";
        engine->stop("well");
    }
    EXPECT_TRUE(eventually([&] { return engine->get("late").state == VmState::Stopped; }));
    EXPECT_EQ(world.contradictions(*engine), "");
}

TEST(LockedVm, WhatIsAskedForAfterTheReleaseFindsItSettled) {
    World world;
    crashInStart(world);
    std::unique_ptr<Engine> engine;
    {
        const UniqueFd holder = hold(world.config.runRoot / "late.lock");
        engine = world.boot();
    }
    whenFree([&] { EXPECT_EQ(engine->start("late").state, VmState::Running); });
    EXPECT_EQ(world.contradictions(*engine), "");
}

TEST(LockedVm, LockFilesOfNobodyAreRemovedAtStartIfTheyAreOurs) {
    World world;
    const fs::path run = world.config.runRoot;
    std::ofstream(run / "gone.lock") << "mergen:0a1b2c3d:7f3a9c01-1b2c-4d3e-8f40-0123456789ab\n";
    std::ofstream(run / "theirs.lock") << "mergen:ffffffff:7f3a9c01-1b2c-4d3e-8f40-0123456789ab\n";
    std::ofstream(run / "somebodys.lock") << "";
    std::ofstream(run / "held.lock") << "mergen:0a1b2c3d:7f3a9c01-1b2c-4d3e-8f40-0123456789ab\n";
    const UniqueFd holder = hold(run / "held.lock");
    const auto engine = world.boot();
    EXPECT_EQ(listDirectory(run), (std::vector<std::string>{"held.lock", "somebodys.lock", "theirs.lock"}));
}

}  // namespace
}  // namespace mergen::engine::test
