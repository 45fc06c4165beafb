#include <sys/stat.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <mergen/sdk/error.hpp>
#include <mergen/server/folders.hpp>

#include "server_test_support.hpp"

namespace mergen::server {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

PathsSection pathsBelow(const std::filesystem::path& root) {
    PathsSection paths;
    paths.configRoot = root / "etc/vm.d";
    paths.dataRoot = root / "lib";
    paths.runRoot = root / "run";
    paths.imageRoots = {root / "lib/images"};
    return paths;
}

mode_t modeOf(const std::filesystem::path& path) {
    struct stat status {};
    EXPECT_EQ(::stat(path.c_str(), &status), 0) << path;
    return status.st_mode & 07777U;
}

std::string refusalOf(const PathsSection& paths) {
    try {
        prepareFolders(paths, nullLog());
    } catch (const Error& error) {
        EXPECT_EQ(error.kind(), ErrorKind::PermissionDenied) << error.what();
        return error.what();
    }
    return "accepted";
}

TEST(Folders, AreMadeWithTheModesThatTheVmsNeed) {
    const TempDir dir;
    prepareFolders(pathsBelow(dir.path()), nullLog());
    EXPECT_EQ(modeOf(dir.path() / "etc/vm.d"), 0750U);
    EXPECT_EQ(modeOf(dir.path() / "lib"), 0751U);
    EXPECT_EQ(modeOf(dir.path() / "run"), 0711U);
    EXPECT_EQ(modeOf(dir.path() / "lib/images"), 0755U);
}

TEST(Folders, ThatExistKeepTheirModes) {
    const TempDir dir;
    std::filesystem::create_directory(dir.path() / "lib");
    ::chmod((dir.path() / "lib").c_str(), 0755);
    prepareFolders(pathsBelow(dir.path()), nullLog());
    prepareFolders(pathsBelow(dir.path()), nullLog());
    EXPECT_EQ(modeOf(dir.path() / "lib"), 0755U);
}

TEST(Folders, ThatOthersCanWriteAreRefused) {
    const TempDir dir;
    const PathsSection paths = pathsBelow(dir.path());
    prepareFolders(paths, nullLog());
    ::chmod(paths.dataRoot.c_str(), 0777);
    EXPECT_THAT(refusalOf(paths), HasSubstr("of [paths] data_root can be written by others (mode 0777)"));
    ::chmod(paths.dataRoot.c_str(), 0771);
    EXPECT_THAT(refusalOf(paths), HasSubstr("of [paths] data_root can be written by others (mode 0771)"));
}

TEST(Folders, ThatVmsCannotReachAreRefusedNamingTheFolderInTheWay) {
    if (!isRoot()) GTEST_SKIP() << "needs root: without it a VM runs as ourselves, and nothing is in the way";
    const TempDir dir;
    std::filesystem::create_directory(dir.path() / "closed");
    ::chmod((dir.path() / "closed").c_str(), 0700);
    PathsSection paths = pathsBelow(dir.path());
    paths.runRoot = dir.path() / "closed/run";
    EXPECT_EQ(refusalOf(paths), "the VMs' own users cannot reach [paths] run_root = " + paths.runRoot.string() + ": " +
                                    (dir.path() / "closed").string() + " has mode 0700; run 'chmod o+x " +
                                    (dir.path() / "closed").string() + "', or choose another folder");
}

TEST(Folders, ThatBelongToSomebodyElseAreRefused) {
    if (!isRoot()) GTEST_SKIP() << "needs root, to give a folder away";
    const TempDir dir;
    const PathsSection paths = pathsBelow(dir.path());
    prepareFolders(paths, nullLog());
    ASSERT_EQ(::chown(paths.configRoot.c_str(), 1234, 1234), 0);
    EXPECT_THAT(refusalOf(paths),
                HasSubstr("of [paths] config_root belongs to the user 1234, neither to root nor to us"));
}

TEST(Folders, AFileInThePlaceOfOneIsAnError) {
    const TempDir dir;
    dir.write("run", "");
    EXPECT_THROW(prepareFolders(pathsBelow(dir.path()), nullLog()), Error);
}

TEST(Folders, AnImageRootThatIsMissingIsWarnedOf) {
    const TempDir dir;
    PathsSection paths = pathsBelow(dir.path());
    paths.imageRoots.push_back(dir.path() / "none");
    EventLog log;
    prepareFolders(paths, log);
    EXPECT_THAT(log.events, ElementsAre("paths.image_root.missing"));
    EXPECT_FALSE(std::filesystem::exists(dir.path() / "none"));
}

}  // namespace
}  // namespace mergen::server
