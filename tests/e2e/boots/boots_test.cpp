#include <atomic>
#include <chrono>
#include <cstdio>
#include <fcntl.h>
#include <mutex>
#include <string>
#include <thread>
#include <unistd.h>
#include <vector>

#include <gtest/gtest.h>

#include <mergen/base/fd.hpp>
#include <mergen/base/file.hpp>
#include <mergen/sdk/error.hpp>

#include "qemu_vmm.hpp"
#include "test_host.hpp"
#include "vmm_process.hpp"

namespace mergen::vmm {
namespace {

using namespace std::chrono_literals;

constexpr int boots = 50;
constexpr int atOnce = 2;
// A boot takes some three seconds here. The limit is for hosts under load; what it must catch is a guest that hangs.
constexpr auto limit = 120s;

/// One guest with a disk of its own, from launch to clean-up. Gives what went wrong, or nothing.
std::string bootOnce(QemuVmm& vmm, const test::TestHost& host, const test::GuestImages& images) {
    const Uuid uuid = Uuid::random();
    VmmPlace place{
        OwnerTag{host.instance(), uuid}, host.paths().runRoot / uuid.short8(), {}, {::geteuid(), ::getegid()}};
    place.controlSocket = place.runDirectory / "control.sock";
    makeDirectories(place.runDirectory, 0700);
    GuestSpec guest;
    guest.memory = MiB{256};
    guest.kernel = images.kernel;
    guest.bootArguments = "console=ttyS0 reboot=k panic=1 pci=off";
    guest.disks = {{.id = "rootfs", .file = place.runDirectory / "rootfs.ext4", .readOnly = false, .root = true}};
    copySparse(openFile(images.rootDisk, O_RDONLY).get(), guest.disks[0].file, 0600, ::geteuid(), ::getegid());

    test::VmmProcess process(vmm.plan(guest, place));
    vmm.boot(place, guest, limit, [&] { return process.alive(); });
    if (!process.awaitConsole("mergen-guest: ready", limit))
        return (process.alive() ? "hangs:\n" : "ended:\n") + process.console();
    vmm.requestStop(place, limit);
    const auto status = process.awaitExit(limit);
    if (!status) return "does not hear Ctrl-Alt-Del:\n" + process.console();
    if (*status != 0) return "ended with status " + std::to_string(*status) + ":\n" + process.console();
    vmm.cleanUp(place);
    removeTree(place.runDirectory);
    return {};
}

TEST(QemuBoots, FiftyOfFiftyReachUserSpaceAndEndWhenAsked) {
    const auto images = test::GuestImages::find();
    if (!images) GTEST_SKIP() << "there is no guest to boot: run guest/build-rootfs, or the test by ctest";
    if (::access("/usr/bin/qemu-system-x86_64", X_OK) != 0) GTEST_SKIP() << "this host has no qemu-system-x86_64";
    test::TestHost host(QemuVmm::keys, {{"accel", "tcg"}});
    QemuVmm vmm;
    vmm.configure(host);
    vmm.start();

    std::atomic<int> next = 0;
    std::mutex mutex;
    int good = 0;
    std::vector<std::string> failures;
    {
        std::vector<std::jthread> workers;
        for (int worker = 0; worker < atOnce; ++worker) {
            workers.emplace_back([&] {
                while (next++ < boots) {
                    std::string failure;
                    try {
                        failure = bootOnce(vmm, host, *images);
                    } catch (const Error& error) {
                        failure = error.what();
                    }
                    const std::lock_guard lock(mutex);
                    if (!failure.empty()) {
                        failures.push_back(std::move(failure));
                    } else if (++good % 10 == 0) {
                        std::printf("%d of %d boots reached user space\n", good, boots);
                        std::fflush(stdout);
                    }
                }
            });
        }
    }
    EXPECT_EQ(good, boots);
    for (const std::string& failure : failures) ADD_FAILURE() << failure;
}

}  // namespace
}  // namespace mergen::vmm
