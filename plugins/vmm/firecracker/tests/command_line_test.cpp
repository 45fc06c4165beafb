#include "command_line.hpp"

#include <elf.h>
#include <filesystem>
#include <string>
#include <unistd.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <mergen/base/file.hpp>
#include <mergen/sdk/error.hpp>

#include "jail.hpp"
#include "kernel_image.hpp"
#include "kernels.hpp"
#include "test_host.hpp"
#include "version.hpp"

namespace mergen::vmm {
namespace {

using test::elfHead;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

const Uuid uuid = Uuid::parse("0a1b2c3d-4e5f-4a6b-8c7d-9e0f1a2b3c4d");

GuestSpec guest() {
    GuestSpec spec;
    spec.vcpus = 2;
    spec.memory = MiB{256};
    spec.kernel = "/vm/kernel";
    spec.bootArguments = "console=ttyS0 reboot=k panic=1 pci=off";
    spec.disks = {{.id = "rootfs", .file = "/vm/rootfs.ext4", .readOnly = false, .root = true}};
    spec.nics = {{.id = "eth0", .tap = IfName::parse("tap-0a1b2c3d"), .mac = MacAddress::of(uuid)}};
    return spec;
}

VmmPlace place() {
    return {OwnerTag{"0a1b2c3d", uuid}, "/run/vm", "/run/vm/mergen.socket", {1900000000, 1900000000}};
}

std::string refusedField(const GuestSpec& spec) {
    try {
        checkGuest(spec);
    } catch (const Error& error) {
        EXPECT_EQ(error.kind(), ErrorKind::InvalidArgument) << error.what();
        return error.field();
    }
    return "";
}

JailOrder order() {
    return {.jailer = "/opt/jailer",
            .program = "/opt/firecracker-1.17",
            .base = "/data/.jail",
            .root = "/data/.jail/firecracker-1.17/" + uuid.str() + "/root",
            .cgroupVersion = 2,
            .parentCgroup = "mergen-0a1b2c3d",
            .cgroups = {"memory.max=1", "pids.max=34"},
            .fileSize = Bytes{4096}};
}

TEST(JailersCommandLine, IsWhole) {
    const LaunchPlan plan = jailedCommandLine(guest(), place(), order());
    EXPECT_THAT(plan.arguments,
                ElementsAre("/opt/jailer", "--id", uuid.str(), "--exec-file", "/opt/firecracker-1.17", "--uid",
                            "1900000000", "--gid", "1900000000", "--chroot-base-dir", "/data/.jail", "--cgroup-version",
                            "2", "--parent-cgroup", "mergen-0a1b2c3d", "--cgroup", "memory.max=1", "--cgroup",
                            "pids.max=34", "--resource-limit", "no-file=2048", "--resource-limit", "fsize=4096", "--",
                            "--api-sock", "/run/firecracker.socket", "--level", "Warning"));
    EXPECT_TRUE(plan.dropsPrivileges);
    EXPECT_TRUE(plan.pidNamespace) << "or it would outlive its parent, as a change of user clears PR_SET_PDEATHSIG";
    EXPECT_THAT(plan.groups, IsEmpty()) << "devices in the jail are the VM user's";
    EXPECT_THAT(plan.environment, IsEmpty());
}

TEST(JailersCommandLine, SaysNothingOfControlGroupsAndLimitsThatThereAreNot) {
    JailOrder without = order();
    without.cgroups.clear();
    without.fileSize = {};
    const LaunchPlan plan = jailedCommandLine(guest(), place(), without);
    for (const std::string& word : plan.arguments) {
        EXPECT_EQ(word.find("cgroup"), std::string::npos) << word;
        EXPECT_FALSE(word.starts_with("fsize")) << word;
    }
}

TEST(JailersCommandLine, LowersTheLimitOfOpenFilesWhereTheServersOwnIsLower) {
    JailOrder low = order();
    low.openFiles = 256;
    EXPECT_THAT(jailedCommandLine(guest(), place(), low).arguments, Contains("no-file=256"));
}

TEST(JailersCommandLine, AgainReadsTheJailsConfigurationAfterAllThatWouldHinderIsGone) {
    const LaunchPlan plan = jailedCommandLine(guest(), place(), order());
    const std::vector<std::string> added(plan.unattended.begin() + static_cast<std::ptrdiff_t>(plan.arguments.size()),
                                         plan.unattended.end());
    EXPECT_THAT(added, ElementsAre("--config-file", "/vm/firecracker.json"));
    const std::filesystem::path root = order().root;
    EXPECT_THAT(plan.stale, ElementsAre(root / "dev", root / "run", root / "old_root", root / "firecracker-1.17",
                                        root / "firecracker-1.17.pid"));
}

TEST(FirecrackerCommandLine, IsWholeAndInheritsNothing) {
    const LaunchPlan plan = commandLine(guest(), place(), "/opt/firecracker", {108});
    EXPECT_THAT(plan.arguments, ElementsAre("/opt/firecracker", "--api-sock", "/run/vm/mergen.socket", "--id",
                                            uuid.str(), "--level", "Warning"));
    EXPECT_THAT(plan.environment, IsEmpty());
    EXPECT_THAT(plan.taps, IsEmpty()) << "it opens its tap itself, by name";
    EXPECT_THAT(plan.groups, ElementsAre(108));
    EXPECT_THAT(commandLine(guest(), place(), "/opt/firecracker", {}).groups, IsEmpty());
}

TEST(FirecrackerCommandLine, UnattendedReadsItsConfigurationFromTheRunDirectory) {
    const LaunchPlan plan = commandLine(guest(), place(), "/opt/firecracker", {});
    EXPECT_THAT(plan.unattended,
                ElementsAre("/opt/firecracker", "--api-sock", "/run/vm/mergen.socket", "--id", uuid.str(), "--level",
                            "Warning", "--config-file", "/run/vm/firecracker.json"));
    EXPECT_THAT(plan.stale, ElementsAre("/run/vm/mergen.socket"));
}

TEST(FirecrackerGuest, MembersThatNoGuestCanHaveAreRefusedByName) {
    EXPECT_EQ(refusedField(guest()), "");
    GuestSpec spec = guest();
    spec.vcpus = 33;
    EXPECT_EQ(refusedField(spec), "vcpus");
    spec = guest();
    spec.memory = MiB{7};
    EXPECT_EQ(refusedField(spec), "memory");
    spec = guest();
    spec.kernel = "kernel";
    EXPECT_EQ(refusedField(spec), "kernel");
    spec = guest();
    spec.initrd = "/vm/in\xffitrd";
    EXPECT_EQ(refusedField(spec), "initrd") << "JSON cannot carry it";
    spec = guest();
    spec.disks[0].id = "root-fs";
    EXPECT_EQ(refusedField(spec), "disks[0].id") << "the API takes no hyphen in an id";
    spec = guest();
    spec.disks[0].file =
        "/vm/ro\xff"
        "ot";
    EXPECT_EQ(refusedField(spec), "disks[0].file");
    spec = guest();
    spec.nics[0].id = "eth 0";
    EXPECT_EQ(refusedField(spec), "nics[0].id");
    spec = guest();
    spec.bootArguments += " root=/dev/sda";
    EXPECT_EQ(refusedField(spec), "bootArguments");
}

TEST(FirecrackerGuest, KernelArgumentsLeaveRoomForWhatFirecrackerAdds) {
    GuestSpec spec = guest();
    spec.bootArguments = std::string(1900, 'x');
    EXPECT_EQ(refusedField(spec), "");
    spec.bootArguments = std::string(2000, 'x');
    EXPECT_EQ(refusedField(spec), "bootArguments") << "its devices and root= come after";
}

TEST(FirecrackerVersionTest, ReadsWhatTheProgramAndTheApiSay) {
    EXPECT_EQ(FirecrackerVersion::parse("1.17.0-dev"), (FirecrackerVersion{1, 17, 0}));
    EXPECT_EQ(FirecrackerVersion::parse("v1.4.12"), (FirecrackerVersion{1, 4, 12}));
    for (const char* text : {"", "1", "1.2", "1.2.x", "1.2.3.4", "v", "1..2", "99999999999.1.1"}) {
        EXPECT_FALSE(FirecrackerVersion::parse(text).has_value()) << text;
    }
    EXPECT_LT((FirecrackerVersion{1, 9, 9}), (FirecrackerVersion{1, 16, 0}));
}

TEST(FirecrackerVersionTest, WhatIsNewerThanTheProgramIsRefusedWithTheVersionThatHasIt) {
    EXPECT_NO_THROW(requireVersion({1, 16, 0}, firstWithMtu, "an MTU", "nics[0].mtu"));
    try {
        requireVersion({1, 15, 1}, firstWithMtu, "an MTU", "nics[0].mtu");
        ADD_FAILURE() << "it was taken";
    } catch (const Error& error) {
        EXPECT_EQ(error.kind(), ErrorKind::NotSupported);
        EXPECT_STREQ(error.what(), "an MTU needs Firecracker >= 1.16; this is 1.15.1");
        EXPECT_EQ(error.field(), "nics[0].mtu");
    }
}

TEST(FirecrackerVersionTest, DevicesThatAVersionLacksAreRefusedByTheirMember) {
    const auto expectRefused = [](const GuestSpec& spec, const FirecrackerVersion& version, const std::string& field) {
        try {
            requireFeatures(version, spec);
            ADD_FAILURE() << version.str() << " gives " << field;
        } catch (const Error& error) {
            EXPECT_EQ(error.kind(), ErrorKind::NotSupported);
            EXPECT_EQ(error.field(), field);
        }
        EXPECT_NO_THROW(requireFeatures({1, 17, 0}, spec));
    };
    GuestSpec spec = guest();
    EXPECT_NO_THROW(requireFeatures({1, 0, 0}, spec));
    spec.mmds = MmdsSpec{};
    expectRefused(spec, {1, 0, 9}, "mmds");
    spec.mmds->imdsCompatible = true;
    expectRefused(spec, {1, 12, 0}, "mmds.imdsCompatible");
    spec.entropy = EntropySpec{};
    expectRefused(spec, {1, 3, 0}, "entropy");
    spec.hugePages = HugePages::TwoMiB;
    expectRefused(spec, {1, 6, 0}, "hugePages");
}

TEST(FirecrackerExit, EveryCodeOfItsOwnHasAMeaning) {
    for (const int code : {1, 2, 148, 149, 150, 151, 152, 153, 154, 155, 156, 157})
        EXPECT_NE(exitMeaning({.signalled = false, .code = code}), "") << code;
    EXPECT_THAT(exitMeaning({.signalled = false, .code = 148}), HasSubstr("seccomp"));
    EXPECT_EQ(exitMeaning({.signalled = false, .code = 0}), "");
    EXPECT_EQ(exitMeaning({.signalled = true, .code = 9}), "") << "a signal speaks for itself";
}

class KernelImage : public ::testing::Test {
protected:
    std::filesystem::path file(const std::string& content) {
        const std::filesystem::path path = host_.root() / "kernel";
        writeFileAtomically(path, content, 0600);
        return path;
    }
    std::string refusal(const std::filesystem::path& path, std::optional<FirecrackerVersion> version = {},
                        KernelUse use = KernelUse::Loaded) {
        try {
            checkKernel(path, use, version);
        } catch (const Error& error) {
            EXPECT_EQ(error.field(), "kernel");
            return error.what();
        }
        return "";
    }
    static std::string bzImage() {
        std::string image(0x300, '\0');
        image.replace(0x202, 4, "HdrS");
        return image;
    }

    test::TestHost host_{nullptr};
};

TEST_F(KernelImage, ElfIsTakenAndABzImageFromItsVersionOn) {
    EXPECT_EQ(refusal(file(elfHead() + " and more"), FirecrackerVersion{1, 0, 0}), "");
    EXPECT_EQ(refusal(file(bzImage()), FirecrackerVersion{1, 17, 0}), "");
    EXPECT_EQ(refusal(file(bzImage())), "") << "the version is not known yet";
    EXPECT_THAT(refusal(file(bzImage()), FirecrackerVersion{1, 16, 1}),
                ::testing::AllOf(HasSubstr("bzImage"), HasSubstr(">= 1.17")));
}

TEST_F(KernelImage, AnElfFileOfAnotherMachineIsRefusedByItsName) {
    const auto with = [](std::size_t at, char value) {
        std::string head = elfHead();
        head[at] = value;
        return head;
    };
    for (const KernelUse use : {KernelUse::Given, KernelUse::Loaded}) {
        EXPECT_THAT(refusal(file(with(EI_CLASS, ELFCLASS32)), {}, use), HasSubstr("not of the 64-bit class"));
        EXPECT_THAT(refusal(file(with(EI_DATA, ELFDATA2MSB)), {}, use), HasSubstr("big-endian"));
        EXPECT_THAT(refusal(file(with(EI_DATA, ELFDATANONE)), {}, use), HasSubstr("no known byte order"));
        EXPECT_THAT(refusal(file(with(18, static_cast<char>(EM_AARCH64))), {}, use),
                    HasSubstr("an ELF file for aarch64, not for x86_64"));
        EXPECT_THAT(refusal(file(with(18, EM_386)), {}, use), HasSubstr("for i386"));
        EXPECT_THAT(refusal(file(with(19, 1)), {}, use), HasSubstr("for machine 318")) << "one that we have no name of";
        for (const std::size_t length : {std::size_t{4}, std::size_t{6}, std::size_t{19}})
            EXPECT_THAT(refusal(file(elfHead().substr(0, length)), {}, use), HasSubstr("header is cut off")) << length;
        EXPECT_EQ(refusal(file(elfHead().substr(0, 20)), {}, use), "") << "the rest is Firecracker's to judge";
    }
}

TEST_F(KernelImage, WhatCanBeUnpackedIsTakenFromARequestAndNotByFirecracker) {
    const FirecrackerVersion old{1, 16, 1};
    EXPECT_EQ(refusal(file(bzImage()), old, KernelUse::Given), "");
    for (const std::string packed : {"\x1f\x8b\x08 packed", "\x28\xb5\x2f\xfd packed", "\x02\x21\x4c\x18 packed"}) {
        EXPECT_EQ(refusal(file(packed), old, KernelUse::Given), "");
        EXPECT_THAT(refusal(file(packed), old), HasSubstr("compressed still"));
    }
}

TEST_F(KernelImage, AnythingElseIsRefusedWithItsNameAndWhatItIs) {
    for (const KernelUse use : {KernelUse::Given, KernelUse::Loaded}) {
        const std::filesystem::path packed = file("BZh9 packed");
        EXPECT_THAT(refusal(packed, {}, use),
                    ::testing::AllOf(HasSubstr(packed.string()), HasSubstr("bzip2"), HasSubstr("vmlinux")));
        EXPECT_THAT(refusal(file(std::string("\x5d\x00\x00 packed", 10)), {}, use), HasSubstr("compressed by lzma"));
        EXPECT_THAT(refusal(file("\x89LZO packed"), {}, use), HasSubstr("compressed by lzo"));
        EXPECT_THAT(refusal(file("\x04\x22\x4d\x18 packed"), {}, use),
                    ::testing::AllOf(HasSubstr("compressed by lz4"), HasSubstr("newer frame")));
        EXPECT_THAT(refusal(file("#!/bin/sh\n"), {}, use), HasSubstr("of an unknown kind"));
        EXPECT_THAT(refusal(file(""), {}, use), HasSubstr("of an unknown kind"));
        EXPECT_THAT(refusal(host_.root(), {}, use), HasSubstr("no regular file"));
        EXPECT_EQ(refusal(host_.root() / "none", {}, use), "") << "it need not be there yet";
    }
}

}  // namespace
}  // namespace mergen::vmm
