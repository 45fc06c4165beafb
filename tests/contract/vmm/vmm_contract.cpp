#include "vmm_contract.hpp"

#include <algorithm>
#include <array>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <utility>
#include <vector>

#include <mergen/base/fd.hpp>
#include <mergen/base/file.hpp>
#include <mergen/sdk/error.hpp>

namespace mergen {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr auto defaultArguments = "console=ttyS0 reboot=k panic=1 pci=off";

/// A disk of zeros.
void makeDisk(const std::filesystem::path& path, off_t size) {
    const UniqueFd disk = openFile(path, O_RDWR | O_CREAT | O_EXCL, 0600);
    ASSERT_EQ(::ftruncate(disk.get(), size), 0);
}

/// Whether the first block of a disk is as makeDisk() left it.
bool isZero(const std::filesystem::path& path) {
    std::array<char, 4096> block{};
    const UniqueFd disk = openFile(path, O_RDONLY);
    EXPECT_EQ(::pread(disk.get(), block.data(), block.size(), 0), static_cast<ssize_t>(block.size()));
    return std::all_of(block.begin(), block.end(), [](char byte) { return byte == 0; });
}

}  // namespace

VmmContract::VmmContract()
    : host_(GetParam().keys, GetParam().settings, GetParam().libexec), vmm_(GetParam().create()) {
    vmm_->configure(host_);
    vmm_->start();
}

VmmContract::~VmmContract() {
    // Tests that are not about the end leave that to us.
    for (const Uuid& vm : vmm_->list()) vmm_->removeStray(vm);
    EXPECT_THAT(vmm_->list(), IsEmpty());
    vmm_->stop();
}

BackendPtr<VmmBackend> VmmContract::another() {
    BackendPtr<VmmBackend> vmm = GetParam().create();
    vmm->configure(host_);
    vmm->start();
    return vmm;
}

VmmPlace VmmContract::makePlace() {
    const Uuid uuid = Uuid::random();
    VmmPlace place{
        OwnerTag{host_.instance(), uuid}, host_.paths().runRoot / uuid.short8(), {}, {::geteuid(), ::getegid()}};
    place.controlSocket = place.runDirectory / "control.sock";
    makeDirectories(place.runDirectory, 0700);
    return place;
}

GuestSpec VmmContract::paperGuest() {
    GuestSpec guest;
    guest.vcpus = 1;
    guest.memory = MiB{256};
    guest.kernel = "/nonexistent/vmlinuz";
    guest.bootArguments = defaultArguments;
    guest.disks = {{.id = "rootfs", .file = "/nonexistent/rootfs.ext4", .readOnly = false, .root = true}};
    return guest;
}

GuestSpec VmmContract::makeGuest(const VmmPlace& place) {
    GuestSpec guest = paperGuest();
    const auto images = test::GuestImages::find(GetParam().guest);
    const auto skip = [](const std::string& why) { GTEST_SKIP() << why; };
    if (!images) {
        skip("there is no guest to boot: run guest/build-rootfs, or the test by ctest");
    } else if (!GetParam().program.empty() && ::access(GetParam().program.c_str(), X_OK) != 0) {
        skip("this host has no " + GetParam().program.string());
    } else {
        guest.kernel = images->kernel;
        guest.disks[0].file = host_.paths().dataRoot / (place.owner.vm.short8() + ".ext4");
        const UniqueFd image = openFile(images->rootDisk, O_RDONLY);
        copySparse(image.get(), guest.disks[0].file, 0600, ::geteuid(), ::getegid());
    }
    return guest;
}

GuestSpec VmmContract::makeWritingGuest(const VmmPlace& place) {
    if (GetParam().signs.writesDisks) return makeGuest(place);
    [] { GTEST_SKIP() << "this VMM is a fake, whose guest writes to no disk"; }();
    return paperGuest();
}

std::unique_ptr<test::VmmProcess> VmmContract::launch(const GuestSpec& guest, const VmmPlace& place) {
    vmm().prepare(guest, place);
    return std::make_unique<test::VmmProcess>(vmm().plan(guest, place));
}

void VmmContract::bootToUserSpace(const GuestSpec& guest, const VmmPlace& place, test::VmmProcess& process) {
    vmm().boot(place, guest, plenty, [&] { return process.alive(); });
    ASSERT_TRUE(process.awaitConsole(GetParam().signs.ready)) << process.console();
}

void VmmContract::stopCleanly(const VmmPlace& place, test::VmmProcess& process) {
    vmm().requestStop(place, plenty);
    const std::optional<int> status = process.awaitExit();
    ASSERT_TRUE(status.has_value()) << "the guest does not end:\n" << process.console();
    EXPECT_EQ(*status, 0) << process.console();
}

std::optional<ErrorKind> VmmContract::kindOf(const std::function<void()>& action) {
    try {
        action();
    } catch (const Error& error) {
        return error.kind();
    }
    return std::nullopt;
}

std::string VmmContract::refusedField(const GuestSpec& guest) {
    try {
        vmm().check(guest);
    } catch (const Error& error) {
        EXPECT_TRUE(error.kind() == ErrorKind::InvalidArgument || error.kind() == ErrorKind::NotSupported)
            << error.what();
        return error.field();
    }
    ADD_FAILURE() << "check() takes it";
    return "";
}

namespace {

TEST_P(VmmContract, CheckTakesAGuestWhoseFilesDoNotExistYet) {
    EXPECT_NO_THROW(vmm().check(paperGuest()));
    EXPECT_NO_THROW(vmm().checkStart(paperGuest())) << "it asks for nothing out of the ordinary";
}

TEST_P(VmmContract, CheckNamesTheMemberThatIsWrong) {
    GuestSpec guest = paperGuest();
    guest.vcpus = 0;
    EXPECT_EQ(refusedField(guest), "vcpus");
    guest = paperGuest();
    guest.memory = MiB{0};
    EXPECT_EQ(refusedField(guest), "memory");
    guest = paperGuest();
    guest.bootArguments = "one\ntwo";
    EXPECT_EQ(refusedField(guest), "bootArguments");
    guest = paperGuest();
    guest.disks[0].root = false;
    EXPECT_EQ(refusedField(guest), "disks");
}

TEST_P(VmmContract, PlanIsAFunctionOfItsArguments) {
    const VmmPlace place = makePlace();
    const GuestSpec guest = makeGuest(place);
    if (IsSkipped()) return;
    const LaunchPlan plan = vmm().plan(guest, place);
    ASSERT_THAT(plan.arguments, ::testing::Not(IsEmpty()));
    EXPECT_TRUE(plan.arguments.front().starts_with('/')) << plan.arguments.front();
    EXPECT_EQ(another()->plan(guest, place).arguments, plan.arguments) << "a restarted server";
    EXPECT_THAT(listDirectory(place.runDirectory), IsEmpty()) << "nothing is made";
}

TEST_P(VmmContract, PlanHasADescriptorForEachTap) {
    const VmmPlace place = makePlace();
    GuestSpec guest = makeGuest(place);
    if (IsSkipped()) return;
    EXPECT_THAT(vmm().plan(guest, place).taps, IsEmpty());
    guest.nics = {{"eth0", IfName::parse("tap-0a1b2c3d"), MacAddress::of(place.owner.vm)}};
    for (const InheritedTap& tap : vmm().plan(guest, place).taps) {
        EXPECT_EQ(tap.name.str(), "tap-0a1b2c3d");
        EXPECT_GE(tap.fd, 3);
    }
}

TEST_P(VmmContract, PlanRefusesASocketPathThatNoSocketCanHave) {
    VmmPlace place = makePlace();
    const GuestSpec guest = makeGuest(place);
    if (IsSkipped()) return;
    place.controlSocket = place.runDirectory / std::string(108 - place.runDirectory.string().size() - 1, 's');
    ASSERT_EQ(place.controlSocket.string().size(), 108U);
    EXPECT_EQ(kindOf([&] { static_cast<void>(vmm().plan(guest, place)); }), ErrorKind::InvalidArgument);
}

TEST_P(VmmContract, GuestLivesFromLaunchToCleanUp) {
    const VmmPlace place = makePlace();
    const GuestSpec guest = makeGuest(place);
    if (IsSkipped()) return;
    const auto process = launch(guest, place);
    bootToUserSpace(guest, place, *process);
    EXPECT_EQ(vmm().query(place, plenty), GuestState::Running);

    vmm().boot(place, guest, plenty, [&] { return process->alive(); });  // does nothing
    EXPECT_EQ(vmm().query(place, plenty), GuestState::Running);

    stopCleanly(place, *process);
    EXPECT_THAT(process->console(), HasSubstr(GetParam().signs.shuttingDown)) << "it did not hear the request";
    EXPECT_EQ(kindOf([&] { static_cast<void>(vmm().query(place, plenty)); }), ErrorKind::Unavailable);
    vmm().cleanUp(place);
    EXPECT_THAT(listDirectory(place.runDirectory), IsEmpty());
    vmm().cleanUp(place);  // does nothing
}

TEST_P(VmmContract, GuestThatPausesGoesOnWhereItWas) {
    const VmmPlace place = makePlace();
    const GuestSpec guest = makeGuest(place);
    if (IsSkipped()) return;
    const auto process = launch(guest, place);
    vmm().boot(place, guest, plenty, [&] { return process->alive(); });
    if (!vmm().traits().pause) {
        EXPECT_EQ(kindOf([&] { vmm().pause(place, plenty); }), ErrorKind::NotSupported);
        EXPECT_EQ(kindOf([&] { vmm().resume(place, plenty); }), ErrorKind::NotSupported);
        return;
    }
    for (int twice = 0; twice < 2; ++twice) {
        vmm().pause(place, plenty);
        EXPECT_EQ(vmm().query(place, plenty), GuestState::Paused);
    }
    for (int twice = 0; twice < 2; ++twice) {
        vmm().resume(place, plenty);
        EXPECT_EQ(vmm().query(place, plenty), GuestState::Running);
    }
    ASSERT_TRUE(process->awaitConsole(GetParam().signs.ready)) << process->console();
    vmm().pause(place, plenty);
    stopCleanly(place, *process);  // a paused guest hears it too
}

TEST_P(VmmContract, GuestKeepsWhatItWrote) {
    const VmmPlace place = makePlace();
    const GuestSpec guest = makeWritingGuest(place);
    if (IsSkipped()) return;
    for (const char* count : {"mergen-guest: boots 1", "mergen-guest: boots 2"}) {
        const auto process = launch(guest, place);
        bootToUserSpace(guest, place, *process);
        EXPECT_THAT(process->console(), HasSubstr(count));
        stopCleanly(place, *process);
        vmm().cleanUp(place);
    }
}

TEST_P(VmmContract, AnotherServerDrivesTheGuestOfItsPredecessor) {
    const VmmPlace place = makePlace();
    const GuestSpec guest = makeGuest(place);
    if (IsSkipped()) return;
    const auto process = launch(guest, place);
    bootToUserSpace(guest, place, *process);
    const auto successor = another();
    EXPECT_EQ(successor->query(place, plenty), GuestState::Running);
    successor->requestStop(place, plenty);
    EXPECT_EQ(process->awaitExit(), 0) << process->console();
    successor->cleanUp(place);
}

TEST_P(VmmContract, SecondDiskTakesWrites) {
    const VmmPlace place = makePlace();
    GuestSpec guest = makeWritingGuest(place);
    if (IsSkipped()) return;
    guest.disks.push_back({.id = "data", .file = place.runDirectory / "data.img"});
    makeDisk(guest.disks[1].file, 8 << 20);
    guest.bootArguments += " mergen.scribble";
    const auto process = launch(guest, place);
    bootToUserSpace(guest, place, *process);
    EXPECT_THAT(process->console(), HasSubstr("of 8388608 bytes, takes writes"));
    stopCleanly(place, *process);
    EXPECT_FALSE(isZero(guest.disks[1].file));
}

TEST_P(VmmContract, ReadOnlyDiskTakesNoWrites) {
    const VmmPlace place = makePlace();
    GuestSpec guest = makeWritingGuest(place);
    if (IsSkipped()) return;
    // Named before the root disk, and with a comma that must not become an option of the VMM's.
    guest.disks.insert(guest.disks.begin(),
                       {.id = "data", .file = place.runDirectory / "data,read-only=off.img", .readOnly = true});
    makeDisk(guest.disks[0].file, 8 << 20);
    guest.bootArguments += " mergen.scribble";
    const auto process = launch(guest, place);
    bootToUserSpace(guest, place, *process);
    EXPECT_THAT(process->console(), HasSubstr("of 8388608 bytes, takes no writes"));
    stopCleanly(place, *process);
    EXPECT_TRUE(isZero(guest.disks[0].file));
}

TEST_P(VmmContract, TwoGuestsDoNotMeet) {
    const VmmPlace place = makePlace(), otherPlace = makePlace();
    const GuestSpec guest = makeGuest(place), otherGuest = makeGuest(otherPlace);
    if (IsSkipped()) return;
    const auto process = launch(guest, place), other = launch(otherGuest, otherPlace);
    vmm().boot(otherPlace, otherGuest, plenty, [&] { return other->alive(); });
    vmm().boot(place, guest, plenty, [&] { return process->alive(); });
    ASSERT_TRUE(process->awaitConsole(GetParam().signs.ready)) << process->console();
    ASSERT_TRUE(other->awaitConsole(GetParam().signs.ready)) << other->console();
    stopCleanly(place, *process);
    EXPECT_EQ(vmm().query(otherPlace, plenty), GuestState::Running);
    stopCleanly(otherPlace, *other);
}

TEST_P(VmmContract, KilledVmmLeavesNothingAfterCleanUp) {
    const VmmPlace place = makePlace();
    const GuestSpec guest = makeGuest(place);
    if (IsSkipped()) return;
    const auto process = launch(guest, place);
    vmm().boot(place, guest, plenty, [&] { return process->alive(); });
    process->kill();
    ASSERT_TRUE(process->awaitExit().has_value());
    EXPECT_EQ(kindOf([&] { static_cast<void>(vmm().query(place, plenty)); }), ErrorKind::Unavailable);
    EXPECT_EQ(kindOf([&] { vmm().requestStop(place, plenty); }), ErrorKind::Unavailable);
    EXPECT_EQ(kindOf([&] { vmm().pause(place, plenty); }), ErrorKind::Unavailable);
    vmm().cleanUp(place);
    EXPECT_THAT(listDirectory(place.runDirectory), IsEmpty());
    // A start after that finds no trace of it.
    const auto again = launch(guest, place);
    bootToUserSpace(guest, place, *again);
}

TEST_P(VmmContract, BootEndsWhenTheVmmCannotStart) {
    const VmmPlace place = makePlace();
    GuestSpec guest = makeGuest(place);
    if (IsSkipped()) return;
    guest.disks[0].file = place.runDirectory / "missing.ext4";
    std::unique_ptr<test::VmmProcess> process;
    std::string why;
    try {
        process = launch(guest, place);
        vmm().boot(place, guest, plenty, [&] { return process->alive(); });
        ADD_FAILURE() << "it boots without a disk";
    } catch (const Error& error) {
        why = error.what();
        if (!process) {  // its files are looked at before it is launched
            EXPECT_EQ(error.kind(), ErrorKind::NotFound) << why;
            EXPECT_THAT(why, HasSubstr("missing.ext4"));
            vmm().cleanUp(place);
            EXPECT_THAT(listDirectory(place.runDirectory), IsEmpty());
            return;
        }
        // Either it ends, or it stays and refuses.
        EXPECT_TRUE(error.kind() == ErrorKind::Unavailable || error.kind() == ErrorKind::FailedPrecondition) << why;
        if (error.kind() == ErrorKind::Unavailable) {
            EXPECT_NE(process->awaitExit().value_or(0), 0);
        }
    }
    process->kill();
    ASSERT_TRUE(process->awaitExit().has_value());
    EXPECT_THAT(why + process->console(), HasSubstr("missing.ext4")) << "nobody says why";
    vmm().cleanUp(place);
    EXPECT_THAT(listDirectory(place.runDirectory), IsEmpty());
}

TEST_P(VmmContract, GuestComesUpAgainUnattended) {
    const VmmPlace place = makePlace();
    const GuestSpec guest = makeGuest(place);
    if (IsSkipped()) return;
    LaunchPlan plan = vmm().plan(guest, place);
    if (plan.unattended.empty()) GTEST_SKIP() << "this VMM cannot start without somebody who drives it";
    const auto first = launch(guest, place);
    bootToUserSpace(guest, place, *first);
    first->kill();
    ASSERT_TRUE(first->awaitExit().has_value());

    // What the VM's parent does, with no server to ask.
    for (const std::filesystem::path& file : plan.stale) removeTree(file);
    plan.arguments = plan.unattended;
    test::VmmProcess again(plan);
    ASSERT_TRUE(again.awaitConsole(GetParam().signs.ready)) << again.console();
    EXPECT_EQ(vmm().query(place, plenty), GuestState::Running);
    stopCleanly(place, again);
    vmm().cleanUp(place);
    EXPECT_THAT(listDirectory(place.runDirectory), IsEmpty());
}

TEST_P(VmmContract, BootTimesOutWhereNothingListens) {
    EXPECT_EQ(kindOf([&] { vmm().boot(makePlace(), paperGuest(), moment, [] { return true; }); }), ErrorKind::Timeout);
}

TEST_P(VmmContract, NobodyListeningIsUnavailable) {
    const VmmPlace place = makePlace();
    EXPECT_EQ(kindOf([&] { static_cast<void>(vmm().query(place, plenty)); }), ErrorKind::Unavailable);
    EXPECT_EQ(kindOf([&] { vmm().requestStop(place, plenty); }), ErrorKind::Unavailable);
    vmm().cleanUp(place);
}

TEST_P(VmmContract, SilenceIsATimeout) {
    const VmmPlace place = makePlace();
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    place.controlSocket.native().copy(address.sun_path, sizeof(address.sun_path) - 1);
    const UniqueFd listener(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    ASSERT_EQ(::bind(listener.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
    ASSERT_EQ(::listen(listener.get(), 16), 0);
    EXPECT_EQ(kindOf([&] { static_cast<void>(vmm().query(place, moment)); }), ErrorKind::Timeout);
    EXPECT_EQ(kindOf([&] { vmm().requestStop(place, moment); }), ErrorKind::Timeout);
    EXPECT_EQ(kindOf([&] { vmm().boot(place, paperGuest(), moment, [] { return true; }); }), ErrorKind::Timeout);
}

TEST_P(VmmContract, CleanUpOfAFolderThatIsGoneDoesNothing) {
    const VmmPlace place = makePlace();
    removeTree(place.runDirectory);
    EXPECT_NO_THROW(vmm().cleanUp(place));
}

}  // namespace
}  // namespace mergen
