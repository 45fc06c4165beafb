#include <filesystem>
#include <string>
#include <sys/stat.h>
#include <unistd.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <mergen/base/file.hpp>
#include <mergen/base/trust.hpp>
#include <mergen/sdk/error.hpp>

#include "test_host.hpp"

namespace mergen {
namespace {

using ::testing::HasSubstr;

class TrustedProgram : public ::testing::Test {
protected:
    std::filesystem::path program(mode_t mode) {
        writeFileAtomically(host_.root() / "program", "#!/bin/sh\n", mode);
        return host_.root() / "program";
    }

    Error refusal(const std::filesystem::path& path) {
        try {
            ADD_FAILURE() << trustedProgram(path) << " is trusted";
        } catch (const Error& error) {
            return error;
        }
        return Error(ErrorKind::Internal, "no error");
    }

    test::TestHost host_{nullptr};
};

TEST_F(TrustedProgram, BareNameIsLookedForWhereProgramsAre) {
    const std::filesystem::path found = trustedProgram("sh");
    EXPECT_TRUE(found.is_absolute());
    EXPECT_EQ(found, std::filesystem::canonical("/bin/sh")) << "without links";
    EXPECT_EQ(refusal("no-such-program-anywhere").kind(), ErrorKind::NotFound);
}

TEST_F(TrustedProgram, RelativePathsAreNoPrograms) {
    for (const char* path : {"", ".", "..", "./sh", "bin/sh", "../bin/sh"})
        EXPECT_EQ(refusal(path).kind(), ErrorKind::InvalidArgument) << path;
}

TEST_F(TrustedProgram, OneThatOthersCanWriteIsRefused) {
    EXPECT_EQ(trustedProgram(program(0755)), host_.root() / "program");
    for (const mode_t mode : {mode_t{0775}, mode_t{0757}}) {
        const Error error = refusal(program(mode));
        EXPECT_EQ(error.kind(), ErrorKind::PermissionDenied);
        EXPECT_THAT(error.what(), HasSubstr("chmod go-w"));
    }
}

TEST_F(TrustedProgram, OneInAFolderThatOthersCanWriteIsRefused) {
    static_cast<void>(program(0755));
    const std::filesystem::path folder = host_.root() / "open";
    makeDirectories(folder, 0777);
    writeFileAtomically(folder / "program", "#!/bin/sh\n", 0755);
    EXPECT_THAT(refusal(folder / "program").what(), HasSubstr("the folder " + folder.string()));
}

TEST_F(TrustedProgram, OneOfAnotherUserIsRefused) {
    if (::geteuid() != 0) GTEST_SKIP() << "needs root, to give a file away";
    const std::filesystem::path path = program(0755);
    ASSERT_EQ(::chown(path.c_str(), 12345, 12345), 0);
    EXPECT_THAT(refusal(path).what(), HasSubstr("belongs to uid 12345"));
}

TEST_F(TrustedProgram, WhatCannotBeExecutedIsRefused) {
    EXPECT_EQ(refusal(host_.root() / "none").kind(), ErrorKind::NotFound);
    EXPECT_EQ(refusal(host_.root()).kind(), ErrorKind::InvalidArgument);
    EXPECT_EQ(refusal(program(0644)).kind(), ErrorKind::PermissionDenied);
}

}  // namespace
}  // namespace mergen
