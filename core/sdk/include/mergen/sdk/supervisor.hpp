#pragma once

#include <chrono>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include <mergen/sdk/plugin.hpp>
#include <mergen/sdk/types.hpp>

namespace mergen {

/// A tap that the process gets as an open descriptor, because a process with its own uid may not open /dev/net/tun.
struct InheritedTap {
    IfName name;  ///< exists in the process's network namespace
    int fd = 3;   ///< the number under which the process finds it, 3 or more
};

/// All that is needed to run one VMM.
struct ProcessSpec {
    OwnerTag owner;
    std::vector<std::string> arguments;    ///< [0] is the program's absolute path; never a shell line
    std::vector<std::string> environment;  ///< "KEY=value"; the whole environment, nothing is inherited
    std::filesystem::path workingDirectory;
    std::optional<std::filesystem::path> netns;  ///< handle of the network namespace to enter; none: the server's own
    std::vector<InheritedTap> taps;
    Credentials credentials;            ///< dropped to before the program is executed, with `groups` and no others
    std::vector<std::uint32_t> groups;  ///< supplementary groups, such as that of /dev/kvm
    std::filesystem::path console;      ///< standard output and error go there, bounded; its folder exists
    Bytes consoleLimit{1U << 20U};      ///< the newest that many bytes are kept, at least
};

/// How a process ended.
struct ExitStatus {
    bool signalled = false;
    int code = 0;     ///< exit code, or the signal's number
    SystemTime at{};  ///< when its parent saw it
    auto operator<=>(const ExitStatus&) const = default;
};

enum class ProcessState : std::uint8_t {
    Absent,   ///< nothing is known under this owner
    Running,  ///< alive
    Exited,   ///< ended; the exit status is kept until forget()
};

struct ProcessStatus {
    OwnerTag owner;
    ProcessState state = ProcessState::Absent;
    int pid = 0;  ///< of the VMM while Running, else 0
    std::optional<ExitStatus>
        exit;          ///< while Exited; none if it is lost (the host was rebooted, the parent was killed)
    std::string note;  ///< one sentence where `exit` is none: why
};

/// Told when a process ended. Called on a thread of the backend, which does nothing else meanwhile: return soon, and do
/// not call back into the backend from there.
class MERGEN_SDK_API ExitListener {
public:
    virtual ~ExitListener();
    virtual void onExit(const ProcessStatus& status) noexcept = 0;
};

/// What differs between supervisors.
struct SupervisorTraits {
    bool survivesServer = false;  ///< processes live on when the server stops, crashes or is replaced
    bool systemd = false;         ///< processes are systemd units
};

/// Keeps VMM processes alive and knows how they ended.
///
/// Story: launch → (exit event, or signal and waitExit) → forget. After a restart of the server, list() gives every
/// process that this instance launched and has not forgotten, with the exit status of those that ended meanwhile.
/// A process is never identified by its pid alone.
/// Threads: any method from any thread at once, for different VMs; the engine never calls two at once for one VM, save
/// status().
class MERGEN_SDK_API SupervisorBackend : public Plugin {
public:
    ~SupervisorBackend() override;

    [[nodiscard]] virtual SupervisorTraits traits() const noexcept = 0;

    /// Who is told of exits from now on; nobody after null. No call to the former listener is in progress when this
    /// returns. Exits before are found by list().
    virtual void setExitListener(ExitListener* listener) noexcept = 0;

    /// Starts the process and returns when it has been executed. Throws AlreadyExists if one of this owner is running
    /// or not forgotten, NotFound or PermissionDenied if the program cannot be executed (the text names it),
    /// InvalidArgument for a spec that breaks a rule above. After a throw there is no process and nothing to forget.
    virtual ProcessStatus launch(const ProcessSpec& spec) = 0;

    [[nodiscard]] virtual ProcessStatus status(const OwnerTag& owner) const = 0;

    /// All that this instance launched and has not forgotten, in no order.
    [[nodiscard]] virtual std::vector<ProcessStatus> list() const = 0;

    /// Sends a signal; false if the process is not running. A signal never reaches another process that got its pid.
    virtual bool signal(const OwnerTag& owner, int signal) = 0;

    /// Waits until the process is not Running, at most `timeout`, and gives its status then.
    [[nodiscard]] virtual ProcessStatus waitExit(const OwnerTag& owner, std::chrono::milliseconds timeout) const = 0;

    /// Drops what is kept of an ended process. Does nothing if there is nothing. Throws FailedPrecondition while it is
    /// running. The console stays.
    virtual void forget(const OwnerTag& owner) = 0;
};

}  // namespace mergen
