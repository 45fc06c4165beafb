#include "command_line.hpp"

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <mergen/sdk/error.hpp>

namespace mergen::vmm {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

VmmPlace place() {
    const OwnerTag owner{"0a1b2c3d", Uuid::parse("7f3a9c01-5e4d-4b2a-9c8d-112233445566")};
    return {owner, "/run/mergen/7f3a9c01", "/run/mergen/7f3a9c01/control.sock", {1900000001, 1900000001}};
}

DiskSpec disk(std::string id, std::filesystem::path file) {
    return {.id = std::move(id), .file = std::move(file)};
}

DiskSpec rootDisk() {
    DiskSpec root = disk("rootfs", "/data/vm/rootfs.ext4");
    root.root = true;
    return root;
}

GuestSpec guest() {
    GuestSpec spec;
    spec.vcpus = 2;
    spec.memory = MiB{512};
    spec.kernel = "/images/vmlinuz";
    spec.bootArguments = "console=ttyS0 reboot=k panic=1";
    spec.disks = {rootDisk()};
    return spec;
}

Platform emulated() {
    return {"/usr/bin/qemu-system-x86_64", Accelerator::Tcg, Machine::Q35, {}};
}

/// The field that the guest is refused for; empty, and a failure of the test, if it is taken or refused otherwise.
std::string refusedField(const std::function<void(GuestSpec&)>& spoil) {
    GuestSpec spec = guest();
    spoil(spec);
    std::string field;
    try {
        checkGuest(spec);
        ADD_FAILURE() << "checkGuest takes it";
    } catch (const Error& error) {
        EXPECT_EQ(error.kind(), ErrorKind::InvalidArgument) << error.what();
        field = error.field();
    }
    try {
        static_cast<void>(commandLine(spec, place(), emulated()));
        ADD_FAILURE() << "commandLine takes it";
    } catch (const Error& error) {
        EXPECT_EQ(error.field(), field);
    }
    return field;
}

/// What follows `option` on the command line, every time that it is there.
std::vector<std::string> valuesOf(const LaunchPlan& plan, std::string_view option) {
    std::vector<std::string> values;
    for (std::size_t i = 0; i + 1 < plan.arguments.size(); ++i)
        if (plan.arguments[i] == option) values.push_back(plan.arguments[i + 1]);
    return values;
}

TEST(QemuCommandLine, IsThisForAnEmulatedGuestWithOneDisk) {
    const LaunchPlan plan = commandLine(guest(), place(), emulated());
    EXPECT_THAT(plan.arguments,
                ElementsAre("/usr/bin/qemu-system-x86_64",                                                          //
                            "-name", "mergen:0a1b2c3d:7f3a9c01-5e4d-4b2a-9c8d-112233445566",                        //
                            "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none",                     //
                            "-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",  //
                            "-machine", "q35,usb=off,vmport=off,smbus=off,sata=off,dump-guest-core=off",            //
                            "-accel", "tcg,tb-size=128", "-cpu", "max", "-smp", "2", "-m", "512M",                  //
                            "-kernel", "/images/vmlinuz", "-append",
                            "root=/dev/nvme0n1 rw no_timer_check console=ttyS0 reboot=k panic=1",       //
                            "-device", "nvme,id=nvme,serial=mergen",                                    //
                            "-blockdev",                                                                //
                            "driver=raw,node-name=disk0,read-only=off,discard=unmap,file.driver=file,"  //
                            "file.filename=/data/vm/rootfs.ext4",                                       //
                            "-device", "nvme-ns,bus=nvme,nsid=1,drive=disk0",                           //
                            "-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console",    //
                            "-chardev", "socket,id=server,server=on,wait=off,path=/run/mergen/7f3a9c01/server.sock",
                            "-mon", "chardev=server,mode=control",  //
                            "-chardev", "socket,id=control,server=on,wait=off,path=/run/mergen/7f3a9c01/control.sock",
                            "-mon",  //
                            "chardev=control,mode=control", "-S"));
    EXPECT_TRUE(plan.environment.empty());
    EXPECT_TRUE(plan.taps.empty());
    EXPECT_TRUE(plan.groups.empty());
}

TEST(QemuCommandLine, UnattendedIsTheSameWithoutWaitingForTheServer) {
    LaunchPlan plan = commandLine(guest(), place(), emulated());
    EXPECT_EQ(plan.arguments.back(), "-S");
    plan.arguments.pop_back();
    EXPECT_EQ(plan.unattended, plan.arguments);
    EXPECT_THAT(plan.stale, ElementsAre(serverSocket(place()), place().controlSocket));
}

TEST(QemuCommandLine, IsThisForAMicrovmWithTwoDisksAndAWire) {
    GuestSpec spec = guest();
    spec.disks.insert(spec.disks.begin(), disk("data", "/data/vm/data.img"));
    spec.disks.front().readOnly = true;
    spec.nics = {{"eth0", IfName::parse("tap-7f3a9c01"), MacAddress::parse("02:fc:7f:3a:9c:01")}};
    const LaunchPlan plan = commandLine(spec, place(), {"/opt/qemu", Accelerator::Kvm, Machine::Microvm, 36});
    EXPECT_THAT(
        plan.arguments,
        ElementsAre("/opt/qemu",                                                                                     //
                    "-name", "mergen:0a1b2c3d:7f3a9c01-5e4d-4b2a-9c8d-112233445566",                                 //
                    "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none",                              //
                    "-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",           //
                    "-machine", "microvm,pcie=on,acpi=on,usb=off,dump-guest-core=off", "-device", "i8042",           //
                    "-accel", "kvm", "-cpu", "host", "-smp", "2", "-m", "512M",                                      //
                    "-kernel", "/images/vmlinuz", "-append", "root=/dev/nvme0n1 rw console=ttyS0 reboot=k panic=1",  //
                    "-device", "nvme,id=nvme,serial=mergen",                                                         //
                    "-blockdev",                                                                                     //
                    "driver=raw,node-name=disk0,read-only=off,discard=unmap,file.driver=file,"                       //
                    "file.filename=/data/vm/rootfs.ext4",                                                            //
                    "-device", "nvme-ns,bus=nvme,nsid=1,drive=disk0",                                                //
                    "-blockdev",                                                                                     //
                    "driver=raw,node-name=disk1,read-only=on,discard=unmap,file.driver=file,"                        //
                    "file.filename=/data/vm/data.img",                                                               //
                    "-device", "nvme-ns,bus=nvme,nsid=2,drive=disk1",                                                //
                    "-netdev", "tap,id=net0,fd=3",                                                                   //
                    "-device", "virtio-net-pci,netdev=net0,mac=02:fc:7f:3a:9c:01,romfile=",                          //
                    "-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console",                         //
                    "-chardev", "socket,id=server,server=on,wait=off,path=/run/mergen/7f3a9c01/server.sock", "-mon",
                    "chardev=server,mode=control",  //
                    "-chardev", "socket,id=control,server=on,wait=off,path=/run/mergen/7f3a9c01/control.sock",
                    "-mon",  //
                    "chardev=control,mode=control", "-S"));
    ASSERT_EQ(plan.taps.size(), 1U);
    EXPECT_EQ(plan.taps[0].name.str(), "tap-7f3a9c01");
    EXPECT_EQ(plan.taps[0].fd, 3);
    EXPECT_THAT(plan.groups, ElementsAre(36U));
}

TEST(QemuCommandLine, TellsTheGuestAnMtuThatIsNotItsOwnDefault) {
    GuestSpec spec = guest();
    spec.nics = {{"eth0", IfName::parse("tap-7f3a9c01"), MacAddress::parse("02:fc:7f:3a:9c:01"), 1420}};
    EXPECT_THAT(valuesOf(commandLine(spec, place(), emulated()), "-device"),
                ::testing::Contains("virtio-net-pci,netdev=net0,mac=02:fc:7f:3a:9c:01,host_mtu=1420,romfile="));
}

TEST(QemuCommandLine, EachWireHasADescriptorOfItsOwn) {
    GuestSpec spec = guest();
    for (const char* tap : {"tap-a", "tap-b"})
        spec.nics.push_back({std::string("n") + tap[4], IfName::parse(tap), MacAddress::parse("02:00:00:00:00:01")});
    const LaunchPlan plan = commandLine(spec, place(), emulated());
    EXPECT_THAT(valuesOf(plan, "-netdev"), ElementsAre("tap,id=net0,fd=3", "tap,id=net1,fd=4"));
    ASSERT_EQ(plan.taps.size(), 2U);
    EXPECT_EQ(plan.taps[1].name.str(), "tap-b");
    EXPECT_EQ(plan.taps[1].fd, 4);
}

TEST(QemuCommandLine, CommaInAPathAddsNoOption) {
    GuestSpec spec = guest();
    spec.kernel = "/images/a,b";
    spec.initrd = "/images/c,d";
    spec.disks[0].file = "/data/x,read-only=on,,y";
    VmmPlace where = place();
    where.controlSocket = "/run/a,server=off/c.sock";
    const LaunchPlan plan = commandLine(spec, where, emulated());
    EXPECT_THAT(valuesOf(plan, "-blockdev"), ElementsAre(HasSubstr("file.filename=/data/x,,read-only=on,,,,y")));
    EXPECT_THAT(valuesOf(plan, "-chardev"), Contains(HasSubstr("path=/run/a,,server=off/c.sock")));
    EXPECT_THAT(valuesOf(plan, "-chardev"), Contains(HasSubstr("path=/run/a,,server=off/server.sock")));
    EXPECT_THAT(valuesOf(plan, "-kernel"), ElementsAre("/images/a,b")) << "an argument that QEMU does not split";
    EXPECT_THAT(valuesOf(plan, "-initrd"), ElementsAre("/images/c,d")) << "likewise";
}

TEST(QemuCommandLine, CommaIsWrittenTwice) {
    EXPECT_EQ(optionValue("no comma"), "no comma");
    EXPECT_EQ(optionValue(",a,,b,"), ",,a,,,,b,,");
}

TEST(QemuCommandLine, WhatOnlyFirecrackerHasIsRefusedByItsMember) {
    const std::vector<std::pair<std::string, std::function<void(GuestSpec&)>>> members{
        {"smt", [](GuestSpec& spec) { spec.smt = true; }},
        {"hugePages", [](GuestSpec& spec) { spec.hugePages = HugePages::TwoMiB; }},
        {"cpuTemplate", [](GuestSpec& spec) { spec.cpuTemplate = "T2"; }},
        {"disks[0].limit",
         [](GuestSpec& spec) {
             spec.disks[0].limit.bandwidth = TokenBucket{1, 0, {}};
         }},
        {"disks[0].engine", [](GuestSpec& spec) { spec.disks[0].engine = IoEngine::Async; }},
        {"disks[0].cache", [](GuestSpec& spec) { spec.disks[0].cache = DiskCache::Unsafe; }},
        {"vsock", [](GuestSpec& spec) { spec.vsock = VsockSpec{}; }},
        {"balloon", [](GuestSpec& spec) { spec.balloon = BalloonSpec{}; }},
        {"entropy", [](GuestSpec& spec) { spec.entropy = EntropySpec{}; }},
        {"mmds", [](GuestSpec& spec) { spec.mmds = MmdsSpec{}; }},
        {"metrics", [](GuestSpec& spec) { spec.metrics = true; }}};
    for (const auto& [field, change] : members) {
        GuestSpec spec = guest();
        change(spec);
        try {
            checkGuest(spec);
            ADD_FAILURE() << field << " is taken";
        } catch (const Error& error) {
            EXPECT_EQ(error.kind(), ErrorKind::NotSupported);
            EXPECT_EQ(error.field(), field);
        }
    }
}

TEST(QemuCommandLine, ControlSocketHasAtMost107Bytes) {
    VmmPlace where = place();
    where.controlSocket = "/" + std::string(106, 's');
    EXPECT_NO_THROW(static_cast<void>(commandLine(guest(), where, emulated())));
    for (const std::string& path : {"/" + std::string(107, 's'), std::string("run/control.sock")}) {
        where.controlSocket = path;
        try {
            static_cast<void>(commandLine(guest(), where, emulated()));
            ADD_FAILURE() << path << " was taken";
        } catch (const Error& error) {
            EXPECT_EQ(error.kind(), ErrorKind::InvalidArgument);
        }
    }
}

TEST(QemuCommandLine, ProcessorsHaveBounds) {
    for (const unsigned count : {1U, maxVcpus}) {
        GuestSpec spec = guest();
        spec.vcpus = count;
        EXPECT_NO_THROW(checkGuest(spec));
    }
    for (const unsigned count : {0U, maxVcpus + 1, ~0U})
        EXPECT_EQ(refusedField([&](GuestSpec& spec) { spec.vcpus = count; }), "vcpus");
}

TEST(QemuCommandLine, MemoryHasBounds) {
    for (const MiB amount : {minMemory, maxMemory}) {
        GuestSpec spec = guest();
        spec.memory = amount;
        EXPECT_NO_THROW(checkGuest(spec));
    }
    for (const MiB amount : {MiB{0}, MiB{minMemory.count - 1}, MiB{maxMemory.count + 1}, MiB{~0ULL}})
        EXPECT_EQ(refusedField([&](GuestSpec& spec) { spec.memory = amount; }), "memory");
}

TEST(QemuCommandLine, PathsAreAbsoluteAndWhole) {
    EXPECT_EQ(refusedField([](GuestSpec& spec) { spec.kernel = "vmlinuz"; }), "kernel");
    EXPECT_EQ(refusedField([](GuestSpec& spec) { spec.kernel = ""; }), "kernel");
    EXPECT_EQ(refusedField([](GuestSpec& spec) { spec.kernel = std::string("/a\0b", 4); }), "kernel");
    EXPECT_EQ(refusedField([](GuestSpec& spec) { spec.initrd = "initrd.img"; }), "initrd");
    EXPECT_EQ(refusedField([](GuestSpec& spec) { spec.initrd = ""; }), "initrd");
    EXPECT_EQ(refusedField([](GuestSpec& spec) { spec.initrd = std::string("/a\0b", 4); }), "initrd");
    EXPECT_EQ(refusedField([](GuestSpec& spec) { spec.disks[0].file = "json:{}"; }), "disks[0].file");
}

TEST(QemuCommandLine, ExactlyOneDiskIsTheRoot) {
    EXPECT_EQ(refusedField([](GuestSpec& spec) { spec.disks.clear(); }), "disks");
    EXPECT_EQ(refusedField([](GuestSpec& spec) { spec.disks[0].root = false; }), "disks");
    EXPECT_EQ(refusedField([](GuestSpec& spec) {
                  spec.disks.push_back(rootDisk());
                  spec.disks[1].id = "second";
              }),
              "disks");
}

TEST(QemuCommandLine, DisksAndWiresHaveIdsOfTheirOwn) {
    EXPECT_EQ(refusedField([](GuestSpec& spec) { spec.disks.push_back(disk("rootfs", "/d")); }), "disks[1].id");
    EXPECT_EQ(refusedField([](GuestSpec& spec) { spec.disks.push_back(disk("a,b", "/d")); }), "disks[1].id");
    EXPECT_EQ(refusedField([](GuestSpec& spec) { spec.disks.push_back(disk("", "/d")); }), "disks[1].id");
    const NicSpec nic{"eth0", IfName::parse("tap0"), MacAddress::parse("02:00:00:00:00:01")};
    EXPECT_EQ(refusedField([&](GuestSpec& spec) { spec.nics = {nic, nic}; }), "nics[1].id");
    EXPECT_EQ(refusedField([&](GuestSpec& spec) {
                  spec.nics = {nic};
                  spec.nics[0].id = "eth0,x";
              }),
              "nics[0].id");
}

TEST(QemuCommandLine, DisksAndWiresAreCounted) {
    EXPECT_EQ(refusedField([](GuestSpec& spec) {
                  for (std::size_t i = 0; i < maxDisks; ++i) spec.disks.push_back(disk("d" + std::to_string(i), "/d"));
              }),
              "disks");
    EXPECT_EQ(refusedField([](GuestSpec& spec) {
                  for (std::size_t i = 0; i <= maxNics; ++i)
                      spec.nics.push_back(
                          {"n" + std::to_string(i), IfName::parse("t"), MacAddress::parse("02:00:00:00:00:01")});
              }),
              "nics");
}

std::string argumentsOf(std::string bootArguments) {
    GuestSpec spec = guest();
    spec.bootArguments = std::move(bootArguments);
    return kernelArguments(spec, Accelerator::Kvm);
}

TEST(QemuKernelArguments, RootComesFirstSoThatTheGuestsOwnWordsHold) {
    EXPECT_EQ(argumentsOf("  a   b "), "root=/dev/nvme0n1 rw a b");
    EXPECT_EQ(argumentsOf("quiet -- --verbose"), "root=/dev/nvme0n1 rw quiet -- --verbose");
    EXPECT_EQ(argumentsOf(""), "root=/dev/nvme0n1 rw");
}

TEST(QemuKernelArguments, ReadOnlyRootIsMountedReadOnly) {
    GuestSpec spec = guest();
    spec.disks[0].readOnly = true;
    EXPECT_THAT(kernelArguments(spec, Accelerator::Kvm), HasSubstr("root=/dev/nvme0n1 ro "));
}

TEST(QemuKernelArguments, PciIsNotTurnedOff) {
    EXPECT_EQ(argumentsOf("console=ttyS0 reboot=k panic=1 pci=off"),
              "root=/dev/nvme0n1 rw console=ttyS0 reboot=k panic=1");
    EXPECT_EQ(argumentsOf("pci=nomsi"), "root=/dev/nvme0n1 rw pci=nomsi");
    EXPECT_EQ(argumentsOf("-- pci=off"), "root=/dev/nvme0n1 rw -- pci=off") << "a word of init's";
}

TEST(QemuKernelArguments, RootIsNotTheGuestsToSay) {
    EXPECT_EQ(refusedField([](GuestSpec& spec) { spec.bootArguments = "root=/dev/vda"; }), "bootArguments");
    EXPECT_EQ(argumentsOf("-- root=/dev/vda"), "root=/dev/nvme0n1 rw -- root=/dev/vda") << "a word of init's";
}

TEST(QemuKernelArguments, OnlyPrintableCharactersAreTaken) {
    for (const std::string& text : {std::string("a\nb"), std::string("a\tb"), std::string("a\0b", 3),
                                    std::string("\xc3\xa4"), std::string("\x7f")})
        EXPECT_EQ(refusedField([&](GuestSpec& spec) { spec.bootArguments = text; }), "bootArguments");
}

TEST(QemuKernelArguments, EmulatedTimerIsNotPutToTheTest) {
    EXPECT_EQ(kernelArguments(guest(), Accelerator::Tcg),
              "root=/dev/nvme0n1 rw no_timer_check console=ttyS0 reboot=k panic=1");
    EXPECT_EQ(kernelArguments(guest(), Accelerator::Kvm), "root=/dev/nvme0n1 rw console=ttyS0 reboot=k panic=1");
}

TEST(QemuKernelArguments, AreAtMost2047Bytes) {
    const std::string own = "root=/dev/nvme0n1 rw no_timer_check ";
    GuestSpec spec = guest();
    spec.bootArguments = std::string(2047 - own.size(), 'x');
    EXPECT_NO_THROW(checkGuest(spec));
    EXPECT_EQ(kernelArguments(spec, Accelerator::Tcg).size(), 2047U);
    EXPECT_EQ(refusedField([&](GuestSpec& wrong) { wrong.bootArguments = std::string(2048 - own.size(), 'x'); }),
              "bootArguments");
}

}  // namespace
}  // namespace mergen::vmm
