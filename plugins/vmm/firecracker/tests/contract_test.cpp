#include <cstdlib>
#include <fstream>
#include <memory>
#include <string>
#include <unistd.h>
#include <vector>

#include <gtest/gtest.h>

#include "firecracker_vmm.hpp"
#include "kernels.hpp"
#include "vmm_contract.hpp"

namespace mergen::vmm {
namespace {

/// A kernel and a root disk that a fake takes for such; gone with the program.
class PaperImages {
public:
    PaperImages() {
        std::string name = (std::filesystem::temp_directory_path() / "mergen-images-XXXXXX").string();
        if (::mkdtemp(name.data()) == nullptr) std::abort();
        folder_ = name;
        std::ofstream(folder_ / "vmlinuz") << test::elfHead();
        std::ofstream(folder_ / "rootfs.ext4") << std::string(1 << 20, '\0');
    }
    PaperImages(const PaperImages&) = delete;
    PaperImages& operator=(const PaperImages&) = delete;
    ~PaperImages() {
        std::error_code ignored;
        std::filesystem::remove_all(folder_, ignored);
    }
    [[nodiscard]] const std::filesystem::path& folder() const noexcept { return folder_; }

private:
    std::filesystem::path folder_;
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
