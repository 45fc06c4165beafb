#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <sys/types.h>
#include <vector>

#include <mergen/base/fd.hpp>
#include <mergen/sdk/vmm.hpp>

/// What tests of VMM backends need of the host: a guest to boot, and a supervisor of the smallest kind.
namespace mergen::test {

/// What `guest/build-rootfs` makes.
struct GuestImages {
    std::filesystem::path kernel, rootDisk;

    /// Those in `folder`, or, if that is empty, those of the tests of this build, which `ctest` makes before each test
    /// that needs them. Nothing if they are not there.
    [[nodiscard]] static std::optional<GuestImages> find(std::filesystem::path folder = {});
};

/// Runs a plan as a child of the test, killed at the end if it still lives. Its console is a pipe that is read while
/// the test waits for something, so the test must wait: a full pipe is no fault of the VMM's.
class VmmProcess {
public:
    struct Tap {
        int from = -1;  ///< open in the test
        int to = -1;    ///< the number that the plan wants
    };

    /// `user`: another user and group to run as, for which the test must be root.
    explicit VmmProcess(const LaunchPlan& plan, const std::vector<Tap>& taps = {},
                        std::optional<Credentials> user = {});
    VmmProcess(const VmmProcess&) = delete;
    VmmProcess& operator=(const VmmProcess&) = delete;
    ~VmmProcess();

    /// Whether it has not ended. What VmmBackend::boot wants to know.
    [[nodiscard]] bool alive() const;
    void kill();

    /// Waits until the console has shown `text` (since the beginning); false if it has not when the process has ended
    /// or the deadline has passed.
    [[nodiscard]] bool awaitConsole(std::string_view text,
                                    std::chrono::milliseconds timeout = std::chrono::seconds(90));
    /// Waits for the end and gives the status as waitpid(2) does; nothing if it does not end in time.
    [[nodiscard]] std::optional<int> awaitExit(std::chrono::milliseconds timeout = std::chrono::seconds(60));
    /// All that it has printed as far as it has been read.
    [[nodiscard]] const std::string& console() const noexcept { return console_; }

private:
    /// Reads what is there until `done`, the deadline, or the end of the process; true if done.
    bool readUntil(const std::function<bool()>& done, std::chrono::milliseconds timeout);
    /// Reads what is there now; false at the end of the pipe.
    bool drain();

    pid_t pid_ = -1;
    UniqueFd pidfd_, output_;
    std::string console_;
    std::optional<int> status_;
};

}  // namespace mergen::test
