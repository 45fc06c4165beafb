// openBeneath(): what stands at the path that a request names.
#include <array>
#include <optional>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <vector>

#include <gtest/gtest.h>

#include "scene.hpp"

namespace mergen::test {
namespace {

namespace fs = std::filesystem;

class OpenBeneath : public ::testing::Test {
protected:
    OpenBeneath() {
        fs::create_directories(images / "sub" / "deep");
        fs::create_directory(outside);
        for (const fs::path& folder : {images, images / "sub", images / "sub" / "deep"}) write(folder / "disk", "disk");
        write(outside / "disk", "secret");
    }

    /// Why `path` is refused, which it must be.
    std::string refused(const fs::path& path, ErrorKind kind) const {
        try {
            static_cast<void>(openBeneath(roots, path, O_RDONLY));
        } catch (const Error& error) {
            EXPECT_EQ(error.kind(), kind) << error.what();
            return error.what();
        }
        ADD_FAILURE() << path << " is taken";
        return {};
    }
    [[nodiscard]] std::string taken(const fs::path& path) const {
        return contentOf(openBeneath(roots, path, O_RDONLY));
    }

    Scene scene;
    fs::path images = scene.root / "images";
    fs::path outside = scene.root / "outside";
    std::vector<fs::path> roots{images};
};

TEST_F(OpenBeneath, TakesPlainFilesAtEveryDepth) {
    EXPECT_EQ(taken(images / "disk"), "disk");
    EXPECT_EQ(taken(images / "sub" / "deep" / "disk"), "disk");
    EXPECT_EQ(taken(images / "." / "sub" / "." / "disk"), "disk");
    EXPECT_EQ(taken(fs::path(images.string() + "//sub///disk")), "disk");
}

TEST_F(OpenBeneath, RefusesEveryWayUpAlsoOneThatStaysInside) {
    refused(images / ".." / "outside" / "disk", ErrorKind::PermissionDenied);
    refused(images / "sub" / ".." / ".." / "outside" / "disk", ErrorKind::PermissionDenied);
    refused(images / "sub" / ".." / "disk", ErrorKind::PermissionDenied);
    refused(images / "disk" / "..", ErrorKind::PermissionDenied);
    refused(images / ".." / "images" / "disk", ErrorKind::PermissionDenied);
    EXPECT_NE(refused(images / "sub" / ".." / "disk", ErrorKind::PermissionDenied).find("'..'"), std::string::npos);
}

TEST_F(OpenBeneath, RefusesLinksAtEveryComponentWhereverTheyLead) {
    const std::array<std::pair<fs::path, fs::path>, 4> folders{
        {{"absolute", outside}, {"relative", "../outside"}, {"inside", "sub"}, {"inside-absolute", images / "sub"}}};
    for (const auto& [name, target] : folders) {
        fs::create_directory_symlink(target, images / name);
        fs::create_directory_symlink(target.is_absolute() ? target : ".." / target, images / "sub" / name);
        EXPECT_NE(refused(images / name / "disk", ErrorKind::PermissionDenied).find("link"), std::string::npos);
        refused(images / "sub" / name / "disk", ErrorKind::PermissionDenied);
        refused(images / name / "deep" / "disk", ErrorKind::PermissionDenied);
    }
    const std::array<std::pair<fs::path, fs::path>, 5> files{{{"file-absolute", outside / "disk"},
                                                              {"file-relative", "../outside/disk"},
                                                              {"file-inside", "disk"},
                                                              {"file-nowhere", "none"},
                                                              {"file-itself", "file-itself"}}};
    for (const auto& [name, target] : files) {
        fs::create_symlink(target, images / name);
        refused(images / name, ErrorKind::PermissionDenied);
    }
}

TEST_F(OpenBeneath, RefusesMagicLinks) {
    const UniqueFd secret = openFile(outside / "disk", O_RDONLY);
    const fs::path process = fs::path("/proc") / std::to_string(::getpid());
    roots = {"/proc"};
    refused(process / "fd" / std::to_string(secret.get()), ErrorKind::PermissionDenied);
    refused(fs::path("/proc/self/fd") / std::to_string(secret.get()), ErrorKind::PermissionDenied);
    refused(process / "root" / "etc" / "passwd", ErrorKind::PermissionDenied);
    refused(process / "cwd", ErrorKind::PermissionDenied);
    refused(process / "exe", ErrorKind::PermissionDenied);
}

TEST_F(OpenBeneath, RefusesWhatIsMountedBelowTheRoot) {
    roots = {"/"};
    EXPECT_NE(refused("/proc/version", ErrorKind::PermissionDenied).find("mounted"), std::string::npos);
    roots = {"/", "/proc"};  // named by itself, it is a root
    EXPECT_NE(taken("/proc/version"), "");
}

TEST_F(OpenBeneath, NeverOpensWhatIsNoRegularFile) {
    fs::create_directory(images / "folder");
    ASSERT_EQ(::mkfifo((images / "fifo").c_str(), 0666), 0);
    const UniqueFd server(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    (images / "socket").string().copy(static_cast<char*>(address.sun_path), sizeof address.sun_path - 1);
    ASSERT_EQ(::bind(server.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    for (const char* name : {"folder", "fifo", "socket"}) {
        const std::string why = refused(images / name, ErrorKind::InvalidArgument);
        EXPECT_NE(why.find(std::string(name) == "folder" ? "a folder" : "no regular file"), std::string::npos) << why;
    }
    // A reader of a FIFO is seen by its writer: nobody has come, not even for a moment.
    EXPECT_LT(::open((images / "fifo").c_str(), O_WRONLY | O_NONBLOCK | O_CLOEXEC), 0);
    EXPECT_EQ(errno, ENXIO);
    roots = {"/dev"};
    refused("/dev/zero", ErrorKind::InvalidArgument);
    refused("/dev/tty", ErrorKind::InvalidArgument);
}

TEST_F(OpenBeneath, RefusesDevicesBelowAnImageRoot) {
    if (::geteuid() != 0) GTEST_SKIP() << "needs root, to make device nodes";
    // Numbers that no driver has: opening one would be ENXIO, and is not even tried.
    if (::mknod((images / "block").c_str(), S_IFBLK | 0666, makedev(259, 1048575)) != 0 ||
        ::mknod((images / "character").c_str(), S_IFCHR | 0666, makedev(10, 1048575)) != 0) {
        GTEST_SKIP() << "no device nodes can be made here";
    }
    refused(images / "block", ErrorKind::InvalidArgument);
    refused(images / "character", ErrorKind::InvalidArgument);
}

TEST_F(OpenBeneath, RefusesOddNames) {
    refused("images/disk", ErrorKind::PermissionDenied);
    refused("", ErrorKind::PermissionDenied);
    refused(images, ErrorKind::PermissionDenied);
    refused(scene.root / "imagesX" / "disk", ErrorKind::PermissionDenied);
    refused(images / "none" / "disk", ErrorKind::NotFound);
    refused(images / "disk" / "disk", ErrorKind::NotFound);
    refused(fs::path((images / "disk").string() + "/"), ErrorKind::NotFound);
    refused(fs::path((images / "disk").string() + std::string("\0x", 2)), ErrorKind::InvalidArgument);
    EXPECT_THROW(static_cast<void>(openBeneath(roots, images / std::string(256, 'x'), O_RDONLY)), Error);
    fs::path deep = images;
    for (int i = 0; i < 2100; ++i) deep /= "d";
    EXPECT_THROW(static_cast<void>(openBeneath(roots, deep, O_RDONLY)), Error);
    // To the kernel a name is bytes; that JSON has only UTF-8 is the API's business.
    write(images / "\xff\xfe", "bytes");
    EXPECT_EQ(taken(images / "\xff\xfe"), "bytes");
}

TEST_F(OpenBeneath, TheRootItselfMayBeALinkAndMayBeMissing) {
    fs::create_directory_symlink(images, scene.root / "alias");
    roots = {scene.root / "alias"};
    EXPECT_EQ(taken(scene.root / "alias" / "disk"), "disk");
    refused(images / "disk", ErrorKind::PermissionDenied);
    roots = {scene.root / "missing", images};
    refused(scene.root / "missing" / "disk", ErrorKind::NotFound);
    EXPECT_EQ(taken(images / "disk"), "disk");
    roots = {images / "disk"};
    EXPECT_THROW(static_cast<void>(openBeneath(roots, images / "disk" / "x", O_RDONLY)), Error);
    roots = {};
    refused(images / "disk", ErrorKind::PermissionDenied);
}

TEST_F(OpenBeneath, OfNestedRootsTheNearestCountsInAnyOrder) {
    // A link that is refused within a root may itself be one.
    fs::create_directory_symlink(outside, images / "more");
    for (const auto& order : {std::vector<fs::path>{images, images / "more"}, {images / "more", images}}) {
        roots = order;
        EXPECT_EQ(taken(images / "more" / "disk"), "secret");
        EXPECT_EQ(taken(images / "sub" / "disk"), "disk");
    }
}

TEST_F(OpenBeneath, RefusesWhatWeMayNotRead) {
    if (::geteuid() == 0) GTEST_SKIP() << "root may read everything; needs an ordinary user";
    fs::permissions(images / "disk", fs::perms::none);
    refused(images / "disk", ErrorKind::PermissionDenied);
    fs::permissions(images / "sub", fs::perms::none);
    refused(images / "sub" / "disk", ErrorKind::PermissionDenied);
    fs::permissions(images / "sub", fs::perms::owner_all);
}

constexpr int raceRounds = 4000;

TEST_F(OpenBeneath, NeverLeavesTheRootWhileAFolderAndALinkChangePlaces) {
    fs::create_directory_symlink(outside, images / "link");
    int inside = 0;
    int refusals = 0;
    {
        const Meanwhile swapping([&] { exchange(images / "sub", images / "link"); });
        // Goes on until both were met; the loop is bounded all the same.
        for (int i = 0; i < raceRounds * 50 && (i < raceRounds || inside == 0 || refusals == 0); ++i) {
            try {
                EXPECT_EQ(taken(images / "sub" / "disk"), "disk");
                ++inside;
            } catch (const Error& error) {
                EXPECT_EQ(error.kind(), ErrorKind::PermissionDenied) << error.what();
                ++refusals;
            }
        }
    }
    EXPECT_GT(inside, 0);
    EXPECT_GT(refusals, 0);
}

TEST_F(OpenBeneath, NeverReadsALinksTargetOrAFifoWhileTheFileChangesPlacesWithIt) {
    for (const char* other : {"link", "fifo"}) {
        if (std::string(other) == "link") {
            fs::create_symlink(outside / "disk", images / other);
        } else {
            ASSERT_EQ(::mkfifo((images / other).c_str(), 0600), 0);
        }
        int inside = 0;
        int refusals = 0;
        std::optional<Meanwhile> swapping;
        swapping.emplace([&] { exchange(images / "disk", images / other); });
        for (int i = 0; i < raceRounds * 50 && (i < raceRounds || inside == 0 || refusals == 0); ++i) {
            try {
                EXPECT_EQ(taken(images / "disk"), "disk");
                ++inside;
            } catch (const Error&) {
                ++refusals;
            }
        }
        EXPECT_GT(inside, 0) << other;
        EXPECT_GT(refusals, 0) << other;
        swapping.reset();
        fs::remove(images / "disk");  // whichever of the two it is now
        fs::remove(images / other);
        write(images / "disk", "disk");
    }
}

TEST(OpenForWriting, IsSeenOfDescriptorsAndMappings) {
    const Scene scene;
    const fs::path path = scene.root / "disk";
    write(path, std::string(4096, 'x'));
    const UniqueFd reader = openFile(path, O_RDONLY);
    EXPECT_FALSE(isOpenForWriting(reader.get()));
    UniqueFd other = openFile(path, O_RDONLY);
    EXPECT_FALSE(isOpenForWriting(reader.get())) << "readers do not matter";
    for (const int flags : {O_WRONLY, O_RDWR, O_WRONLY | O_APPEND}) {
        const UniqueFd writer = openFile(path, flags);
        EXPECT_TRUE(isOpenForWriting(reader.get()));
    }
    EXPECT_FALSE(isOpenForWriting(reader.get()));
    {
        UniqueFd writer = openFile(path, O_RDWR);
        void* memory = ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, writer.get(), 0);
        ASSERT_NE(memory, MAP_FAILED);
        writer.reset();
        EXPECT_TRUE(isOpenForWriting(reader.get())) << "closed, but still mapped";
        ::munmap(memory, 4096);
    }
    EXPECT_FALSE(isOpenForWriting(reader.get()));
}

/// How often a writer has met our lease.
std::atomic<int> met{0};

TEST(OpenForWriting, AskingHurtsNeitherTheWriterNorUs) {
    const Scene scene;
    const fs::path path = scene.root / "disk";
    write(path, "x");
    const UniqueFd reader = openFile(path, O_RDONLY);
    std::atomic<int> failures{0};
    struct sigaction counting {};
    struct sigaction before {};
    counting.sa_handler = [](int) { ++met; };
    counting.sa_flags = SA_RESTART;
    ASSERT_EQ(::sigaction(SIGURG, &counting, &before), 0);
    {
        // A writer that comes while the lease is ours waits for a moment; the signal about it must not end us.
        const Meanwhile writing([&] {
            const UniqueFd writer(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
            if (!writer) ++failures;
        });
        for (int i = 0; i < 5000000 && met == 0; ++i) static_cast<void>(isOpenForWriting(reader.get()));
    }
    ::sigaction(SIGURG, &before, nullptr);
    EXPECT_GT(met, 0) << "no writer came at the right moment";
    EXPECT_EQ(failures, 0);
    EXPECT_FALSE(isOpenForWriting(reader.get()));
}

}  // namespace
}  // namespace mergen::test
