#pragma once

#include <chrono>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <ostream>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <mergen/sdk/vmm.hpp>

#include "test_host.hpp"
#include "vmm_process.hpp"

namespace mergen {

/// What the backend boots, and what can be seen of it.
struct GuestUnderTest {
    /// Kernel and root disk, or why there are none.
    std::function<std::optional<test::GuestImages>()> images = test::GuestImages::find;
    std::string ready = "mergen-guest: ready";                 ///< on the console once it is up
    std::string shuttingDown = "mergen-guest: shutting down";  ///< on the console once it has heard Ctrl-Alt-Del
    bool writesDisks = true;  ///< it counts its boots on the root disk, and scribbles on the second one if told to
};

/// One VMM backend as the suite sees it.
struct VmmUnderTest {
    const mergen_key* keys;  ///< its manifest's table
    std::function<std::unique_ptr<VmmBackend>()> create;
    std::map<std::string, std::string, std::less<>> settings;
    std::filesystem::path program;  ///< the VMM's; tests that need it are skipped where it is missing
    std::filesystem::path libexec;  ///< programs of Mergen's own that the backend starts; empty: none
    GuestUnderTest guest{};
};
inline void PrintTo(const VmmUnderTest&, std::ostream* out) {
    *out << "backend";
}

/// The promises of `VmmBackend`, shown with guests: real ones, or what a fake VMM can show of one. A backend runs them
/// by one line in a test of its own, in namespace mergen or below:
///
///     INSTANTIATE_TEST_SUITE_P(Qemu, VmmContract, ::testing::Values(VmmUnderTest{...}));
class VmmContract : public ::testing::TestWithParam<VmmUnderTest> {
protected:
    static constexpr std::chrono::seconds plenty{60};        ///< never reached
    static constexpr std::chrono::milliseconds moment{100};  ///< always reached

    VmmContract();
    ~VmmContract() override;

    [[nodiscard]] VmmBackend& vmm() { return *vmm_; }
    /// A backend of the kind that has been configured and started: another server on the same host.
    [[nodiscard]] std::unique_ptr<VmmBackend> another();

    /// A place with a run directory of its own.
    [[nodiscard]] VmmPlace makePlace();
    /// A guest with a root disk of its own in the place. Skips the test if there is no guest to boot or no VMM: the
    /// caller returns if IsSkipped().
    [[nodiscard]] GuestSpec makeGuest(const VmmPlace& place);
    /// The same for a test that looks at what the guest wrote: skips it where the guest writes nothing.
    [[nodiscard]] GuestSpec makeWritingGuest(const VmmPlace& place);
    /// A guest that is only talked about: nothing of it exists.
    [[nodiscard]] static GuestSpec paperGuest();

    /// Plans and launches, without boot().
    [[nodiscard]] std::unique_ptr<test::VmmProcess> launch(const GuestSpec& guest, const VmmPlace& place);
    /// boot() of a launched guest, up to its user space.
    void bootToUserSpace(const GuestSpec& guest, const VmmPlace& place, test::VmmProcess& process);
    /// requestStop(), and an end with exit status 0.
    void stopCleanly(const VmmPlace& place, test::VmmProcess& process);

    /// The kind of the Error that `action` throws; nothing if it throws none.
    [[nodiscard]] static std::optional<ErrorKind> kindOf(const std::function<void()>& action);
    /// The member that check() refuses the guest for.
    [[nodiscard]] std::string refusedField(const GuestSpec& guest);

private:
    test::TestHost host_;
    std::unique_ptr<VmmBackend> vmm_;
};

}  // namespace mergen
