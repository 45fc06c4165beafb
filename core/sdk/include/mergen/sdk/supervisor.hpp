#pragma once

#include <chrono>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <mergen/sdk/plugin.hpp>
#include <mergen/sdk/types.hpp>

namespace mergen {

/// A tap that the process gets as an open descriptor, because a process with its own uid may not open /dev/net/tun.
struct InheritedTap {
    IfName name;  ///< exists in the process's network namespace
    int fd = 3;   ///< the number under which the process finds it, 3 or more
};

/// Which ends are followed by another run.
enum class RestartPolicy : std::uint8_t {
    No,
    OnFailure,  ///< those with an exit status other than 0, by a signal, or after a panic of the guest's kernel
    Always,
};
[[nodiscard]] MERGEN_SDK_API std::string_view toString(
    RestartPolicy policy) noexcept;  ///< "no", "on-failure", "always"
[[nodiscard]] MERGEN_SDK_API std::optional<RestartPolicy> parseRestartPolicy(std::string_view text) noexcept;

/// How a process is started again, by whatever keeps it alive and also while no server runs.
struct RestartPlan {
    RestartPolicy policy = RestartPolicy::No;
    unsigned maxRestarts = 0;              ///< so many in a row, without a run between them that lasted; 0: without end
    std::vector<std::string> arguments{};  ///< the command line of every run but the first; [0] absolute
    std::vector<std::filesystem::path> stale{};  ///< removed before each of these runs; absolute
};

/// All that is needed to run one VMM.
struct ProcessSpec {
    OwnerTag owner;
    std::vector<std::string> arguments{};  ///< [0] is the program's absolute path; never a shell line
    std::vector<std::string> environment;  ///< "KEY=value"; the whole environment, nothing is inherited
    std::filesystem::path workingDirectory;
    std::optional<std::filesystem::path> netns;  ///< handle of the network namespace to enter; none: the server's own
    std::vector<InheritedTap> taps;
    Credentials credentials;            ///< dropped to before the program is executed, with `groups` and no others
    std::vector<std::uint32_t> groups;  ///< supplementary groups, such as that of /dev/kvm
    /// A process-id namespace of its own, whose init process does nothing and ends with the process's parent: whatever
    /// the program does with its credentials, neither it nor a child of it outlives who answers for it. Needs root.
    bool pidNamespace = false;
    std::filesystem::path console;  ///< standard output and error go there, bounded; its folder exists
    Bytes consoleLimit{1U << 20U};  ///< the newest that many bytes are kept, at least
    RestartPlan restart{};          ///< takes effect with permitRestarts()
};

/// How a process ended.
struct ExitStatus {
    bool signalled = false;
    int code = 0;     ///< exit code, or the signal's number
    SystemTime at{};  ///< when its parent saw it
    auto operator<=>(const ExitStatus&) const = default;
};

/// A signal that was sent through SupervisorBackend::signal().
struct SentSignal {
    int signal = 0;
    std::string by;  ///< as given there
    auto operator<=>(const SentSignal&) const = default;
};

/// One run of a process that another one has followed, or is about to.
struct PastRun {
    unsigned number = 1;  ///< 1 is that of launch()
    ExitStatus exit;
    std::optional<SentSignal> sent;         ///< what ended it, if that was sent through signal()
    std::string note;                       ///< why it could not be executed; `exit` has code 127 then
    unsigned attempt = 1;                   ///< of the restart that follows, counted from 1 after every run that lasted
    std::chrono::milliseconds delay{};      ///< from its end to that restart
    std::optional<SystemTime> restartedAt;  ///< none while that is still to come
    std::string panic{};                    ///< as ProcessStatus::panic
    auto operator<=>(const PastRun&) const = default;
};

enum class ProcessState : std::uint8_t {
    Absent,   ///< nothing is known under this owner
    Running,  ///< alive, or about to be started again
    Exited,   ///< ended for good; the exit status is kept until forget()
};

struct ProcessStatus {
    OwnerTag owner;
    ProcessState state = ProcessState::Absent;
    int pid = 0;  ///< of the VMM while it is alive, else 0: also while it waits to be started again
    std::optional<ExitStatus>
        exit;          ///< while Exited; none if it is lost (the host was rebooted, the parent was killed)
    std::string note;  ///< one sentence where `exit` is none: why
    std::optional<SentSignal> sent{};  ///< while Exited: what ended the last run, if that was sent through signal()
    unsigned restarts = 0;             ///< how often it was started again since launch()
    bool exhausted = false;            ///< while Exited: its policy asked for one restart more than `maxRestarts`
    /// While Exited with status 0: the line with which the guest's kernel said at the end of the console that it
    /// panicked, printable and at most some hundred bytes; else empty. The guest's word, and only of itself.
    std::string panic{};
};

/// Told when a process ended. Called on a thread of the backend, which does nothing else meanwhile: return soon, and do
/// not call back into the backend from there.
class MERGEN_SDK_API ExitListener {
public:
    virtual ~ExitListener();
    /// It ended for good.
    virtual void onExit(const ProcessStatus& status) noexcept = 0;
    /// pastRuns() has changed: a run ended that is to be followed by another, or that other has begun. Several changes
    /// may be told as one.
    virtual void onRestart(const OwnerTag& owner) noexcept = 0;
};

/// What differs between supervisors.
struct SupervisorTraits {
    bool survivesServer = false;  ///< processes live on when the server stops, crashes or is replaced
    bool systemd = false;         ///< processes are systemd units
};

/// Keeps VMM processes alive and knows how they ended.
///
/// Story: launch → permitRestarts → (exit event, or permitRestarts(false), signal and waitExit) → forget. After a
/// restart of the server, list() gives every process that this instance launched and has not forgotten, with the exit
/// status of those that ended meanwhile, and pastRuns() what was started again meanwhile.
/// A process is never identified by its pid alone.
/// Threads: any method from any thread at once, for different VMs; the engine never calls two at once for one VM, save
/// status() and pastRuns().
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

    /// Whether its restart policy holds; a launched process is not restarted before this says so. Durable: it holds
    /// while no server runs, too. From the return of permitRestarts(owner, false) no further run begins: the one that
    /// runs then is the last one and is reached by signal(), and a process that waits to be started again ends at once,
    /// with the exit status of its last run. Does nothing if there is no process or no policy.
    virtual void permitRestarts(const OwnerTag& owner, bool permitted) = 0;

    /// The runs that were followed by another one, oldest first; of a long history the newest 32 at least. Empty if
    /// there is no process.
    [[nodiscard]] virtual std::vector<PastRun> pastRuns(const OwnerTag& owner) const = 0;

    /// Sends a signal; false if the process is not running. A signal never reaches another process that got its pid.
    /// `by` says who wants it, 1 to 40 of a-z and '-'; it is written down before the signal is sent, so that whoever
    /// asks how the process ended is told (ProcessStatus::sent, PastRun::sent).
    virtual bool signal(const OwnerTag& owner, int signal, std::string_view by) = 0;

    /// Waits until the process is not Running, at most `timeout`, and gives its status then.
    [[nodiscard]] virtual ProcessStatus waitExit(const OwnerTag& owner, std::chrono::milliseconds timeout) const = 0;

    /// Drops what is kept of an ended process. Does nothing if there is nothing. Throws FailedPrecondition while it is
    /// running. The console stays.
    virtual void forget(const OwnerTag& owner) = 0;
};

}  // namespace mergen
