#include <cstdlib>
#include <fstream>
#include <memory>
#include <string>
#include <unistd.h>
#include <vector>

#include <gtest/gtest.h>

#include "firecracker_vmm.hpp"
#include "kernels.hpp"
#include "temp_dir.hpp"
#include "vmm_contract.hpp"

namespace mergen::vmm {
namespace {

/// A kernel and a root disk that a fake takes for such; gone with the program.
class PaperImages {
public:
    PaperImages() {
        folder_.write("vmlinuz", test::elfHead());
        folder_.write("rootfs.ext4", std::string(1 << 20, '\0'));
    }
    [[nodiscard]] const std::filesystem::path& folder() const noexcept { return folder_.path(); }

private:
    const mergen::test::TempDir folder_;
};

const std::filesystem::path& paperImages() {
    static const PaperImages made;
    return made.folder();
}

VmmUnderTest onTheFake(const std::string& jailer) {
    return {.keys = FirecrackerVmm::keys,
            .create = [] { return std::make_unique<FirecrackerVmm>(); },
            .settings = {{"binary", MERGEN_FAKE_FIRECRACKER}, {"probe", "false"}, {"jailer", jailer}},
            .program = MERGEN_FAKE_FIRECRACKER,
            .libexec = {},
            .guest = paperImages(),
            .signs = {.ready = "fake-guest: ready", .shuttingDown = "fake-guest: shutting down", .writesDisks = false}};
}

INSTANTIATE_TEST_SUITE_P(FirecrackerFake, VmmContract, ::testing::Values(onTheFake("off")));

/// Only root can make a jail.
std::vector<VmmUnderTest> jailed() {
    if (::geteuid() != 0) return {};
    return {onTheFake(MERGEN_FAKE_JAILER)};
}
INSTANTIATE_TEST_SUITE_P(FirecrackerFakeJailed, VmmContract, ::testing::ValuesIn(jailed()));

}  // namespace
}  // namespace mergen::vmm
