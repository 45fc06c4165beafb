#pragma once

#include <chrono>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <utility>

#include <mergen/base/kvm.hpp>
#include <mergen/sdk/vmm.hpp>

#include "version.hpp"

namespace mergen::vmm {

class ApiClient;

/// Guests under Firecracker, driven over its API socket, without a jailer.
///
/// start() looks once at the program and at KVM: health() says what it found. A program that is installed later is used
/// all the same. Nothing of a guest is kept in memory; each call is one short conversation over the VM's control
/// socket.
class FirecrackerVmm final : public VmmBackend {
public:
    /// The manifest's table.
    static const mergen_key keys[];

    /// `tunDevice`: where Firecracker opens the taps of its guests; another one only in tests.
    explicit FirecrackerVmm(std::filesystem::path tunDevice = "/dev/net/tun") : tunDevice_(std::move(tunDevice)) {}

    void configure(Host& host) override;
    /// A missing program or KVM is no reason to throw: the operator asked for this VMM and sees in health() what is
    /// wrong.
    void start() override;
    void stop() noexcept override {}
    [[nodiscard]] Health health() const override;

    [[nodiscard]] VmmTraits traits() const noexcept override { return {.pause = true}; }
    [[nodiscard]] VmmFitness fitness() const override;
    [[nodiscard]] std::string exitMeaning(const ExitStatus& exit) const override;
    void check(const GuestSpec& guest) const override;
    /// Unpacks it. A bzImage whose payload cannot be unpacked stays as it is, if the version can load it.
    void importKernel(const std::filesystem::path& kernel) const override;
    [[nodiscard]] LaunchPlan plan(const GuestSpec& guest, const VmmPlace& place) const override;
    /// Leaves the configuration file for an unattended start in the run directory before the guest runs.
    void boot(const VmmPlace& place, const GuestSpec& guest, std::chrono::milliseconds timeout,
              const std::function<bool()>& alive) override;
    [[nodiscard]] GuestState query(const VmmPlace& place, std::chrono::milliseconds timeout) const override;
    /// The guest hears it once its kernel has a keyboard; earlier it is lost. A paused guest is woken first, for it
    /// could not hear it either. Throws FailedPrecondition if the guest has not run yet.
    void requestStop(const VmmPlace& place, std::chrono::milliseconds timeout) override;
    /// Throw FailedPrecondition if the guest has not run yet.
    void pause(const VmmPlace& place, std::chrono::milliseconds timeout) override;
    void resume(const VmmPlace& place, std::chrono::milliseconds timeout) override;
    void cleanUp(const VmmPlace& place) override;

private:
    /// Throws Error if there is none that may be used.
    [[nodiscard]] std::filesystem::path program() const;
    /// The version that a program prints; nothing if it prints none.
    [[nodiscard]] std::optional<FirecrackerVersion> askVersion(const std::filesystem::path& program) const;
    void configureGuest(ApiClient& api, const VmmPlace& place, const GuestSpec& guest);

    const std::filesystem::path tunDevice_;
    Host* host_ = nullptr;
    std::filesystem::path programSetting_, kvmDevice_;
    bool probe_ = true;
    // Since start(): constant, so that any thread may read.
    std::optional<FirecrackerVersion> version_;
    DeviceFinding kvm_, tun_;
};

}  // namespace mergen::vmm
