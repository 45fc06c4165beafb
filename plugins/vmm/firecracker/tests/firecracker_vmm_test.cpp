#include "firecracker_vmm.hpp"

#include <chrono>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <signal.h>
#include <string>
#include <sys/stat.h>
#include <unistd.h>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <mergen/base/file.hpp>
#include <mergen/base/json.hpp>
#include <mergen/sdk/error.hpp>

#include "command_line.hpp"
#include "kernels.hpp"
#include "scripted_server.hpp"
#include "test_host.hpp"
#include "vmm_process.hpp"

namespace mergen::vmm {
namespace {

using namespace std::chrono_literals;
using Given = std::map<std::string, std::string, std::less<>>;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr auto plenty = 60s;  // never reached

// ---- settings, the program, KVM

std::string settingsFault(const Given& given) {
    test::TestHost host(FirecrackerVmm::keys, given);
    FirecrackerVmm vmm;
    try {
        vmm.configure(host);
    } catch (const Error& error) {
        EXPECT_EQ(error.kind(), ErrorKind::InvalidArgument);
        return error.field();
    }
    return "";
}

TEST(FirecrackerSettings, ProgramIsAnAbsolutePathOrABareName) {
    EXPECT_EQ(settingsFault({{"binary", "firecracker"}}), "");
    EXPECT_EQ(settingsFault({{"binary", "/opt/firecracker"}}), "");
    EXPECT_EQ(settingsFault({{"binary", "./firecracker"}}), "binary");
    EXPECT_EQ(settingsFault({{"binary", ""}}), "binary");
    EXPECT_EQ(settingsFault({{"kvm_device", "kvm"}}), "kvm_device");
}

TEST(FirecrackerSettings, JailerAndControlGroupsAreWordsOrPrograms) {
    for (const char* const good : {"auto", "off", "/opt/jailer", "jailer"})
        EXPECT_EQ(settingsFault({{"jailer", good}}), "") << good;
    EXPECT_EQ(settingsFault({{"jailer", "bin/jailer"}}), "jailer");
    EXPECT_EQ(settingsFault({{"jailer", ""}}), "jailer");
    EXPECT_EQ(settingsFault({{"cgroup", "off"}}), "");
    EXPECT_EQ(settingsFault({{"cgroup", "v2"}}), "cgroup");
}

GuestSpec paperGuest() {
    GuestSpec guest;
    guest.kernel = "/nonexistent/kernel";
    guest.disks = {{.id = "rootfs", .file = "/nonexistent/disk", .readOnly = false, .root = true}};
    return guest;
}

/// A backend that has been started on a host that is played by files: its KVM, its processor, which is AMD's, and its
/// 64 free huge pages.
class FirecrackerHost : public ::testing::Test {
protected:
    mode_t tunMode = 0666;
    gid_t tunGroup = 0;  // if we are root

    /// The probe ends with this status and says this.
    FirecrackerVmm& start(Given given, int status = 0, const std::string& words = "it runs guests") {
        vmm_.reset();
        host_ = std::make_unique<test::TestHost>(FirecrackerVmm::keys, with(std::move(given)));
        writeFileAtomically(host_->paths().libexec / "mergen-kvm-probe",
                            "#!/bin/sh\necho '" + words + "'\nexit " + std::to_string(status) + "\n", 0755);
        const std::filesystem::path tun = file("tun", "", tunMode);
        EXPECT_TRUE(::geteuid() != 0 || ::chown(tun.c_str(), 0, tunGroup) == 0);
        makeDirectories(root() / "proc", 0755);
        writeFileAtomically(root() / "proc/cpuinfo", "vendor_id\t: AuthenticAMD\n", 0444);
        const std::filesystem::path pool = root() / "sys/kernel/mm/hugepages/hugepages-2048kB";
        makeDirectories(pool, 0755);
        for (const char* counter : {"nr_hugepages", "free_hugepages"})
            writeFileAtomically(pool / counter, "64\n", 0644);
        for (const char* counter : {"resv_hugepages", "surplus_hugepages", "nr_overcommit_hugepages"})
            writeFileAtomically(pool / counter, "0\n", 0644);
        vmm_ = std::make_unique<FirecrackerVmm>(tun, root());
        vmm_->configure(*host_);
        vmm_->start();
        return *vmm_;
    }

    std::filesystem::path file(const std::string& name, const std::string& content, mode_t mode) {
        writeFileAtomically(folder_.root() / name, content, mode);
        return folder_.root() / name;
    }
    [[nodiscard]] const std::filesystem::path& root() const { return folder_.root(); }

    [[nodiscard]] const std::filesystem::path& dataRoot() const { return host_->paths().dataRoot; }

private:
    Given with(Given given) {
        given.emplace("binary", MERGEN_FAKE_FIRECRACKER);
        given.emplace("jailer", "off");  // this host may have one
        given.emplace("kvm_device", file("kvm", "", 0666).string());
        return given;
    }

    test::TestHost folder_{nullptr};
    std::unique_ptr<test::TestHost> host_;
    std::unique_ptr<FirecrackerVmm> vmm_;
};

TEST_F(FirecrackerHost, FitsWhereTheProgramIsAndKvmRunsGuests) {
    FirecrackerVmm& vmm = start({});
    EXPECT_TRUE(vmm.fitness().fit);
    EXPECT_THAT(vmm.fitness().reason, HasSubstr("it runs guests"));
    EXPECT_TRUE(vmm.health().ok);
    EXPECT_THAT(vmm.health().detail, AllOf(HasSubstr(MERGEN_FAKE_FIRECRACKER), HasSubstr("1.17.0")));
}

TEST_F(FirecrackerHost, KvmThatEmulatesIsNoFitAndAWarningOnly) {
    FirecrackerVmm& vmm = start({}, 1, "it emulates");
    EXPECT_FALSE(vmm.fitness().fit);
    EXPECT_THAT(vmm.fitness().reason, HasSubstr("it emulates"));
    EXPECT_TRUE(vmm.health().ok) << "who asks for it gets it";
    EXPECT_THAT(vmm.health().detail, HasSubstr("may not come up"));
}

TEST_F(FirecrackerHost, KvmThatIsMissingIsSaid) {
    FirecrackerVmm& vmm = start({{"kvm_device", "/nonexistent/kvm"}});
    EXPECT_FALSE(vmm.fitness().fit);
    EXPECT_FALSE(vmm.health().ok);
    EXPECT_THAT(vmm.health().detail, HasSubstr("/nonexistent/kvm"));
}

TEST_F(FirecrackerHost, WithoutTheProbeAKvmThatOpensIsTakenForGranted) {
    FirecrackerVmm& vmm = start({{"probe", "false"}}, 1, "it emulates");
    EXPECT_TRUE(vmm.fitness().fit);
    EXPECT_TRUE(vmm.health().ok);
    EXPECT_THAT(vmm.health().detail, HasSubstr("not tried out, as the settings say"));
}

TEST_F(FirecrackerHost, WithoutTheProbeAKvmThatIsMissingIsSaidAllTheSame) {
    FirecrackerVmm& vmm = start({{"probe", "false"}, {"kvm_device", "/nonexistent/kvm"}});
    EXPECT_FALSE(vmm.fitness().fit);
    EXPECT_FALSE(vmm.health().ok);
    EXPECT_THAT(vmm.health().detail, HasSubstr("runs no guests: /nonexistent/kvm: No such file or directory"));
}

TEST_F(FirecrackerHost, WithoutTheProbeAKvmThatVmsCannotOpenIsSaid) {
    if (::geteuid() != 0) GTEST_SKIP() << "needs root: an ordinary user's VMs run as that user";
    const std::string kvm = file("closed", "", 0600).string();
    const Given given{{"probe", "false"}, {"kvm_device", kvm}};
    FirecrackerVmm& vmm = start(given);
    EXPECT_FALSE(vmm.fitness().fit) << vmm.fitness().reason;
    EXPECT_FALSE(vmm.health().ok) << "root could, and VMs run as users of their own";
    EXPECT_THAT(vmm.health().detail, HasSubstr("runs no guests: " + kvm +
                                               ": only its owner may open it (mode 0660, with a group, would do)"));
    ASSERT_EQ(::chmod(kvm.c_str(), 0660), 0);
    ASSERT_EQ(::chown(kvm.c_str(), 0, 0), 0);
    EXPECT_THAT(start(given).health().detail, HasSubstr("its group is root's"));
    ASSERT_EQ(::chown(kvm.c_str(), 0, 12345), 0);
    EXPECT_TRUE(start(given).health().ok) << "VMs are given that group";
    ASSERT_EQ(::chmod(kvm.c_str(), 0600), 0);
    Given jailed = given;
    jailed.emplace("jailer", MERGEN_FAKE_JAILER);
    const Health health = start(jailed).health();
    EXPECT_TRUE(health.ok) << "in a jail it is a device of the VM's user: " << health.detail;
}

TEST_F(FirecrackerHost, InAJailAKvmThatOnlyItsOwnerMayOpenCountsByWhetherItWorks) {
    if (::geteuid() != 0) GTEST_SKIP() << "needs root: there is no jail without it";
    const std::string kvm = file("closed", "", 0600).string();
    Given given{{"kvm_device", kvm}};
    EXPECT_THAT(start(given).health().detail, HasSubstr("only its owner may open it"));
    EXPECT_FALSE(start(given).fitness().fit) << "not jailed";
    given.emplace("jailer", MERGEN_FAKE_JAILER);
    FirecrackerVmm& works = start(given);
    EXPECT_TRUE(works.health().ok) << works.health().detail;
    EXPECT_TRUE(works.fitness().fit) << works.fitness().reason;
    EXPECT_THAT(works.health().detail, HasSubstr("it runs guests"));
    FirecrackerVmm& emulates = start(given, 1, "it emulates");
    EXPECT_FALSE(emulates.fitness().fit);
    EXPECT_TRUE(emulates.health().ok) << "who asks for it gets it";
    EXPECT_THAT(emulates.health().detail, HasSubstr("may not come up"));
    for (const char* const probe : {"true", "false"}) {
        FirecrackerVmm& missing =
            start({{"kvm_device", "/nonexistent/kvm"}, {"jailer", MERGEN_FAKE_JAILER}, {"probe", probe}});
        EXPECT_FALSE(missing.fitness().fit) << probe;
        EXPECT_FALSE(missing.health().ok) << probe;
        EXPECT_THAT(missing.health().detail, HasSubstr("runs no guests: /nonexistent/kvm: No such file")) << probe;
    }
}

TEST_F(FirecrackerHost, AnOrdinaryUsersOwnAccessToKvmIsWhatCounts) {
    if (::geteuid() == 0) GTEST_SKIP() << "needs an ordinary user: root's VMs run as users of their own";
    const std::string kvm = file("own", "", 0600).string();
    EXPECT_TRUE(start({{"probe", "false"}, {"kvm_device", kvm}}).health().ok);
    ASSERT_EQ(::chmod(kvm.c_str(), 0), 0);
    EXPECT_THAT(start({{"probe", "false"}, {"kvm_device", kvm}}).health().detail, HasSubstr("Permission denied"));
}

// ---- the cache of kernels

TEST_F(FirecrackerHost, KernelsOfTheCacheGoWhenRoomIsAskedForAndNotWhenAGuestIsLookedAt) {
    FirecrackerVmm& vmm = start({{"kernel_cache", "1000000GiB"}});  // more than any host of these tests has free
    EXPECT_FALSE(vmm.giveUpRoom());
    const std::filesystem::path kernels = dataRoot() / ".cache/kernels";
    makeDirectories(kernels, 0700);
    const std::string entry = std::string(64, 'a') + "-1";
    writeFileAtomically(kernels / entry, "a", 0400);
    vmm.check(paperGuest());
    EXPECT_THAT(listDirectory(kernels), ElementsAre(entry));
    EXPECT_TRUE(vmm.giveUpRoom());
    EXPECT_THAT(listDirectory(kernels), ElementsAre());
    EXPECT_FALSE(vmm.giveUpRoom());
}

// ---- what the host can give a guest

TEST_F(FirecrackerHost, CpuTemplateOfAnotherVendorIsRefusedWhenAVmIsMadeAndWhenItStarts) {
    FirecrackerVmm& vmm = start({});
    GuestSpec guest = paperGuest();
    guest.cpuTemplate = "T2A";
    EXPECT_NO_THROW(vmm.check(guest));
    EXPECT_NO_THROW(vmm.checkStart(guest));
    guest.cpuTemplate = "T2";
    for (const auto& call :
         std::vector<std::function<void()>>{[&] { vmm.check(guest); }, [&] { vmm.checkStart(guest); }}) {
        try {
            call();
            ADD_FAILURE() << "it was taken";
        } catch (const Error& error) {
            EXPECT_EQ(error.kind(), ErrorKind::NotSupported);
            EXPECT_EQ(error.field(), "cpuTemplate");
            EXPECT_THAT(error.what(), HasSubstr("'T2' is for processors of Intel"));
        }
    }
}

TEST_F(FirecrackerHost, HugePagesThatAreNotFreeAreRefusedAtTheStartAlone) {
    FirecrackerVmm& vmm = start({});
    GuestSpec guest = paperGuest();
    guest.memory = MiB{130};
    guest.hugePages = HugePages::TwoMiB;
    EXPECT_NO_THROW(vmm.check(guest)) << "they may be free when it starts";
    try {
        vmm.checkStart(guest);
        ADD_FAILURE() << "it was taken";
    } catch (const Error& error) {
        EXPECT_EQ(error.kind(), ErrorKind::FailedPrecondition);
        EXPECT_EQ(error.field(), "hugePages");
    }
    guest.memory = MiB{128};
    EXPECT_NO_THROW(vmm.checkStart(guest));
    std::filesystem::remove_all(root() / "sys/kernel/mm/hugepages");
    for (const auto& call :
         std::vector<std::function<void()>>{[&] { vmm.check(guest); }, [&] { vmm.checkStart(guest); }}) {
        try {
            call();
            ADD_FAILURE() << "it was taken by a kernel that has none";
        } catch (const Error& error) {
            EXPECT_EQ(error.kind(), ErrorKind::NotSupported);
            EXPECT_EQ(error.field(), "hugePages");
        }
    }
}

TEST_F(FirecrackerHost, TapsThatVmsCannotOpenAreSaidBeforeTheyTry) {
    if (::geteuid() != 0) GTEST_SKIP() << "needs root: an ordinary user's VMs run as that user";
    tunMode = 0600;
    FirecrackerVmm& vmm = start({});
    EXPECT_FALSE(vmm.fitness().fit);
    EXPECT_THAT(vmm.fitness().reason, HasSubstr("/tun: only its owner may open it"));
    EXPECT_TRUE(vmm.health().ok) << "guests without a network card work";
    EXPECT_THAT(vmm.health().detail, HasSubstr("no network card"));
    GuestSpec guest = paperGuest();
    const VmmPlace place{OwnerTag{"0a1b2c3d", Uuid::random()}, "/run/x", "/run/x/s", {1900000000, 1900000000}};
    EXPECT_NO_THROW(static_cast<void>(vmm.plan(guest, place)));
    guest.nics = {{.id = "eth0", .tap = IfName::parse("tap0"), .mac = MacAddress::of(place.owner.vm)}};
    try {
        static_cast<void>(vmm.plan(guest, place));
        ADD_FAILURE() << "it plans a guest that cannot have its network card";
    } catch (const Error& error) {
        EXPECT_EQ(error.kind(), ErrorKind::FailedPrecondition);
        EXPECT_THAT(error.what(), HasSubstr("network card"));
    }
    tunMode = 0660;
    EXPECT_THAT(start({}).fitness().reason, HasSubstr("its group is root's"));
    tunGroup = 12345;
    EXPECT_THAT(start({}).plan(guest, place).groups, ElementsAre(12345));
}

TEST_F(FirecrackerHost, ProgramThatIsMissingIsSaidAndPlansAreRefused) {
    FirecrackerVmm& vmm = start({{"binary", "/nonexistent/firecracker"}});
    EXPECT_FALSE(vmm.health().ok);
    EXPECT_FALSE(vmm.fitness().fit);
    const GuestSpec guest = paperGuest();
    const VmmPlace place{OwnerTag{"0a1b2c3d", Uuid::random()}, "/run/x", "/run/x/s", {}};
    try {
        static_cast<void>(vmm.plan(guest, place));
        ADD_FAILURE() << "it plans without a program";
    } catch (const Error& error) {
        EXPECT_EQ(error.kind(), ErrorKind::FailedPrecondition);
        EXPECT_THAT(error.what(), AllOf(HasSubstr("/nonexistent/firecracker"), HasSubstr("binary")));
    }
}

TEST_F(FirecrackerHost, ProgramThatIsTooOldIsSaid) {
    const std::filesystem::path program = file("firecracker", "#!/bin/sh\necho Firecracker v0.25.2\n", 0755);
    FirecrackerVmm& vmm = start({{"binary", program.string()}});
    EXPECT_FALSE(vmm.health().ok);
    EXPECT_THAT(vmm.health().detail, HasSubstr("needs Firecracker >= 1.0; this is 0.25.2"));
    EXPECT_FALSE(vmm.fitness().fit);
}

TEST_F(FirecrackerHost, ProgramWithKnownHolesIsRefusedUnlessThatIsAllowed) {
    const std::filesystem::path program = file("firecracker", "#!/bin/sh\necho Firecracker v1.14.3\n", 0755);
    FirecrackerVmm& refusing = start({{"binary", program.string()}});
    EXPECT_FALSE(refusing.health().ok);
    EXPECT_THAT(refusing.health().detail, AllOf(HasSubstr("1.14.3 has known holes"), HasSubstr("allow_vulnerable")));
    EXPECT_FALSE(refusing.fitness().fit);
    FirecrackerVmm& allowing = start({{"binary", program.string()}, {"allow_vulnerable", "true"}});
    EXPECT_TRUE(allowing.health().ok) << allowing.health().detail;
    EXPECT_THAT(allowing.health().detail, HasSubstr("1.14.3, not jailed: jailer = off"));
}

TEST_F(FirecrackerHost, ProgramThatDoesNotSayItsVersionIsRefusedUnlessThatIsAllowed) {
    for (const char* what : {"echo a build of ours", "echo Firecracker v1.17.0; exit 3", "exit 0"}) {
        const std::filesystem::path program = file("firecracker", "#!/bin/sh\n" + std::string(what) + "\n", 0755);
        FirecrackerVmm& refusing = start({{"binary", program.string()}});
        EXPECT_FALSE(refusing.health().ok) << what;
        EXPECT_THAT(refusing.health().detail, AllOf(HasSubstr("does not say which"), HasSubstr("allow_vulnerable")));
        EXPECT_FALSE(refusing.fitness().fit) << what;
        FirecrackerVmm& allowing = start({{"binary", program.string()}, {"allow_vulnerable", "true"}});
        EXPECT_TRUE(allowing.health().ok) << allowing.health().detail;
    }
}

TEST_F(FirecrackerHost, WhatItsVersionLacksIsRefusedWhenTheVmIsMade) {
    const std::filesystem::path program = file("firecracker", "#!/bin/sh\necho Firecracker v1.15.1\n", 0755);
    FirecrackerVmm& vmm = start({{"binary", program.string()}});
    GuestSpec guest = paperGuest();
    guest.kernel = file("kernel", test::elfHead(), 0600);
    EXPECT_NO_THROW(vmm.check(guest));
    guest.nics = {{.id = "eth0", .tap = IfName::parse("tap0"), .mac = MacAddress::of(Uuid::random()), .mtu = 1400}};
    try {
        vmm.check(guest);
        ADD_FAILURE() << "it was taken";
    } catch (const Error& error) {
        EXPECT_EQ(error.kind(), ErrorKind::NotSupported);
        EXPECT_EQ(error.field(), "nics[0].mtu");
        EXPECT_THAT(error.what(), AllOf(HasSubstr("setting mtu"), HasSubstr(">= 1.16; this is 1.15.1")));
    }
}

TEST_F(FirecrackerHost, ProgramThatOthersCouldChangeIsRefused) {
    const std::filesystem::path program = file("firecracker", "#!/bin/sh\necho Firecracker v1.17.0\n", 0777);
    FirecrackerVmm& vmm = start({{"binary", program.string()}});
    EXPECT_FALSE(vmm.health().ok);
    EXPECT_THAT(vmm.health().detail, HasSubstr("mode 0777"));
    EXPECT_FALSE(vmm.fitness().fit);
}

// ---- guests

class FirecrackerGuestTest : public ::testing::Test {
protected:
    FirecrackerGuestTest() {
        vmm_.configure(host_);
        vmm_.start();
        makeDirectories(place_.runDirectory, 0700);
        writeFileAtomically(guest_.kernel, test::elfHead(), 0600);
        writeFileAtomically(guest_.disks[0].file, std::string(4096, '\0'), 0600);
    }

    /// A fake that has been launched, with these words for what it does wrong from the beginning.
    test::VmmProcess& launch(const std::string& words = "") {
        if (!words.empty()) writeFileAtomically(place_.runDirectory / "fake", words, 0600);
        process_ = std::make_unique<test::VmmProcess>(vmm_.plan(guest_, place_));
        return *process_;
    }

    void boot(std::chrono::milliseconds timeout = plenty) {
        vmm_.boot(place_, guest_, timeout, [this] { return process_->alive(); });
    }

    Error bootError(std::chrono::milliseconds timeout = plenty) {
        try {
            boot(timeout);
        } catch (const Error& error) {
            return error;
        }
        ADD_FAILURE() << "it boots";
        return Error(ErrorKind::Internal, "no error");
    }

    test::TestHost host_{FirecrackerVmm::keys,
                         Given{{"binary", MERGEN_FAKE_FIRECRACKER}, {"probe", "false"}, {"jailer", "off"}}};
    FirecrackerVmm vmm_;
    const Uuid uuid_ = Uuid::random();
    const std::filesystem::path run_ = host_.paths().runRoot / uuid_.short8();
    const VmmPlace place_{OwnerTag{host_.instance(), uuid_}, run_, run_ / "api.sock", {::geteuid(), ::getegid()}};
    GuestSpec guest_ = [this] {
        GuestSpec guest;
        guest.memory = MiB{128};
        guest.kernel = host_.paths().dataRoot / "kernel";
        guest.bootArguments = "console=ttyS0";
        guest.disks = {{.id = "rootfs", .file = host_.paths().dataRoot / "disk", .readOnly = false, .root = true}};
        return guest;
    }();
    std::unique_ptr<test::VmmProcess> process_;
};

TEST_F(FirecrackerGuestTest, GetsItsMachineDisksAndArguments) {
    guest_.vcpus = 3;
    guest_.disks.insert(guest_.disks.begin(),
                        {.id = "data", .file = guest_.disks[0].file, .readOnly = true, .root = false});
    launch();
    boot();
    ASSERT_TRUE(process_->awaitConsole("fake-guest: ready"));
    EXPECT_THAT(process_->console(), AllOf(HasSubstr("3 vcpus, 128 MiB"), HasSubstr("drive data, takes no writes"),
                                           HasSubstr("cmdline console=ttyS0 pci=off root=/dev/vda rw")));
}

TEST_F(FirecrackerGuestTest, IsConfiguredAndStartedOverOneConnection) {
    int connections = 0;
    std::vector<std::string> calls;
    {
        const test::ScriptedServer server(place_.controlSocket, [&](test::ScriptedPeer& peer) {
            ++connections;
            for (std::string head; !(head = peer.until("\r\n\r\n")).empty();) {
                calls.push_back(head.substr(0, head.find(" HTTP")));
                if (const std::size_t at = head.find("Content-Length: "); at != std::string::npos)
                    static_cast<void>(peer.bytes(std::stoul(head.substr(at + 16))));
                const std::string state = R"({"state":"Not started","vmm_version":"1.17.0"})";
                peer.send(head.starts_with("GET")
                              ? "HTTP/1.1 200 \r\nContent-Length: " + std::to_string(state.size()) + "\r\n\r\n" + state
                              : "HTTP/1.1 204 \r\n\r\n");
            }
        });
        vmm_.boot(place_, guest_, plenty, [] { return true; });
    }
    EXPECT_EQ(connections, 1);
    EXPECT_THAT(calls,
                ElementsAre("GET /", "PUT /machine-config", "PUT /boot-source", "PUT /drives/rootfs", "PUT /actions"));
}

TEST_F(FirecrackerGuestTest, ConfigurationForAnUnattendedStartIsThereForItsUserAlone) {
    launch();
    boot();
    const std::filesystem::path file = configurationFile(place_);
    struct stat status {};
    ASSERT_EQ(::stat(file.c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 0777U, 0400U);
    EXPECT_EQ(status.st_uid, place_.credentials.uid);
    const auto whole = json::parseObject(readFile(file, 1 << 16).value());
    EXPECT_EQ(whole->getObject("boot-source")->getValue<std::string>("kernel_image_path"), guest_.kernel.string());
    EXPECT_FALSE(whole->getObject("machine-config")->getValue<bool>("smt"));
    EXPECT_EQ(whole->getArray("drives")->getObject(0)->getValue<std::string>("cache_type"), "Writeback");
}

TEST_F(FirecrackerGuestTest, RefusedDiskIsInTheErrorWithItsCall) {
    guest_.disks[0].file = "/nonexistent/disk";
    launch();
    const Error error = bootError();
    EXPECT_EQ(error.kind(), ErrorKind::FailedPrecondition);
    EXPECT_THAT(error.what(), AllOf(HasSubstr("PUT /drives/rootfs"), HasSubstr("/nonexistent/disk"),
                                    HasSubstr("No such file or directory (os error 2)")));
}

TEST_F(FirecrackerGuestTest, TapThatIsMissingIsInTheErrorWithItsCall) {
    if (::access("/dev/net/tun", R_OK | W_OK) != 0) GTEST_SKIP() << "needs a /dev/net/tun that this user may open";
    guest_.nics = {{.id = "eth0", .tap = IfName::parse("lo"), .mac = MacAddress::of(uuid_)}};
    launch();
    EXPECT_THAT(bootError().what(), AllOf(HasSubstr("PUT /network-interfaces/eth0"), HasSubstr("provided by lo")));
}

TEST_F(FirecrackerGuestTest, ProcessThatEndsBeforeItListensEndsTheWaitAtOnce) {
    writeFileAtomically(place_.controlSocket, "somebody else's", 0600);
    launch();
    const auto begin = std::chrono::steady_clock::now();
    const Error error = bootError();
    EXPECT_EQ(error.kind(), ErrorKind::Unavailable);
    EXPECT_THAT(error.what(), HasSubstr("console says why"));
    EXPECT_LT(std::chrono::steady_clock::now() - begin, plenty / 2) << "it waited for the deadline";
    ASSERT_TRUE(process_->awaitExit().has_value());
    EXPECT_THAT(process_->console(), HasSubstr("Check that it is not already used"));
}

TEST_F(FirecrackerGuestTest, ProcessThatDiesWhileItIsConfiguredEndsTheWaitAtOnce) {
    launch("die-at=PUT:/drives/rootfs");
    const auto begin = std::chrono::steady_clock::now();
    const Error error = bootError();
    EXPECT_EQ(error.kind(), ErrorKind::Unavailable);
    EXPECT_THAT(error.what(), AllOf(HasSubstr("PUT /drives/rootfs"), HasSubstr("console says why")));
    EXPECT_LT(std::chrono::steady_clock::now() - begin, plenty / 2) << "it waited for the deadline";
}

TEST_F(FirecrackerGuestTest, OneThatHangsIsATimeoutWithItsCall) {
    launch("hang-at=PUT:/actions");
    const Error error = bootError(500ms);
    EXPECT_EQ(error.kind(), ErrorKind::Timeout);
    EXPECT_THAT(error.what(), HasSubstr("PUT /actions"));
}

TEST_F(FirecrackerGuestTest, SlowAnswersAreWaitedFor) {
    launch("slow=20");
    EXPECT_NO_THROW(boot());
}

TEST_F(FirecrackerGuestTest, LiesAreNotBelieved) {
    for (const char* lie : {"garbage", "short", "status", "state", "json"}) {
        launch(std::string("lie=") + lie);
        const Error error = bootError();
        EXPECT_EQ(error.kind(), ErrorKind::Unavailable) << lie << ": " << error.what();
        process_->kill();
        ASSERT_TRUE(process_->awaitExit().has_value());
        vmm_.cleanUp(place_);
    }
}

TEST_F(FirecrackerGuestTest, FloodOfAnAnswerIsCutOff) {
    launch("flood=api");
    EXPECT_EQ(bootError().kind(), ErrorKind::Unavailable);
}

TEST_F(FirecrackerGuestTest, WhatItsVersionLacksIsRefusedBeforeItsCall) {
    guest_.nics = {{.id = "eth0", .tap = IfName::parse("tap0"), .mac = MacAddress::of(uuid_), .mtu = 1400}};
    launch("version=1.15.1");
    const Error error = bootError();
    EXPECT_EQ(error.kind(), ErrorKind::NotSupported);
    EXPECT_THAT(error.what(), AllOf(HasSubstr(">= 1.16"), Not(HasSubstr("PUT"))));
    EXPECT_EQ(error.field(), "nics[0].mtu");
}

TEST_F(FirecrackerGuestTest, OneThatDoesNotSayItsVersionIsRefused) {
    launch("version=unknown");
    const Error error = bootError();
    EXPECT_EQ(error.kind(), ErrorKind::Unavailable);
    EXPECT_THAT(error.what(), AllOf(HasSubstr("its version is 'unknown'"), Not(HasSubstr("PUT"))));
}

TEST_F(FirecrackerGuestTest, OneThatIsTooOldIsRefused) {
    launch("version=0.25.2");
    EXPECT_THAT(bootError().what(), HasSubstr(">= 1.0"));
}

TEST_F(FirecrackerGuestTest, WhatIsNoKernelIsRefusedAtCreateAndAtStart) {
    writeFileAtomically(guest_.kernel, "BZh9 packed", 0600);
    for (const auto& call : std::vector<std::function<void()>>{[&] { vmm_.check(guest_); },
                                                               [&] { static_cast<void>(vmm_.plan(guest_, place_)); }}) {
        try {
            call();
            ADD_FAILURE() << "it was taken";
        } catch (const Error& error) {
            EXPECT_EQ(error.kind(), ErrorKind::InvalidArgument);
            EXPECT_EQ(error.field(), "kernel");
            EXPECT_THAT(error.what(), HasSubstr(guest_.kernel.string()));
        }
    }
}

TEST_F(FirecrackerGuestTest, GuestThatHasNotRunIsNotAsked) {
    launch();
    vmm_.boot(place_, guest_, plenty, [this] { return process_->alive(); });
    process_->kill();
    ASSERT_TRUE(process_->awaitExit().has_value());
    vmm_.cleanUp(place_);
    launch();
    for (bool there = false; !there;) {
        ASSERT_TRUE(process_->alive());
        try {
            there = vmm_.query(place_, plenty) == GuestState::NotStarted;
        } catch (const Error& error) {
            ASSERT_EQ(error.kind(), ErrorKind::Unavailable) << error.what();
        }
    }
    for (const auto& call : std::vector<std::function<void()>>{[&] { vmm_.requestStop(place_, plenty); },
                                                               [&] { vmm_.pause(place_, plenty); },
                                                               [&] { vmm_.resume(place_, plenty); }}) {
        try {
            call();
            ADD_FAILURE() << "a guest that has not run took it";
        } catch (const Error& error) {
            EXPECT_EQ(error.kind(), ErrorKind::FailedPrecondition);
        }
    }
}

TEST_F(FirecrackerGuestTest, FrozenOneIsATimeout) {
    guest_.bootArguments += " fake.freeze";
    launch();
    boot();
    Error error(ErrorKind::Internal, "no error");
    try {
        static_cast<void>(vmm_.query(place_, 100ms));
    } catch (const Error& found) {
        error = found;
    }
    EXPECT_EQ(error.kind(), ErrorKind::Timeout) << error.what();
}

TEST_F(FirecrackerGuestTest, FloodedConsoleDoesNotHoldItsApiUp) {
    guest_.bootArguments += " fake.flood=console";
    launch();
    boot();
    ASSERT_TRUE(process_->awaitConsole(std::string(1023, 'f')));
    EXPECT_EQ(vmm_.query(place_, plenty), GuestState::Running);
}

TEST_F(FirecrackerGuestTest, ItsEndByItselfHasItsOwnStatus) {
    guest_.bootArguments += " fake.exit=148";
    launch();
    boot();
    const std::optional<int> status = process_->awaitExit();
    ASSERT_TRUE(status.has_value());
    EXPECT_EQ(WEXITSTATUS(*status), 148);
}

}  // namespace
}  // namespace mergen::vmm
