#include <cerrno>
#include <fstream>
#include <optional>
#include <sys/stat.h>

#include "world.hpp"

namespace mergen::engine::test {
namespace {

namespace fs = std::filesystem;

/// The text of the refusal.
std::string expectRefused(Engine& engine, const CreateRequest& request, ErrorKind kind, const std::string& field) {
    try {
        ADD_FAILURE() << "created: " << engine.create(request).vm.id;
        return {};
    } catch (const Error& error) {
        EXPECT_EQ(error.kind(), kind) << error.what();
        EXPECT_EQ(error.field(), field) << error.what();
        return error.what();
    }
}

TEST(Create, MakesTheVmsOwnCopiesAndLeavesTheGivenFilesAlone) {
    World world;
    const auto engine = world.boot();
    const VmView vm = engine->create(world.request()).vm;
    EXPECT_EQ(vm.state, VmState::Created);
    EXPECT_EQ(contentOf(vm.paths.dataDir / "rootfs.ext4"), "a disk");
    EXPECT_EQ(contentOf(vm.paths.dataDir / "kernel"), "a kernel");
    struct stat status {};
    ASSERT_EQ(::stat((vm.paths.dataDir / "rootfs.ext4").c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 0777U, 0640U);
    ASSERT_EQ(::stat(vm.paths.dataDir.c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 0777U, 0750U);
    EXPECT_TRUE(fs::is_directory(vm.paths.logsDir));
    std::ofstream(vm.paths.dataDir / "rootfs.ext4") << "written by the guest";
    EXPECT_EQ(contentOf(world.images / "root.ext4"), "a disk");
    EXPECT_EQ(world.contradictions(*engine), "");
}

TEST(Create, TimelineHasEveryStepWithOutcomeAndOneOperationId) {
    World world;
    const auto engine = world.boot();
    const VmView vm = engine->create(world.request()).vm;
    std::vector<std::string> steps;
    std::set<std::string> operations;
    for (const Event& event : engine->events(vm.id)) {
        steps.push_back(event.step + ":" + event.outcome);
        operations.insert(event.operationId);
        EXPECT_EQ(event.operation, "create");
        EXPECT_EQ(event.vm, vm.id);
    }
    const std::vector<std::string> expected{":started", "record:ok", "disks:ok", "commit:ok", ":ok"};
    EXPECT_EQ(steps, expected);
    EXPECT_EQ(operations.size(), 1U);
}

/// How often a create asked the VMMs to give up room; it fails with `kind`, or succeeds.
int askedForRoom(World& world, std::optional<ErrorKind> kind) {
    int asked = 0;
    world.onEffect = [&](const std::string& effect, const std::string& moment) {
        if (effect == "vmm.giveUpRoom" && moment == "before") ++asked;
    };
    const auto engine = world.boot();
    if (kind) {
        expectRefused(*engine, world.request(), *kind, "");
        EXPECT_TRUE(fs::is_empty(world.config.dataRoot));
    } else {
        const VmView vm = engine->create(world.request()).vm;
        EXPECT_EQ(contentOf(vm.paths.dataDir / "rootfs.ext4"), "a disk");
        EXPECT_EQ(contentOf(vm.paths.dataDir / "kernel"), "a kernel");
    }
    EXPECT_EQ(world.contradictions(*engine), "");
    world.onEffect = {};
    return asked;
}

TEST(Create, DisksThatFindNoRoomAreMadeOnceMoreInWhatAnyVmmGivesUp) {
    for (const int cause : {ENOSPC, EDQUOT}) {
        World world;
        world.noRoom = cause;
        world.keepsForSpeed = true;
        EXPECT_EQ(askedForRoom(world, std::nullopt), 1) << cause;
    }
}

TEST(Create, WithoutRoomNothingIsMadeWhereNothingIsGivenUp) {
    World world;
    world.noRoom = ENOSPC;
    EXPECT_EQ(askedForRoom(world, ErrorKind::ResourceExhausted), 1);
}

TEST(Create, WhatFailsForAnotherReasonThanRoomCostsNobodyWhatHeKeeps) {
    World world;
    world.noRoom = EIO;
    world.keepsForSpeed = true;
    EXPECT_EQ(askedForRoom(world, Error::fromErrno(EIO, "").kind()), 0);
    EXPECT_TRUE(world.keepsForSpeed);
}

TEST(Create, AVmmThatCannotGiveUpRoomChangesNothingOfWhatTheCreateFailsWith) {
    World world;
    world.noRoom = ENOSPC;
    world.onEffect = [](const std::string& effect, const std::string&) {
        if (effect == "vmm.giveUpRoom") throw Error(ErrorKind::Internal, "it cannot be removed");
    };
    const auto engine = world.boot();
    const std::string refusal = expectRefused(*engine, world.request(), ErrorKind::ResourceExhausted, "");
    EXPECT_NE(refusal.find("cannot write the kernel: No space left"), std::string::npos) << refusal;
    EXPECT_EQ(world.contradictions(*engine), "");
}

struct BadFile {
    const char* what;
    std::function<fs::path(const World&)> path;
};

TEST(Create, FilesThatAreNotPlainFilesBelowTheRootsAreRefusedAndNothingIsMade) {
    World world;
    fs::create_directory(world.images / "folder");
    fs::create_symlink("/etc/passwd", world.images / "link");
    fs::create_directory_symlink("/etc", world.images / "linked-folder");
    ASSERT_EQ(::mkfifo((world.images / "fifo").c_str(), 0600), 0);
    std::ofstream(world.root / "outside") << "secret";
    const std::vector<BadFile> bad{
        {"missing", [](const World& w) { return w.images / "missing"; }},
        {"a folder", [](const World& w) { return w.images / "folder"; }},
        {"a link", [](const World& w) { return w.images / "link"; }},
        {"a link on the way", [](const World& w) { return w.images / "linked-folder" / "passwd"; }},
        {"a FIFO", [](const World& w) { return w.images / "fifo"; }},
        {"outside", [](const World& w) { return w.root / "outside"; }},
        {"outside by ..", [](const World& w) { return w.images / ".." / "outside"; }},
        {"a device", [](const World&) { return fs::path("/dev/zero"); }},
        {"relative", [](const World&) { return fs::path("images/root.ext4"); }},
        {"the root itself", [](const World& w) { return w.images; }},
    };
    const auto engine = world.boot();
    for (const BadFile& file : bad) {
        for (const std::string field : {"rootfs", "kernel", "dataDisk"}) {
            CreateRequest request = world.request();
            (field == "rootfs"   ? request.rootfs
             : field == "kernel" ? request.kernel
                                 : request.dataDisk.emplace()) = file.path(world);
            try {
                static_cast<void>(engine->create(request));
                ADD_FAILURE() << field << " may be " << file.what;
            } catch (const Error& error) {
                EXPECT_EQ(error.kind(), ErrorKind::InvalidArgument) << file.what << ": " << error.what();
                EXPECT_EQ(error.field(), field) << file.what;
            }
        }
    }
    EXPECT_TRUE(engine->list().empty());
    EXPECT_TRUE(world.records.empty());
    EXPECT_EQ(world.contradictions(*engine), "");
}

TEST(Create, WhatTheVmmCannotDoIsRefusedBeforeAnythingIsMade) {
    World world;
    const auto engine = world.boot();
    CreateRequest request = world.request();
    request.vcpus = 9;
    try {
        static_cast<void>(engine->create(request));
        ADD_FAILURE() << "accepted";
    } catch (const Error& error) {
        EXPECT_EQ(error.field(), "vcpu") << "the caller's name of it";
    }
    EXPECT_TRUE(world.records.empty());
    EXPECT_EQ(world.contradictions(*engine), "");
}

TEST(Create, DataFolderOfAnEarlierVmIsNeverTakenOver) {
    World world;
    const auto engine = world.boot();
    CreateRequest request = world.request();
    request.id = RecordId::parse("db");
    const VmView vm = engine->create(request).vm;
    std::ofstream(vm.paths.dataDir / "rootfs.ext4") << "precious";
    engine->remove("db", /*retainData=*/true);
    EXPECT_THROW(static_cast<void>(engine->create(request)), Error);
    EXPECT_EQ(contentOf(vm.paths.dataDir / "rootfs.ext4"), "precious");
    EXPECT_TRUE(engine->list().empty());
    EXPECT_TRUE(world.records.empty());
}

TEST(Create, RefusedBecauseStorageHasTheIdLeavesThatRecordAlone) {
    World world;
    const auto engine = world.boot();
    // Put there behind the server's back, as a restored backup is.
    world.records.insert_or_assign("restored", StoredRecord{Record{RecordId::parse("restored"), {}}, Revision{99}, {}});
    CreateRequest request = world.request();
    request.id = RecordId::parse("restored");
    EXPECT_THROW(static_cast<void>(engine->create(request)), Error);
    EXPECT_TRUE(world.records.contains("restored"));
    EXPECT_TRUE(engine->list().empty());
}

TEST(Create, IdThatIsAUuidAndUselessImagesAreRefused) {
    World world;
    const auto engine = world.boot();
    CreateRequest uuid = world.request();
    uuid.id = RecordId::parse(Uuid::random().str());
    EXPECT_THROW(static_cast<void>(engine->create(uuid)), Error);
    std::ofstream(world.images / "empty").close();
    CreateRequest empty = world.request();
    empty.kernel = world.images / "empty";
    EXPECT_THROW(static_cast<void>(engine->create(empty)), Error);
    CreateRequest image = world.request();
    image.dataDisk = image.rootfs;
    EXPECT_THROW(static_cast<void>(engine->create(image)), Error);
    EXPECT_TRUE(engine->list().empty());
    EXPECT_EQ(world.contradictions(*engine), "");
}

TEST(Create, ADataDiskHasOneOwner) {
    World world;
    const auto engine = world.boot();
    CreateRequest request = world.request();
    request.dataDisk = world.images / "data.ext4";
    const VmView first = engine->create(request).vm;
    EXPECT_NE(expectRefused(*engine, request, ErrorKind::AlreadyExists, "dataDisk").find(first.id), std::string::npos);
    engine->remove(first.id, false);
    EXPECT_TRUE(fs::exists(world.images / "data.ext4")) << "it is not the VM's to delete";
    static_cast<void>(engine->create(request));
}

TEST(Create, AFurtherDriveThatTakesWritesIsUsedInPlaceByOneVm) {
    World world;
    const auto engine = world.boot();
    CreateRequest request = world.request();
    request.dataDisk = world.images / "data.ext4";
    request.drives = {{.id = "logs", .path = world.images / "logs.ext4"}};
    std::ofstream(world.images / "logs.ext4") << "logs";
    const VmView first = engine->create(request).vm;
    request.dataDisk.reset();
    expectRefused(*engine, request, ErrorKind::AlreadyExists, "drives[0].pathOnHost");
    request.drives[0].readOnly = true;
    expectRefused(*engine, request, ErrorKind::AlreadyExists, "drives[0].pathOnHost");
    engine->remove(first.id, false);
    EXPECT_EQ(contentOf(world.images / "logs.ext4"), "logs") << "it is not the VM's to delete";
    static_cast<void>(engine->create(request));
    EXPECT_EQ(world.contradictions(*engine), "");
}

TEST(Create, AFurtherDriveThatTakesNoWritesIsCopiedForEachVm) {
    World world;
    const auto engine = world.boot();
    std::ofstream(world.images / "tools.img") << "tools";
    CreateRequest request = world.request();
    request.drives = {{.id = "tools", .path = world.images / "tools.img", .readOnly = true},
                      {.id = "again", .path = world.images / "tools.img", .readOnly = true}};
    const VmView first = engine->create(request).vm;
    const VmView second = engine->create(request).vm;
    fs::remove(world.images / "tools.img");
    engine->remove(first.id, false);
    EXPECT_FALSE(fs::exists(first.paths.dataDir));
    EXPECT_EQ(contentOf(second.paths.dataDir / "drives" / "tools"), "tools");
    EXPECT_EQ(contentOf(second.paths.dataDir / "drives" / "again"), "tools");
    EXPECT_EQ(engine->start(second.id).state, VmState::Running);
    EXPECT_EQ(world.contradictions(*engine), "");
}

TEST(Create, OneFileIsNotTwoDrivesOfAVmIfOneTakesWrites) {
    World world;
    const auto engine = world.boot();
    CreateRequest request = world.request();
    request.drives = {{.id = "one", .path = world.images / "data.ext4"}};
    request.dataDisk = world.images / "data.ext4";
    expectRefused(*engine, request, ErrorKind::InvalidArgument, "drives[0].pathOnHost");
    request.dataDisk.reset();
    request.drives.push_back({.id = "two", .path = world.images / "data.ext4", .readOnly = true});
    expectRefused(*engine, request, ErrorKind::InvalidArgument, "drives[0].pathOnHost");
    request.drives = {{.id = "one", .path = request.rootfs}};
    expectRefused(*engine, request, ErrorKind::InvalidArgument, "drives[0].pathOnHost");
}

TEST(Create, AVmHasEightDisksAtMost) {
    World world;
    const auto engine = world.boot();
    std::ofstream(world.images / "tools.img") << "tools";
    CreateRequest request = world.request();
    for (int i = 0; i < 7; ++i) {
        request.drives.push_back(
            {.id = "drive" + std::to_string(i), .path = world.images / "tools.img", .readOnly = true});
    }
    static_cast<void>(engine->create(request));
    request.dataDisk = world.images / "data.ext4";
    expectRefused(*engine, request, ErrorKind::InvalidArgument, "drives");
}

TEST(Create, FailedAutoStartKeepsTheVmAndNamesIt) {
    World world;
    world.bootError = "no kernel";
    const auto engine = world.boot();
    CreateRequest request = world.request();
    request.id = RecordId::parse("web");
    request.autoStart = true;
    const Created created = engine->create(request);
    ASSERT_TRUE(created.startFailure.has_value());
    EXPECT_EQ(created.vm.id, "web");
    const std::string text = created.startFailure->what();
    EXPECT_NE(text.find("'web' was created but could not be started"), std::string::npos) << text;
    EXPECT_NE(text.find("no kernel"), std::string::npos) << text;
    EXPECT_EQ(engine->get("web").state, VmState::Failed);
    EXPECT_EQ(world.contradictions(*engine), "");
    world.bootError.clear();
    EXPECT_EQ(engine->start("web").state, VmState::Running);
}

TEST(Create, StoredHooksAreSaidToBeInert) {
    World world;
    const auto engine = world.boot();
    CreateRequest request = world.request();
    request.hooks = R"({"onStart":[]})";
    const VmView vm = engine->create(request).vm;
    const auto events = engine->events(vm.id);
    EXPECT_NE(events.back().cause.find("hooks"), std::string::npos);
}

}  // namespace
}  // namespace mergen::engine::test
