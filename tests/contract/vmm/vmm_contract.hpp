#pragma once

#include <chrono>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <mergen/sdk/vmm.hpp>

#include "backend_under_test.hpp"
#include "test_host.hpp"
#include "vmm_process.hpp"

namespace mergen {

/// One VMM backend as the suite sees it.
using VmmUnderTest = BackendUnderTest<VmmBackend>;

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
    [[nodiscard]] BackendPtr<VmmBackend> another();

    /// A place with a run directory of its own.
    [[nodiscard]] VmmPlace makePlace();
    /// A guest with a root disk of its own in the place. Skips the test if there is no guest to boot or no VMM: the
    /// caller returns if IsSkipped().
    [[nodiscard]] GuestSpec makeGuest(const VmmPlace& place);
    /// The same for a test that looks at what the guest wrote: skips it where the guest writes nothing.
    [[nodiscard]] GuestSpec makeWritingGuest(const VmmPlace& place);
    /// A guest that is only talked about: nothing of it exists.
    [[nodiscard]] static GuestSpec paperGuest();

    /// Prepares, plans and launches, without boot().
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
    BackendPtr<VmmBackend> vmm_;
};

}  // namespace mergen
