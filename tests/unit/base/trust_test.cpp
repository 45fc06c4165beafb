#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <sys/stat.h>
#include <unistd.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <mergen/base/trust.hpp>
#include <mergen/sdk/error.hpp>

namespace mergen {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

class TrustedFiles : public testing::Test {
protected:
    void SetUp() override {
        std::string pattern = (fs::temp_directory_path() / "mergen-trust-XXXXXX").string();
        ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
        folder_ = pattern;
        file_ = folder_ / "a.ini";
        std::ofstream(file_) << "content";
        ::chmod(file_.c_str(), 0644);
    }
    void TearDown() override { fs::remove_all(folder_); }

    static std::string read(const fs::path& file) { return readTrustedFile(file, /*limit=*/16, "the file"); }

    /// Kind and text of the refusal.
    static std::pair<ErrorKind, std::string> refusal(const std::function<void()>& action) {
        try {
            action();
        } catch (const Error& error) {
            return {error.kind(), error.what()};
        }
        ADD_FAILURE() << "was taken";
        return {};
    }
    std::pair<ErrorKind, std::string> refusalOf(const fs::path& file) {
        return refusal([&] { static_cast<void>(read(file)); });
    }

    fs::path folder_, file_;
};

TEST_F(TrustedFiles, AreReadAlsoThroughALinkAndInAStickyFolder) {
    EXPECT_EQ(read(file_), "content");
    fs::create_symlink(file_, folder_ / "link");
    EXPECT_EQ(read(folder_ / "link"), "content");
    ::chmod(folder_.c_str(), 01777);
    EXPECT_EQ(read(file_), "content");
    EXPECT_EQ(refusal([&] { static_cast<void>(trustedDirectory(folder_, "the folder")); }).first,
              ErrorKind::PermissionDenied);
}

TEST_F(TrustedFiles, ThatOthersCanWriteAreRefused) {
    for (const mode_t mode : {0664, 0646, 0666}) {
        ::chmod(file_.c_str(), mode);
        const auto [kind, text] = refusalOf(file_);
        EXPECT_EQ(kind, ErrorKind::PermissionDenied);
        EXPECT_THAT(text, HasSubstr("so others than its owner can write it (chmod go-w)"));
    }
}

TEST_F(TrustedFiles, InAFolderThatOthersCanWriteAreRefusedAsTheFolderIs) {
    fs::create_directory(folder_ / "below");
    fs::rename(file_, folder_ / "below" / "a.ini");
    ::chmod(folder_.c_str(), 0777);
    EXPECT_THAT(refusalOf(folder_ / "below" / "a.ini").second,
                HasSubstr("the folder " + fs::canonical(folder_).string() + " above the file has mode 0777"));
    EXPECT_THAT(refusal([&] { static_cast<void>(trustedDirectory(folder_ / "below", "the folder")); }).second,
                HasSubstr("has mode 0777"));
}

TEST_F(TrustedFiles, ALinkThatOthersCanReplaceIsRefused) {
    fs::create_directory(folder_ / "open");
    fs::create_symlink(file_, folder_ / "open" / "link");
    ::chmod((folder_ / "open").c_str(), 0777);
    EXPECT_THAT(refusalOf(folder_ / "open" / "link").second, HasSubstr("has mode 0777"));
}

TEST_F(TrustedFiles, OfAnotherUserAreRefused) {
    if (::geteuid() != 0) GTEST_SKIP() << "only root can give a file to another user";
    ASSERT_EQ(::chown(file_.c_str(), 65534, 65534), 0);
    EXPECT_THAT(refusalOf(file_).second, HasSubstr("the file belongs to uid 65534, who could change it"));
}

TEST_F(TrustedFiles, MustBeRegularThereAndNotTooLarge) {
    EXPECT_EQ(refusalOf(folder_ / "none").first, ErrorKind::NotFound);
    EXPECT_EQ(refusalOf(folder_).first, ErrorKind::InvalidArgument);
    ASSERT_EQ(::mkfifo((folder_ / "fifo").c_str(), 0600), 0);
    EXPECT_EQ(refusalOf(folder_ / "fifo").first, ErrorKind::InvalidArgument);
    std::ofstream(file_) << std::string(17, 'x');
    EXPECT_EQ(refusalOf(file_).first, ErrorKind::ResourceExhausted);
}

}  // namespace
}  // namespace mergen
