#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <map>
#include <mutex>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>
#include <sys/types.h>
#include <thread>
#include <vector>

#include <mergen/base/fd.hpp>
#include <mergen/base/process.hpp>
#include <mergen/sdk/plugin.hpp>
#include <mergen/sdk/supervisor.hpp>

#include "observation.hpp"

namespace mergen::supervisor {

/// Gives every VMM a small parent of its own, mergen-vm, that outlives the server (README.md).
///
/// Nothing about a process is kept in memory but a pidfd to learn of its end: every answer is read from
/// `<runRoot>/supervisor/<uuid>/` and checked against the kernel, so a server that has just been started knows as much
/// as the one that launched.
///
/// Exit events are told for processes that end while the server runs; those that ended before start() are in list(). An
/// exit that is forgotten before it could be told is not told; one that is being told may arrive while forget()
/// returns.
class ProcessSupervisor : public SupervisorBackend {
public:
    /// The settings: the manifest's table.
    static const mergen_key keys[];

    ~ProcessSupervisor() override;

    void configure(Host& host) override;
    void start() override;
    void stop() noexcept override;
    [[nodiscard]] Health health() const override;

    [[nodiscard]] SupervisorTraits traits() const noexcept override;
    void setExitListener(ExitListener* listener) noexcept override;
    ProcessStatus launch(const ProcessSpec& spec) override;
    [[nodiscard]] ProcessStatus status(const OwnerTag& owner) const override;
    [[nodiscard]] std::vector<ProcessStatus> list() const override;
    void permitRestarts(const OwnerTag& owner, bool permitted) override;
    [[nodiscard]] std::vector<PastRun> pastRuns(const OwnerTag& owner) const override;
    bool signal(const OwnerTag& owner, int signal, std::string_view by) override;
    [[nodiscard]] ProcessStatus waitExit(const OwnerTag& owner, std::chrono::milliseconds timeout) const override;
    void forget(const OwnerTag& owner) override;

private:
    /// A process whose end is awaited: the parent of a VM or, if that was killed, the VMM.
    struct Watch {
        std::uint64_t id = 0;  // of this watch; what epoll gives back
        std::optional<ProcessIdentity> parent;
        UniqueFd pidfd;
        int folder = -1;  // inotify watch of the VM's folder, which tells of restarts
    };

    [[nodiscard]] std::filesystem::path folderOf(const OwnerTag& owner) const;
    [[nodiscard]] std::filesystem::path hidden(const OwnerTag& owner) const;
    void validate(const ProcessSpec& spec) const;

    UniqueFd makeFolder(const ProcessSpec& spec) const;
    void discardFolder(const OwnerTag& owner) const;
    void removeQuietly(const std::filesystem::path& folder) const noexcept;
    [[nodiscard]] std::vector<std::string> commandLine(const ProcessSpec& spec) const;
    pid_t spawnParent(const ProcessSpec& spec, const UniqueFd& lock, const UniqueFd& report) const;
    /// What is known of a parent whose launch failed.
    enum class Parent : std::uint8_t { Works, Ends, Hangs };
    bool abandon(const OwnerTag& owner, const UniqueFd& parent, const UniqueFd& report, Parent state) const noexcept;

    void adopt();
    void watch(const OwnerTag& owner, std::optional<ProcessIdentity> parent, UniqueFd pidfd);
    [[nodiscard]] std::optional<Watch> unwatch(const Uuid& vm);
    void run(const std::stop_token& stop);
    void onEnd(std::uint64_t id);
    void onChanges();

    Host* host_ = nullptr;
    std::filesystem::path root_;
    std::filesystem::path launcher_;
    std::chrono::milliseconds launchTimeout_{};
    std::chrono::milliseconds restartDelay_{}, restartDelayMax_{}, restartReset_{};
    std::mutex listenerMutex_;          // held over the call, so that setExitListener() waits for one in progress
    ExitListener* listener_ = nullptr;  // guarded by listenerMutex_

    UniqueFd epoll_;
    UniqueFd stopEvent_;
    UniqueFd changes_;  // inotify
    std::jthread thread_;
    mutable std::mutex mutex_;
    std::map<Uuid, Watch> watches_;  // guarded by mutex_
    std::uint64_t lastWatch_ = 0;    // guarded by mutex_
};

}  // namespace mergen::supervisor
