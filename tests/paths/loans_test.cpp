// Disks that a VM uses in place are their owners' files: they are lent while it runs, and what others rename, mount and
// break meanwhile makes no other file the VM's, gives none to a stranger, and takes none from its owner.
#include <algorithm>
#include <chrono>
#include <functional>
#include <map>
#include <sys/stat.h>
#include <thread>

#include <gtest/gtest.h>

#include <mergen/sdk/failpoint.hpp>

#include "scene.hpp"
#include "test_host.hpp"
#include "world.hpp"

namespace mergen::engine::test {
namespace {

namespace fs = std::filesystem;
using mergen::test::CapturingLog;
using mergen::test::exchange;
using mergen::test::write;

/// Whose a file is, and with which permission bits.
struct Owned {
    uid_t uid = 0;
    gid_t gid = 0;
    mode_t mode = 0;
    bool operator==(const Owned&) const = default;
};

std::ostream& operator<<(std::ostream& out, const Owned& owned) {
    return out << owned.uid << ":" << owned.gid << " " << std::oct << owned.mode << std::dec;
}

constexpr Owned alice{1234, 5678, 0664};
constexpr Owned bob{2345, 6789, 0640};

Owned ownerOf(const fs::path& file) {
    struct stat status {};
    EXPECT_EQ(::lstat(file.c_str(), &status), 0) << file;
    return {status.st_uid, status.st_gid, status.st_mode & 07777U};
}

void give(const fs::path& file, const Owned& owner) {
    ASSERT_EQ(::chown(file.c_str(), owner.uid, owner.gid), 0);
    ASSERT_EQ(::chmod(file.c_str(), owner.mode), 0);
}

/// A host with a VM "web" that has two disks in place: "data" of Alice's and "logs" of Bob's.
class Loans : public testing::Test {
protected:
    void SetUp() override {
        if (::geteuid() != 0) GTEST_SKIP() << "needs root: files are given away";
        world.log = &log;
        boot();
        write(logs, "logs");
        give(data, alice);
        give(logs, bob);
        CreateRequest request = world.request();
        request.id = RecordId::parse("web");
        request.dataDisk = data;
        request.drives = {{.id = "logs", .path = logs}};
        static_cast<void>(engine->create(request));
    }

    /// A new server on this host.
    void boot() {
        engine.reset();
        engine = world.boot();
    }

    /// The uid of the VM, whose alone a disk is that it is lent.
    [[nodiscard]] Owned guest() const {
        const uid_t uid = world.config.uidStart;
        return {uid, uid, 0600};
    }

    /// Does this in the moment when the intent of the next operation is written.
    void meanwhile(const std::function<void()>& action) {
        world.onEffect = [action, done = false](const std::string& effect, const std::string& moment) mutable {
            if (effect != "storage.put" || moment != "before" || std::exchange(done, true)) return;
            action();
        };
    }

    /// What the log warned of disks that are still owed.
    [[nodiscard]] std::vector<std::string> warnings() const {
        std::vector<std::string> causes;
        for (const auto& line : log.lines("vm.disk.owed")) causes.push_back(line.fields.at("cause"));
        return causes;
    }

    CapturingLog log;
    World world;
    std::unique_ptr<Engine> engine;
    fs::path data = world.images / "data.ext4", logs = world.images / "logs.ext4", aside = world.images / "aside";
};

TEST_F(Loans, AreGivenToTheVmAndBack) {
    static_cast<void>(engine->start("web"));
    EXPECT_EQ(ownerOf(data), guest());
    EXPECT_EQ(ownerOf(logs), guest());
    engine->stop("web");
    EXPECT_EQ(ownerOf(data), alice);
    EXPECT_EQ(ownerOf(logs), bob);
}

TEST_F(Loans, OneFileIsNotTwoDisksOfAGuestWhateverIsLinkedAfterTheCreate) {
    const auto expectRefused = [&](const fs::path& disk, const fs::path& file) {
        SCOPED_TRACE(disk.string() + " becomes " + file.string());
        fs::rename(disk, aside);
        fs::create_hard_link(file, disk);
        for (const bool anotherServer : {false, true}) {
            if (anotherServer) boot();  // which takes its claims from the records
            try {
                static_cast<void>(engine->start("web"));
                ADD_FAILURE() << "the guest has one file as two disks";
            } catch (const Error& error) {
                EXPECT_EQ(error.kind(), ErrorKind::AlreadyExists);
                EXPECT_NE(std::string(error.what()).find("the same file"), std::string::npos) << error.what();
            }
            EXPECT_EQ(engine->get("web").state, VmState::Created) << "nothing was begun";
        }
        fs::rename(aside, disk);
    };
    expectRefused(data, logs);
    expectRefused(logs, data);
    expectRefused(logs, engine->get("web").paths.dataDir / "rootfs.ext4");
    exchange(data, logs);
    EXPECT_EQ(engine->start("web").state, VmState::Running) << "two files still, whichever is which";
}

TEST_F(Loans, WhateverLiesInADisksPlaceAStartThatCannotUseItBeginsNothing) {
    const std::function<void()> replacements[] = {
        [&] { fs::create_symlink(aside, data); },
        [&] { fs::create_directory(data); },
        [&] { ASSERT_EQ(::mkfifo(data.c_str(), 0600), 0); },
        [&] { write(data, ""); },
    };
    for (const auto& replace : replacements) {
        fs::rename(data, aside);
        replace();
        try {
            static_cast<void>(engine->start("web"));
            ADD_FAILURE() << "it is no disk";
        } catch (const Error& error) {
            EXPECT_EQ(error.kind(), ErrorKind::FailedPrecondition) << error.what();
            EXPECT_NE(std::string(error.what()).find("the drive \"data\": "), std::string::npos) << error.what();
        }
        EXPECT_EQ(engine->get("web").state, VmState::Created);
        EXPECT_EQ(ownerOf(logs), bob);
        fs::remove(data);
        fs::rename(aside, data);
    }
    EXPECT_EQ(engine->start("web").state, VmState::Running);
}

TEST_F(Loans, AFileThatIsPutThereAfterTheLookIsNeitherLentNorGivenAway) {
    const Owned root{0, 0, 0644};
    write(aside, "root's");
    give(aside, root);
    meanwhile([&] { exchange(data, aside); });
    try {
        static_cast<void>(engine->start("web"));
        ADD_FAILURE() << "the VM has a file that nobody looked at";
    } catch (const Error& error) {
        EXPECT_EQ(error.kind(), ErrorKind::Conflict);
        EXPECT_NE(std::string(error.what()).find("was replaced"), std::string::npos) << error.what();
    }
    EXPECT_EQ(ownerOf(data), root) << "what lies there now";
    EXPECT_EQ(ownerOf(aside), alice) << "what was looked at is its owner's again, under whatever name";
    EXPECT_EQ(ownerOf(logs), bob);
    EXPECT_EQ(engine->get("web").state, VmState::Failed);
    engine->stop("web");
    EXPECT_EQ(ownerOf(data), root);
    exchange(data, aside);
    EXPECT_EQ(engine->start("web").state, VmState::Running);
    EXPECT_EQ(world.contradictions(*engine), "");
}

TEST_F(Loans, AProgramThatOpensADiskForWritingAfterTheLookIsSeen) {
    UniqueFd writer;
    meanwhile([&] { writer = openFile(data, O_WRONLY); });
    try {
        static_cast<void>(engine->start("web"));
        ADD_FAILURE() << "two write to one disk";
    } catch (const Error& error) {
        EXPECT_EQ(error.kind(), ErrorKind::Conflict);
        EXPECT_NE(std::string(error.what()).find("open for writing"), std::string::npos) << error.what();
    }
    EXPECT_EQ(ownerOf(data), alice);
    writer = {};
    EXPECT_EQ(engine->start("web").state, VmState::Running);
}

TEST_F(Loans, ADiskThatIsLetGoAMomentLaterIsWaitedFor) {
    // As the kernel does for a VMM that has ended and used it by io_uring(7).
    UniqueFd writer = openFile(data, O_WRONLY);
    const std::jthread ends([&] {
        std::this_thread::sleep_for(std::chrono::milliseconds(50));
        writer = {};
    });
    EXPECT_EQ(engine->start("web").state, VmState::Running);
}

TEST_F(Loans, OnlyTheFileThatWasLentIsGivenBack) {
    static_cast<void>(engine->start("web"));
    write(aside, "another file of the VM's user's");
    give(aside, guest());
    exchange(data, aside);
    engine->stop("web");
    EXPECT_EQ(ownerOf(data), guest()) << "it was never Alice's";
    EXPECT_EQ(ownerOf(logs), bob);
    exchange(data, aside);
    boot();
    static_cast<void>(engine->start("web"));
    engine->stop("web");
    EXPECT_EQ(ownerOf(data), alice) << "it was still owed";
}

TEST_F(Loans, ADiskThatIsBackIsItsOwnersAloneWhateverFailsOfTheOthers) {
    const std::string first = "engine.disks.taking_back=1*delay(0);";  // the data disk
    for (const bool anotherServer : {false, true}) {
        SCOPED_TRACE(anotherServer);
        whenFree([&] { static_cast<void>(engine->start("web")); });
        failpoint::arm(first + "engine.disks.taking_back=error(no)");
        EXPECT_THROW(engine->stop("web"), Error);
        EXPECT_EQ(engine->get("web").state, VmState::Stopping);
        EXPECT_EQ(ownerOf(data), alice) << "one that fails keeps no other from it";

        const Owned secret{alice.uid, alice.gid, 0600};
        give(data, secret);
        if (anotherServer) {
            boot();
            EXPECT_EQ(ownerOf(data), secret);
            EXPECT_EQ(engine->get("web").state, VmState::Stopping) << engine->get("web").failure;
        }
        failpoint::arm("");
        whenFree([&] { engine->stop("web"); });  // the VMM's end is looked at, too
        EXPECT_EQ(engine->get("web").state, VmState::Stopped);
        EXPECT_EQ(ownerOf(data), secret) << "it was not lent any more";
        EXPECT_EQ(ownerOf(logs), bob) << "it still was";
        give(data, alice);
    }
}

TEST_F(Loans, WhateverLiesInADisksPlaceAVmIsStoppedAndItIsOwed) {
    const std::function<void()> replacements[] = {
        [&] { fs::create_symlink(aside, data); },
        [&] { fs::create_directory(data); },
        [&] { ASSERT_EQ(::mkfifo(data.c_str(), 0600), 0); },
    };
    for (const auto& replace : replacements) {
        whenFree([&] { static_cast<void>(engine->start("web")); });
        fs::rename(data, aside);
        replace();
        engine->stop("web");
        EXPECT_EQ(engine->get("web").state, VmState::Stopped);
        EXPECT_EQ(ownerOf(logs), bob);
        fs::remove(data);
        fs::rename(aside, data);
        boot();
        EXPECT_EQ(ownerOf(data), alice) << "it was still owed";
    }
}

TEST_F(Loans, WhateverLiesInADisksPlaceAnEndIsNotedAndTheVmCanBeDeleted) {
    static_cast<void>(engine->start("web"));
    fs::rename(data, aside);
    fs::create_symlink(aside, data);
    world.end(Uuid::parse(engine->get("web").uuid), ExitStatus{true, 9, {}});
    world.config.imageRoots = {world.root / "elsewhere"};  // and none of its disks is below an allowed folder now
    boot();
    EXPECT_EQ(engine->get("web").state, VmState::Failed);
    EXPECT_TRUE(engine->get("web").lastExit.has_value());
    static_cast<void>(engine->remove("web", false));
    EXPECT_TRUE(engine->list().empty());
    EXPECT_FALSE(warnings().empty());
    give(aside, alice);
}

TEST_F(Loans, ADiskThatIsBackIsItsOwnersAloneIfAnotherStepOfTheDeleteFails) {
    static_cast<void>(engine->start("web"));
    world.onEffect = [](const std::string& effect, const std::string&) {
        if (effect == "network.detach") throw Error(ErrorKind::Unavailable, "not now");
    };
    EXPECT_THROW(static_cast<void>(engine->remove("web", false)), Error);
    EXPECT_EQ(engine->get("web").state, VmState::Deleting);
    EXPECT_EQ(ownerOf(data), alice);
    const Owned secret{alice.uid, alice.gid, 0600};
    give(data, secret);
    world.onEffect = {};
    boot();
    EXPECT_TRUE(engine->list().empty()) << "the delete has been finished";
    EXPECT_EQ(ownerOf(data), secret);
}

TEST_F(Loans, ADiskThatIsAwayIsSaidAtTheStopAndGivenBackByTheNextServer) {
    static_cast<void>(engine->start("web"));
    fs::rename(data, aside);
    engine->stop("web");
    const std::string owed = data.string() + " is owed to 1234:5678 with mode 0664: ";
    ASSERT_EQ(warnings().size(), 1U);
    EXPECT_TRUE(warnings().front().starts_with(owed)) << warnings().front();
    const auto events = engine->events("web");
    EXPECT_TRUE(std::ranges::any_of(events, [&](const Event& event) { return event.cause.starts_with(owed); }));

    boot();
    EXPECT_EQ(engine->get("web").state, VmState::Stopped);
    EXPECT_EQ(warnings().size(), 2U) << "it still is";
    fs::rename(aside, data);
    boot();
    EXPECT_EQ(ownerOf(data), alice);
    EXPECT_EQ(engine->get("web").state, VmState::Stopped);
    give(data, {alice.uid, alice.gid, 0600});
    boot();
    EXPECT_EQ(ownerOf(data).mode, 0600U) << "it is not noted as lent any more";
    EXPECT_EQ(warnings().size(), 2U);
    EXPECT_EQ(world.contradictions(*engine), "");
}

TEST_F(Loans, ADiskThatIsThereAgainIsGivenBackByAStopOfAVmThatDoesNotRun) {
    static_cast<void>(engine->start("web"));
    fs::rename(data, aside);
    engine->stop("web");
    fs::rename(aside, data);
    ASSERT_EQ(ownerOf(data), guest());
    EXPECT_EQ(engine->stop("web").by, StoppedBy::Nothing);
    EXPECT_EQ(ownerOf(data), alice);
    EXPECT_EQ(engine->get("web").state, VmState::Stopped);
}

TEST_F(Loans, ADiskThatWasAwayHalfLentIsStillOwedWhenItIsLentAgain) {
    static_cast<void>(engine->start("web"));
    fs::rename(data, aside);
    engine->stop("web");
    give(aside, {alice.uid, alice.gid, 0600});  // as a crash between its mode and its owner leaves it
    fs::rename(aside, data);
    static_cast<void>(engine->start("web"));
    EXPECT_EQ(ownerOf(data), guest());
    engine->stop("web");
    EXPECT_EQ(ownerOf(data), alice) << "0600 was never its mode";
}

TEST_F(Loans, ADiskThatIsAwayWhenItsVmIsDeletedIsSaidToTheOperator) {
    static_cast<void>(engine->start("web"));
    fs::rename(logs, aside);
    static_cast<void>(engine->remove("web", false));
    EXPECT_TRUE(engine->list().empty());
    EXPECT_EQ(ownerOf(data), alice);
    ASSERT_EQ(warnings().size(), 1U);
    EXPECT_TRUE(warnings().front().starts_with(logs.string() + " is owed to 2345:6789 with mode 0640: "))
        << warnings().front();
    EXPECT_EQ(log.lines("vm.disk.owed").front().fields.at("vm"), "web");
}

TEST_F(Loans, ADiskThatIsAwayIsForgottenOnlyWhenItsVmIsDeleted) {
    static_cast<void>(engine->start("web"));
    fs::rename(logs, aside);
    world.onEffect = [](const std::string& effect, const std::string&) {
        if (effect == "network.detach") throw Error(ErrorKind::Unavailable, "not now");
    };
    EXPECT_THROW(static_cast<void>(engine->remove("web", false)), Error);
    EXPECT_TRUE(warnings().empty());
    fs::rename(aside, logs);
    world.onEffect = {};
    boot();
    EXPECT_TRUE(engine->list().empty()) << "the delete has been finished";
    EXPECT_EQ(ownerOf(logs), bob);
    EXPECT_TRUE(warnings().empty());
}

TEST_F(Loans, ADiskThatIsOwedAndWasReplacedIsSaidAtTheNextStart) {
    static_cast<void>(engine->start("web"));
    fs::rename(data, aside);
    engine->stop("web");
    write(data, "new");
    give(data, bob);
    static_cast<void>(engine->start("web"));
    ASSERT_EQ(warnings().size(), 2U);
    EXPECT_EQ(warnings().back(), data.string() + " is owed to 1234:5678 with mode 0664: another file lies there");
    engine->stop("web");
    EXPECT_EQ(ownerOf(data), bob);
}

TEST_F(Loans, ADiskThatIsAwayWhenTheServerClearsAfterACrashIsSaid) {
    engine->remove("web", false);
    world.durable = false;
    CreateRequest request = world.request();
    request.id = RecordId::parse("transient");
    request.dataDisk = data;
    static_cast<void>(engine->create(request));
    static_cast<void>(engine->start("transient"));
    world.records.clear();
    fs::rename(data, aside);
    boot();
    ASSERT_EQ(warnings().size(), 1U);
    EXPECT_TRUE(warnings().front().starts_with(data.string() + " is owed to 1234:5678 with mode 0664: "));
    EXPECT_EQ(log.lines("vm.disk.owed").front().fields.at("vm"), "transient");
}

TEST_F(Loans, OfAStorageWithoutDurabilityAreOfTheFilesThatLayThereAtTheStart) {
    world.durable = false;
    CreateRequest request = world.request();
    request.id = RecordId::parse("transient");
    write(world.images / "more.ext4", "first");
    request.dataDisk = world.images / "more.ext4";
    static_cast<void>(engine->create(request));
    write(aside, "second");
    give(aside, bob);
    fs::rename(aside, *request.dataDisk);
    static_cast<void>(engine->start("transient"));
    world.records.clear();  // as the memory of a dead process is
    boot();
    EXPECT_EQ(ownerOf(*request.dataDisk), bob);
    EXPECT_TRUE(engine->list().empty());
}

TEST(FileOfADrive, IsNamedInAChangeOnlyWhereTheVmUsesThatVeryFile) {
    World world;
    const auto engine = world.boot();
    write(world.images / "logs.ext4", "logs");
    write(world.images / "tools.ext4", "tools");
    CreateRequest request = world.request();
    request.id = RecordId::parse("web");
    request.dataDisk = world.images / "data.ext4";
    request.drives = {{.id = "logs", .path = world.images / "logs.ext4"},
                      {.id = "tools", .path = world.images / "tools.ext4", .readOnly = true}};
    static_cast<void>(engine->create(request));
    const auto name = [&](const std::string& drive, const fs::path& path) {
        ChangeRequest change;
        change.drives = {{.id = drive, .path = path, .limit = {}}};
        static_cast<void>(engine->change("web", change));
    };
    EXPECT_NO_THROW(name("data", *request.dataDisk));
    EXPECT_NO_THROW(name("logs", world.images / "logs.ext4"));
    const std::pair<std::string, fs::path> refused[] = {
        {"rootfs", request.rootfs}, {"tools", world.images / "tools.ext4"}, {"logs", world.images / "tools.ext4"}};
    for (const auto& [drive, path] : refused) {
        SCOPED_TRACE(drive + " " + path.string());
        try {
            name(drive, path);
            ADD_FAILURE() << "the guest's file is another one";
        } catch (const Error& error) {
            EXPECT_EQ(error.kind(), ErrorKind::NotSupported);
            EXPECT_EQ(error.field(), "drives[0].pathOnHost");
        }
    }
}

TEST(FileOfADrive, IsReadAnewOnlyIfItIsTheOneThatTheVmHas) {
    World world;
    const auto engine = world.boot();
    const fs::path logs = world.images / "logs.ext4", aside = world.images / "aside";
    write(logs, "logs");
    write(world.root / "outside", "outside");
    CreateRequest request = world.request();
    request.id = RecordId::parse("web");
    request.drives = {{.id = "logs", .path = logs}};
    static_cast<void>(engine->create(request));
    static_cast<void>(engine->start("web"));
    ChangeRequest change;
    change.drives = {{.id = "logs", .path = logs, .limit = {}}};
    const auto refusal = [&]() -> Error {
        try {
            static_cast<void>(engine->change("web", change));
        } catch (const Error& error) {
            return error;
        }
        return {ErrorKind::Internal, "it is not refused"};
    };
    EXPECT_EQ(refusal().kind(), ErrorKind::NotSupported) << "it comes as far as the VMM, which changes no guest";
    fs::rename(logs, aside);
    const std::function<void()> replacements[] = {
        [] {},
        [&] { write(logs, "another"); },
        [&] { fs::create_symlink(world.root / "outside", logs); },
    };
    for (const auto& replace : replacements) {
        replace();
        EXPECT_EQ(refusal().kind(), ErrorKind::FailedPrecondition);
        EXPECT_EQ(refusal().field(), "drives[0].pathOnHost");
        fs::remove(logs);
    }
    fs::rename(aside, logs);
    EXPECT_EQ(refusal().kind(), ErrorKind::NotSupported);
}

}  // namespace
}  // namespace mergen::engine::test
