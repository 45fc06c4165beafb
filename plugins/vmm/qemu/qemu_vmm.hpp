#pragma once

#include <chrono>
#include <functional>
#include <string>

#include <mergen/base/folder_watches.hpp>
#include <mergen/sdk/vmm.hpp>

#include "command_line.hpp"

namespace mergen::vmm {

/// Guests under QEMU, driven over QMP.
///
/// start() decides once how guests run on this host, by settings and by trying KVM out: health() says what it found.
/// Nothing of a guest is kept in memory; each call is one short conversation over the VM's control socket.
class QemuVmm : public VmmBackend {
public:
    /// The manifest's table.
    static const mergen_key keys[];

    void configure(Host& host) override;
    /// Throws NotSupported if the settings ask for KVM and it does not run guests. A missing QEMU is no reason to
    /// throw: it may be installed while the server runs.
    void start() override;
    void stop() noexcept override {}
    [[nodiscard]] Health health() const override;

    [[nodiscard]] VmmTraits traits() const noexcept override { return {.pause = true}; }
    void check(const GuestSpec& guest) const override;
    [[nodiscard]] LaunchPlan plan(const GuestSpec& guest, const VmmPlace& place) const override;
    void boot(const VmmPlace& place, const GuestSpec& guest, std::chrono::milliseconds timeout,
              const std::function<bool()>& alive) override;
    [[nodiscard]] GuestState query(const VmmPlace& place, std::chrono::milliseconds timeout) const override;
    /// The guest hears it once its kernel has a keyboard; earlier it is lost. A paused guest is woken first, for it
    /// could not hear it either. Throws FailedPrecondition if the guest has not run yet.
    void requestStop(const VmmPlace& place, std::chrono::milliseconds timeout) override;
    /// Throw FailedPrecondition if the guest has not run yet or has ended.
    void pause(const VmmPlace& place, std::chrono::milliseconds timeout) override;
    void resume(const VmmPlace& place, std::chrono::milliseconds timeout) override;
    void cleanUp(const VmmPlace& place) override;

private:
    [[nodiscard]] bool programThere() const;

    Host* host_ = nullptr;
    std::string accelSetting_, machineSetting_;
    std::filesystem::path kvmDevice_;
    // Since start(): constant, so that any thread may read.
    Platform platform_;
    std::string finding_;  ///< how guests run, and why so
    FolderWatches watches_;
};

}  // namespace mergen::vmm
