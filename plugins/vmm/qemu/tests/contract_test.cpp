#include <memory>

#include <gtest/gtest.h>

#include "qemu_vmm.hpp"
#include "vmm_contract.hpp"

namespace mergen::vmm {
namespace {

VmmUnderTest qemu(std::map<std::string, std::string, std::less<>> settings) {
    return {.keys = QemuVmm::keys,
            .create = [] { return std::make_unique<QemuVmm>(); },
            .settings = std::move(settings),
            .program = "/usr/bin/qemu-system-x86_64",
            .libexec = {}};
}

// Emulated whether or not this host has KVM, so that the suite is the same everywhere.
INSTANTIATE_TEST_SUITE_P(QemuQ35, VmmContract, ::testing::Values(qemu({{"accel", "tcg"}})));

/// The machine for KVM, shown to be whole without KVM: devices, disks, console, Ctrl-Alt-Del. Without KVM's clock a
/// guest calibrates its own against the emulated one, which fails now and then and leaves it hanging; so it is told.
class QemuMicrovm : public VmmContract {};

TEST_P(QemuMicrovm, BootsAndHearsTheRequestToStop) {
    const VmmPlace place = makePlace();
    GuestSpec guest = makeGuest(place);
    if (IsSkipped()) return;
    guest.vcpus = 2;
    guest.bootArguments += " tsc_early_khz=2500000";
    const auto process = launch(guest, place);
    bootToUserSpace(guest, place, *process);
    EXPECT_EQ(vmm().query(place, plenty), GuestState::Running);
    stopCleanly(place, *process);
}

INSTANTIATE_TEST_SUITE_P(Emulated, QemuMicrovm, ::testing::Values(qemu({{"accel", "tcg"}, {"machine", "microvm"}})));

}  // namespace
}  // namespace mergen::vmm
