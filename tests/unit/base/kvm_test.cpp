#include <cerrno>
#include <chrono>
#include <filesystem>
#include <string>
#include <sys/stat.h>
#include <unistd.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <mergen/base/file.hpp>
#include <mergen/base/kvm.hpp>

#include "test_host.hpp"

namespace mergen {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;

/// The host's KVM is played by a file and by small programs in the probe's place: what a real one does cannot be
/// chosen.
class KvmProbe : public ::testing::Test {
protected:
    std::filesystem::path device(mode_t mode) {
        const std::filesystem::path path = host_.root() / "kvm";
        writeFileAtomically(path, "", mode);
        return path;
    }

    test::TestHost host_{nullptr};
};

TEST_F(KvmProbe, GuestThatIsThroughMakesKvmUsable) {
    const DeviceFinding found = findKvm({"/bin/echo", device(0666)});
    EXPECT_TRUE(found.usable) << found.reason;
    EXPECT_FALSE(found.group.has_value()) << "everybody may open it";
    EXPECT_THAT(found.reason, HasSubstr("2000000")) << "the program's words";
}

TEST_F(KvmProbe, ProgramThatSaysNoMakesItUnusable) {
    const DeviceFinding found = findKvm({"/bin/false", device(0666)});
    EXPECT_FALSE(found.usable);
    EXPECT_THAT(found.reason, HasSubstr("exit status 1"));
}

TEST_F(KvmProbe, MissingProgramMakesItUnusable) {
    const DeviceFinding found = findKvm({host_.root() / "no-such-program", device(0666)});
    EXPECT_FALSE(found.usable);
    EXPECT_THAT(found.reason, HasSubstr("no-such-program"));
}

TEST_F(KvmProbe, GuestThatDoesNotComeBackMakesItUnusable) {
    const std::filesystem::path fifo = host_.root() / "kvm";
    ASSERT_EQ(::mkfifo(fifo.c_str(), 0666), 0);
    ASSERT_EQ(::chmod(fifo.c_str(), 0666), 0);
    const DeviceFinding found = findKvm({"/bin/cat", fifo, 50ms});  // nobody writes, so that cat waits for ever
    EXPECT_FALSE(found.usable);
    EXPECT_THAT(found.reason, HasSubstr("did not come back"));
}

TEST_F(KvmProbe, MissingDeviceMakesItUnusable) {
    const DeviceFinding found = findKvm({"/bin/true", host_.root() / "kvm"});
    EXPECT_FALSE(found.usable);
    EXPECT_THAT(found.reason, HasSubstr("No such file"));
}

TEST_F(KvmProbe, DeviceForItsOwnerAloneIsNotForVmsWithTheirOwnUser) {
    if (::geteuid() != 0) GTEST_SKIP() << "needs root: an ordinary user's VMs run as that user";
    EXPECT_FALSE(findKvm({"/bin/true", device(0600)}).usable);
    const std::filesystem::path shared = device(0660);
    ASSERT_EQ(::chown(shared.c_str(), 0, 12345), 0);
    const DeviceFinding found = findKvm({"/bin/true", shared});
    EXPECT_TRUE(found.usable) << found.reason;
    EXPECT_EQ(found.group, 12345U);

    ASSERT_EQ(::chown(shared.c_str(), 0, 0), 0);
    const DeviceFinding ofRoot = findKvm({"/bin/true", shared});
    EXPECT_FALSE(ofRoot.usable) << "a VM would be in root's group";
    EXPECT_THAT(ofRoot.reason, HasSubstr("chgrp"));
}

TEST_F(KvmProbe, DeviceThatOnlyItsOwnerMayOpenIsTriedAllTheSameWhereThatDoesNotCount) {
    EXPECT_TRUE(tryKvm({"/bin/echo", device(0600)}).usable);
    EXPECT_FALSE(tryKvm({"/bin/false", device(0600)}).usable);
    const DeviceFinding missing = tryKvm({"/bin/echo", host_.root() / "none"});
    EXPECT_FALSE(missing.usable);
    EXPECT_THAT(missing.reason, HasSubstr("No such file"));
}

TEST_F(KvmProbe, VerdictIsRememberedUntilSomethingChanges) {
    const std::filesystem::path program = host_.root() / "probe";
    const std::filesystem::path memory = host_.root() / "memory";
    const auto answer = [&](const std::string& words, int status) {
        writeFileAtomically(program, "#!/bin/sh\necho " + words + "\nexit " + std::to_string(status) + "\n", 0755);
    };
    const KvmTrial trial{.program = program, .device = device(0666), .memory = memory};
    answer("first", 0);
    EXPECT_EQ(findKvm(trial).reason, "first");
    struct stat status {};
    ASSERT_EQ(::stat(memory.c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 0777U, 0600U);

    // Another answer of a program that looks the same is not asked for.
    const auto made = std::filesystem::last_write_time(program);
    answer("second", 1);
    std::filesystem::last_write_time(program, made);
    const DeviceFinding remembered = findKvm(trial);
    EXPECT_EQ(remembered.reason, "first");
    EXPECT_TRUE(remembered.usable);

    std::filesystem::last_write_time(program, made + std::chrono::seconds(1));
    const DeviceFinding asked = findKvm(trial);
    EXPECT_EQ(asked.reason, "second") << "the program changed";
    EXPECT_FALSE(asked.usable);

    writeFileAtomically(memory, "nonsense", 0600);
    EXPECT_EQ(findKvm(trial).reason, "second") << "what is no memory of ours is passed over";

    std::string text = readFile(memory, 8192).value();
    text.replace(text.find("boot ") + 5, 8, "00000000");
    writeFileAtomically(memory, text, 0600);
    answer("third", 0);
    std::filesystem::last_write_time(program, made + std::chrono::seconds(1));
    EXPECT_EQ(findKvm(trial).reason, "third") << "the host booted anew";
}

TEST_F(KvmProbe, ProgramThatCannotBeRunIsNotRemembered) {
    const std::filesystem::path memory = host_.root() / "memory";
    EXPECT_FALSE(findKvm({.program = host_.root() / "none", .device = device(0666), .memory = memory}).usable);
    EXPECT_FALSE(std::filesystem::exists(memory));
}

TEST_F(KvmProbe, RealProgramRefusesWhatIsNoKvm) {
    const DeviceFinding found = findKvm({MERGEN_KVM_PROBE, "/dev/null"});
    EXPECT_FALSE(found.usable);
    EXPECT_THAT(found.reason, HasSubstr("not KVM's device"));
}

TEST_F(KvmProbe, RealProgramComesToAVerdictAboutThisHost) {
    if (::access("/dev/kvm", R_OK | W_OK) != 0) GTEST_SKIP() << "this host or user has no /dev/kvm";
    const DeviceFinding found = findKvm({MERGEN_KVM_PROBE, "/dev/kvm"});
    EXPECT_NE(found.reason, "");
    RecordProperty("kvm", found.reason);
}

}  // namespace
}  // namespace mergen
