// The files of a create request, each of the four members: what is refused changes nothing, and what is taken is taken
// once.
#include <map>
#include <set>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <gtest/gtest.h>

#include "scene.hpp"
#include "world.hpp"

namespace mergen::engine::test {
namespace {

namespace fs = std::filesystem;
using mergen::test::exchange;
using mergen::test::Meanwhile;
using mergen::test::write;

const std::vector<std::string> members{"rootfs", "kernel", "initrd", "dataDisk"};

void setMember(CreateRequest& request, const std::string& member, const fs::path& path) {
    if (member == "rootfs") request.rootfs = path;
    if (member == "kernel") request.kernel = path;
    if (member == "initrd") request.initrd = path;
    if (member == "dataDisk") request.dataDisk = path;
}

/// Everything below the host's folders but what stands in the images' one.
std::set<std::string> filesOf(const World& world) {
    std::set<std::string> found;
    for (const char* folder : {"config", "data", "run"}) {
        for (const auto& entry : fs::recursive_directory_iterator(world.root / folder)) found.insert(entry.path());
    }
    return found;
}

/// `path` as any of the members is refused with `kind`, about that member, and nothing has changed.
void expectRefused(World& world, Engine& engine, const std::string& what, const fs::path& path,
                   ErrorKind kind = ErrorKind::InvalidArgument) {
    for (const std::string& member : members) {
        SCOPED_TRACE(what + " as " + member);
        const auto files = filesOf(world);
        const auto records = world.records.size();
        CreateRequest request = world.request();
        setMember(request, member, path);
        try {
            static_cast<void>(engine.create(request));
            ADD_FAILURE() << "taken";
        } catch (const Error& error) {
            EXPECT_EQ(error.kind(), kind) << error.what();
            EXPECT_EQ(error.field(), member) << error.what();
            // The file's name (as far as a text without NUL shows it), or the root's that is missing.
            const std::string name = fs::exists(path.parent_path()) ? path.filename() : path.parent_path().filename();
            EXPECT_NE(std::string(error.what()).find(name.c_str()), std::string::npos) << error.what();
        }
        EXPECT_EQ(filesOf(world), files);
        EXPECT_EQ(world.records.size(), records);
        EXPECT_EQ(world.contradictions(engine), "");
    }
}

TEST(PathsOfACreate, WhateverIsNoPlainFileBelowTheRootsIsRefusedOfEveryMember) {
    World world;
    const auto engine = world.boot();
    const fs::path images = world.images;
    fs::create_directories(images / "folder");
    write(world.root / "outside", "secret");
    write(images / "empty", "");
    fs::create_symlink(world.root / "outside", images / "link");
    fs::create_symlink("root.ext4", images / "link-inside");
    fs::create_directory_symlink(world.root, images / "linked-folder");
    ASSERT_EQ(::mkfifo((images / "fifo").c_str(), 0666), 0);
    const UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    (images / "socket").string().copy(static_cast<char*>(address.sun_path), sizeof address.sun_path - 1);
    ASSERT_EQ(::bind(socket.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    const std::map<std::string, fs::path> bad{
        {"nothing", images / "none"},
        {"nothing in nothing", images / "none" / "none"},
        {"a file as a folder", images / "root.ext4" / "x"},
        {"a folder", images / "folder"},
        {"the root itself", images},
        {"an empty file", images / "empty"},
        {"a link", images / "link"},
        {"a link that stays inside", images / "link-inside"},
        {"a link on the way", images / "linked-folder" / "outside"},
        {"a FIFO", images / "fifo"},
        {"a socket", images / "socket"},
        {"outside", world.root / "outside"},
        {"outside by ..", images / ".." / "outside"},
        {"inside by ..", images / "folder" / ".." / "root.ext4"},
        {"a device", "/dev/zero"},
        {"a magic link", "/proc/self/fd/" + std::to_string(socket.get())},
        {"relative", "images/root.ext4"},
        {"too long a name", images / std::string(256, 'n')},
        {"another VM's place to be", world.config.dataRoot / "web" / "rootfs.ext4"},
        {"a NUL", images / std::string("root.ext4\0", 10)},
    };
    for (const auto& [what, path] : bad) expectRefused(world, *engine, what, path);
    world.config.imageRoots.push_back(world.root / "missing");
    const auto again = world.boot();
    expectRefused(world, *again, "below a root that is not there", world.root / "missing" / "disk");
}

TEST(PathsOfACreate, AFileThatAnotherProgramWritesToIsRefusedOfEveryMember) {
    World world;
    const auto engine = world.boot();
    write(world.images / "busy", "half");
    {
        const UniqueFd writer = openFile(world.images / "busy", O_WRONLY);
        expectRefused(world, *engine, "open for writing", world.images / "busy", ErrorKind::Conflict);
    }
    CreateRequest request = world.request();
    request.rootfs = world.images / "busy";
    EXPECT_EQ(contentOf(engine->create(request).vm.paths.dataDir / "rootfs.ext4"), "half");
}

TEST(PathsOfACreate, TheDisksOfAnotherVmAreRefusedOfEveryMemberUnderEveryName) {
    World world;
    world.config.imageRoots.push_back(world.config.dataRoot);  // as far as an operator can open the door
    auto engine = world.boot();
    CreateRequest request = world.request();
    request.id = RecordId::parse("first");
    request.dataDisk = world.images / "data.ext4";
    const VmView first = engine->create(request).vm;
    fs::create_hard_link(first.paths.dataDir / "rootfs.ext4", world.images / "linked-root");
    fs::create_hard_link(world.images / "data.ext4", world.images / "linked-data");
    for (int server = 0; server < 2; ++server) {
        expectRefused(world, *engine, "its data disk", world.images / "data.ext4", ErrorKind::AlreadyExists);
        expectRefused(world, *engine, "a hard link to it", world.images / "linked-data", ErrorKind::AlreadyExists);
        expectRefused(world, *engine, "a hard link to its root disk", world.images / "linked-root",
                      ErrorKind::AlreadyExists);
        engine.reset();
        engine = world.boot();  // what the next server reads from records holds as well
    }
    CreateRequest inside = world.request();
    for (const fs::path& path : {first.paths.dataDir / "kernel", world.config.dataRoot / "." / "first" / "kernel"}) {
        inside.dataDisk = path;
        try {
            static_cast<void>(engine->create(inside));
            ADD_FAILURE() << "a file in the data folder of a VM is a data disk";
        } catch (const Error& error) {
            EXPECT_EQ(error.field(), "dataDisk");
            EXPECT_NE(std::string(error.what()).find("data folder of a VM"), std::string::npos) << error.what();
        }
    }
    fs::create_directory(world.config.dataRoot / ".cache");
    write(world.config.dataRoot / ".cache" / "kernel", "what a VM will boot");
    inside.dataDisk = world.config.dataRoot / ".cache" / "kernel";
    try {
        static_cast<void>(engine->create(inside));
        ADD_FAILURE() << "a file of the server's own is a data disk";
    } catch (const Error& error) {
        EXPECT_EQ(error.field(), "dataDisk");
        EXPECT_NE(std::string(error.what()).find("folder of the server's own"), std::string::npos) << error.what();
    }
    fs::remove_all(world.config.dataRoot / ".cache");
    engine->remove("first", false);
    write(world.config.dataRoot / "loose", "in no folder of a VM");
    inside.dataDisk = world.config.dataRoot / "loose";
    engine->remove(engine->create(inside).vm.id, false);
    fs::remove(world.config.dataRoot / "loose");
    CreateRequest second = world.request();
    second.dataDisk = world.images / "linked-data";
    static_cast<void>(engine->create(second));
    EXPECT_EQ(world.contradictions(*engine), "");
}

TEST(PathsOfACreate, OneFileIsNotImageAndDataDiskAtOnce) {
    World world;
    const auto engine = world.boot();
    fs::create_hard_link(world.images / "root.ext4", world.images / "linked");
    write(world.images / "initrd", "initrd");
    for (const char* image : {"root.ext4", "vmlinuz", "initrd", "linked"}) {
        CreateRequest request = world.request();
        request.initrd = world.images / "initrd";
        request.dataDisk = world.images / image;
        EXPECT_THROW(static_cast<void>(engine->create(request)), Error) << image;
    }
    EXPECT_TRUE(engine->list().empty());
}

TEST(PathsOfACreate, ADataDiskThatWasReplacedIsLookedAtAgainAtTheStart) {
    World world;
    const auto engine = world.boot();
    CreateRequest request = world.request();
    request.id = RecordId::parse("first");
    request.dataDisk = world.images / "data.ext4";
    static_cast<void>(engine->create(request));
    // The operator puts a new disk there, and gives the old one, under its new name, to another VM.
    fs::rename(world.images / "data.ext4", world.images / "old.ext4");
    write(world.images / "data.ext4", "new");
    request.id = RecordId::parse("second");
    request.dataDisk = world.images / "old.ext4";
    static_cast<void>(engine->create(request));
    EXPECT_EQ(engine->start("first").state, VmState::Running);
    EXPECT_EQ(engine->start("second").state, VmState::Running);
    engine->stop("first");
    // And then makes both names one file.
    fs::remove(world.images / "data.ext4");
    fs::create_hard_link(world.images / "old.ext4", world.images / "data.ext4");
    try {
        static_cast<void>(engine->start("first"));
        ADD_FAILURE() << "two guests write to one disk";
    } catch (const Error& error) {
        EXPECT_EQ(error.kind(), ErrorKind::AlreadyExists);
        EXPECT_NE(std::string(error.what()).find("'second'"), std::string::npos) << error.what();
    }
    EXPECT_EQ(engine->get("first").state, VmState::Stopped) << "nothing was begun";
    EXPECT_EQ(world.contradictions(*engine), "");
}

TEST(PathsOfACreate, ADataDiskThatIsNotMountedYetKeepsItsOwner) {
    World world;
    auto engine = world.boot();
    CreateRequest request = world.request();
    request.id = RecordId::parse("first");
    request.dataDisk = world.images / "data.ext4";
    static_cast<void>(engine->create(request));
    engine.reset();
    fs::rename(world.images / "data.ext4", world.root / "unmounted");
    engine = world.boot();
    fs::rename(world.root / "unmounted", world.images / "data.ext4");
    request.id = RecordId::parse("second");
    EXPECT_THROW(static_cast<void>(engine->create(request)), Error);
    EXPECT_EQ(engine->start("first").state, VmState::Running);
}

TEST(PathsOfACreate, ADataDiskThatIsAwayWhenItsVmEndsIsStillOwedToItsOwner) {
    if (::geteuid() != 0) GTEST_SKIP() << "needs root: files are given away";
    for (const bool again : {true, false}) {
        World world;
        const auto engine = world.boot();
        const fs::path disk = world.images / "data.ext4";
        ASSERT_EQ(::chown(disk.c_str(), 1234, 5678), 0);
        ASSERT_EQ(::chmod(disk.c_str(), 0664), 0);
        const auto ownerIs = [&](uid_t uid, mode_t mode) {
            struct stat status {};
            return ::lstat(disk.c_str(), &status) == 0 && status.st_uid == uid && (status.st_mode & 07777U) == mode;
        };
        CreateRequest request = world.request();
        request.id = RecordId::parse("first");
        request.dataDisk = disk;
        static_cast<void>(engine->create(request));
        static_cast<void>(engine->start("first"));
        ASSERT_FALSE(ownerIs(1234, 0664)) << "it is lent";
        fs::rename(disk, world.root / "unmounted");
        engine->stop("first");
        fs::rename(world.root / "unmounted", disk);
        if (again) {
            static_cast<void>(engine->start("first"));
            engine->stop("first");
        } else {
            static_cast<void>(engine->remove("first", false));
        }
        EXPECT_TRUE(ownerIs(1234, 0664)) << (again ? "after another run" : "after its end");
    }
}

TEST(PathsOfACreate, ACopyIsOfWhatWasCheckedWhileFolderAndLinkChangePlaces) {
    World world;
    const auto engine = world.boot();
    fs::create_directories(world.images / "sub");
    fs::create_directories(world.root / "outside");
    for (const std::string& member : members) {
        write(world.images / "sub" / member, "good " + member);
        write(world.root / "outside" / member, "secret");
    }
    fs::create_directory_symlink(world.root / "outside", world.images / "link");
    int made = 0;
    int refusals = 0;
    {
        const Meanwhile swapping([&] { exchange(world.images / "sub", world.images / "link"); });
        for (int i = 0; i < 3000 && (i < 150 || made == 0 || refusals == 0); ++i) {
            CreateRequest request = world.request();
            for (const char* member : {"rootfs", "kernel", "initrd"})
                setMember(request, member, world.images / "sub" / member);
            try {
                const VmView vm = engine->create(request).vm;
                ++made;
                EXPECT_EQ(contentOf(vm.paths.dataDir / "rootfs.ext4"), "good rootfs");
                EXPECT_EQ(contentOf(vm.paths.dataDir / "kernel"), "good kernel");
                EXPECT_EQ(contentOf(vm.paths.dataDir / "initrd"), "good initrd");
                engine->remove(vm.id, false);
            } catch (const Error& error) {
                EXPECT_EQ(error.kind(), ErrorKind::InvalidArgument) << error.what();
                ++refusals;
            }
        }
    }
    EXPECT_GT(made, 0);
    EXPECT_GT(refusals, 0);
    EXPECT_EQ(world.contradictions(*engine), "");
    EXPECT_TRUE(engine->list().empty());
}

TEST(PathsOfACreate, AFileOfAnotherUserIsCopiedAsItIsAndTheCopyIsTheVms) {
    World world;
    const auto engine = world.boot();
    fs::permissions(world.images / "root.ext4", fs::perms::all);  // anybody may write to it, before and after
    const VmView vm = engine->create(world.request()).vm;
    write(world.images / "root.ext4", "poison");
    EXPECT_EQ(contentOf(vm.paths.dataDir / "rootfs.ext4"), "a disk");
    struct stat status {};
    ASSERT_EQ(::stat((vm.paths.dataDir / "rootfs.ext4").c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 0777U, 0640U) << "the mode of the given file is not the copy's";
}

}  // namespace
}  // namespace mergen::engine::test
