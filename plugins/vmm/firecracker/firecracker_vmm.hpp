#pragma once

#include <chrono>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <mergen/base/folder_watches.hpp>
#include <mergen/base/guest.hpp>
#include <mergen/base/kvm.hpp>
#include <mergen/sdk/vmm.hpp>

#include "cgroup.hpp"
#include "jail.hpp"
#include "jailer.hpp"
#include "kernel_cache.hpp"
#include "unpack_turns.hpp"
#include "version.hpp"

namespace mergen::vmm {

class ApiClient;

/// Guests under Firecracker, driven over its API socket, in a jail where there is a jailer.
///
/// start() looks once at the program and at KVM: health() says what it found. A program that is installed later is used
/// all the same. Nothing of a guest is kept in memory; each call is one short conversation over the VM's control
/// socket, which for a jailed VM is a link to the one in its jail.
class FirecrackerVmm final : public VmmBackend {
public:
    /// The manifest's table.
    static const mergen_key keys[];

    /// `tunDevice`: where Firecracker opens the taps of its guests; `root`: where the host's "/" is, below which its
    /// processor and huge pages are looked up. Others only in tests.
    explicit FirecrackerVmm(std::filesystem::path tunDevice = "/dev/net/tun", std::filesystem::path root = "/")
        : tunDevice_(std::move(tunDevice)), root_(std::move(root)) {}

    void configure(Host& host) override;
    /// A missing program or KVM is no reason to throw: the operator asked for this VMM and sees in health() what is
    /// wrong.
    void start() override;
    void stop() noexcept override {}
    [[nodiscard]] Health health() const override;

    [[nodiscard]] VmmTraits traits() const noexcept override { return {.pause = true, .adjust = true}; }
    [[nodiscard]] VmmFitness fitness() const override;
    [[nodiscard]] std::string exitMeaning(const ExitStatus& exit) const override;
    void check(const GuestSpec& guest) const override;
    /// Huge pages that are free, and a processor of the CPU template's vendor: the VM may have been made on another
    /// host.
    void checkStart(const GuestSpec& guest) const override;
    /// Unpacks it, or copies what an equal one was unpacked to. A bzImage whose payload cannot be unpacked stays as it
    /// is, if the version can load it.
    void importKernel(const std::filesystem::path& kernel) const override;
    /// All kernels of the cache.
    bool giveUpRoom() override;
    /// Makes jail and control groups, and the link at the control socket's place.
    void prepare(const GuestSpec& guest, const VmmPlace& place) override;
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
    void adjust(const VmmPlace& place, const GuestSpec& guest, std::chrono::milliseconds timeout) override;
    /// Firecracker writes them into a pipe that nobody reads otherwise: when it is full, lines are lost. Throws
    /// Conflict while another call reads it.
    [[nodiscard]] std::string metrics(const VmmPlace& place, std::chrono::milliseconds timeout) override;
    [[nodiscard]] std::filesystem::path vsockPath(const VmmPlace& place) const override;
    /// Whatever the settings say now: the VM may have been jailed by another server.
    void cleanUp(const VmmPlace& place) override;
    [[nodiscard]] std::vector<Uuid> list() const override;
    void removeStray(const Uuid& vm) override;

private:
    /// Throws NotSupported for one that is too old, or that has or may have known holes which the settings do not
    /// allow.
    void requireRelease(const std::optional<FirecrackerVersion>& version) const;
    /// Throws Error if there is none that may be used.
    [[nodiscard]] std::filesystem::path program() const;
    /// The same for the jailer of that program; throws if there is one that must not be used.
    [[nodiscard]] Jailing jailing(const std::filesystem::path& program) const;
    /// Both for a start: FailedPrecondition that names the setting.
    [[nodiscard]] std::pair<std::filesystem::path, Jailing> programToStart() const;
    /// Whether guests, jailed or not, can open KVM now: a jailer makes a device for each, so that it need only be
    /// there.
    [[nodiscard]] DeviceFinding kvmOpens(bool isJailed) const;
    /// The same, and whether it runs guests where that is tried out.
    [[nodiscard]] DeviceFinding kvmOf(bool isJailed) const;
    /// A guest as the Firecracker in its place sees it.
    struct Seen {
        bool jailed = false;
        GuestSpec guest;
        firecracker::DevicePaths paths;
    };
    [[nodiscard]] Seen seen(const VmmPlace& place, const GuestSpec& guest) const;
    /// The files from which an unattended Firecracker configures itself.
    void writeConfiguration(const VmmPlace& place, const Seen& seen) const;
    [[nodiscard]] LaunchPlan planJailed(const GuestSpec& guest, const VmmPlace& place,
                                        const std::filesystem::path& jailer, const std::filesystem::path& path) const;
    /// Removes what prepare() makes outside of the run directory.
    void removeJail(const Uuid& vm) const;
    /// Makes sure, of a jail that is made, that the jailer can copy the program into it, if need be at the cost of
    /// kernels that are kept: it would fail by itself too, but without a word that we could tell from others. Throws
    /// ENOSPC.
    void findRoomFor(const std::filesystem::path& program);
    /// `told`: what it says its version is.
    void configureGuest(ApiClient& api, const std::string& told, const VmmPlace& place, const GuestSpec& asked);

    const std::filesystem::path tunDevice_, root_;
    Host* host_ = nullptr;
    std::filesystem::path programSetting_, kvmDevice_;
    bool probe_ = true;
    JailerWish jailerWish_;
    bool cgroupWanted_ = true;
    Bytes memoryOverhead_{}, fileSizeLimit_{}, kernelCacheSize_{};
    // Since start(): constant, so that any thread may read.
    std::optional<FirecrackerVersion> version_;
    DeviceFinding kvm_, tun_;                // whether users of VMs can open them
    std::optional<DeviceFinding> kvmTrial_;  // none: it is not tried out
    std::string cpuVendor_;
    std::optional<Jailing> jailing_;  // none where start() found no program
    std::unique_ptr<JailYard> jails_;
    std::unique_ptr<KernelCache> kernelCache_;
    std::unique_ptr<CgroupTree> cgroups_;  // locks within
    mutable UnpackTurns unpackTurns_;      // locks within
    FolderWatches watches_;
};

}  // namespace mergen::vmm
