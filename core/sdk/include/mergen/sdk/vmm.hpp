#pragma once

#include <chrono>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include <mergen/sdk/plugin.hpp>
#include <mergen/sdk/supervisor.hpp>
#include <mergen/sdk/types.hpp>

namespace mergen {

struct DiskSpec {
    std::string id;              ///< [A-Za-z0-9_]+; "rootfs" is the root disk
    std::filesystem::path file;  ///< raw image, readable (and writable) for the VM's uid
    bool readOnly = false;
    bool root = false;  ///< exactly one disk of a guest
};

struct NicSpec {
    std::string id;  ///< "eth0"
    IfName tap;
    MacAddress mac;
    unsigned mtu = 0;  ///< bytes; 0: the VMM's and the guest's own default
};

/// The virtual machine.
struct GuestSpec {
    unsigned vcpus = 1;
    MiB memory{128};
    std::filesystem::path kernel;
    std::optional<std::filesystem::path> initrd{};
    std::string bootArguments;  ///< without root=: the VMM knows what the root disk is called
    std::vector<DiskSpec> disks;
    std::vector<NicSpec> nics;  ///< empty where the network backend makes no tap
};

/// Where one VMM lives on the host.
struct VmmPlace {
    OwnerTag owner;
    std::filesystem::path runDirectory;   ///< belongs to `credentials`, mode 0700, on no network file system
    std::filesystem::path controlSocket;  ///< within runDirectory; at most 107 bytes long (unix(7))
    Credentials credentials;
};

/// The VMM's command line and what it must inherit; the engine adds console, namespace and credentials.
struct LaunchPlan {
    std::vector<std::string> arguments;
    std::vector<std::string> environment;
    std::vector<InheritedTap> taps;
    std::vector<std::uint32_t> groups;
    /// The command line with which the same VMM configures itself and lets the guest run, with nobody to call boot():
    /// what the VM's parent executes to restart it, with the same environment, taps and groups, after the files of
    /// `stale` are gone. Files that it reads are left in the run directory by boot(). Empty: this VMM cannot, and a
    /// restart policy is refused.
    std::vector<std::string> unattended{};
    std::vector<std::filesystem::path> stale{};  ///< what an ended VMM leaves that would keep the next from starting
};

struct VmmTraits {
    bool pause = false;  ///< pause() and resume() work
};

/// Whether this host runs guests with a VMM as they should run: what the server chooses by where it is told to choose.
struct VmmFitness {
    bool fit = true;
    std::string reason;  ///< one clause: what was found on this host
};

enum class GuestState : std::uint8_t {
    NotStarted,  ///< the VMM is up, the guest has not run yet
    Running,
    Paused,
    Ended,  ///< the guest has ended, the VMM is about to
};
[[nodiscard]] MERGEN_SDK_API std::string_view toString(GuestState state) noexcept;

/// Knows one virtual machine monitor. Holds no VM in memory: every call names the place, so that a restarted server
/// drives a VM that its predecessor started.
///
/// Story: check (at create) → plan → (the supervisor launches it) → boot → query, requestStop → (it ends) → cleanUp.
/// Threads: any method from any thread at once, for different VMs.
class MERGEN_SDK_API VmmBackend : public Plugin {
public:
    ~VmmBackend() override;

    [[nodiscard]] virtual VmmTraits traits() const noexcept = 0;

    /// As start() found it. By default, what health() says.
    [[nodiscard]] virtual VmmFitness fitness() const;

    /// What an exit status of the VMM's program means, as a clause ("a system call that its filter forbids"); empty if
    /// there is no more to say than the number.
    [[nodiscard]] virtual std::string exitMeaning(const ExitStatus& exit) const;

    /// Throws InvalidArgument or NotSupported, about the GuestSpec member that is wrong ("vcpus", "memory", ...),
    /// before anything is made. Files that it names need not exist yet; of those that do, their kind is looked at.
    virtual void check(const GuestSpec& guest) const = 0;

    /// The command line; a pure function of its arguments and of what start() found. Throws as check(), and
    /// FailedPrecondition if the VMM's program is missing.
    [[nodiscard]] virtual LaunchPlan plan(const GuestSpec& guest, const VmmPlace& place) const = 0;

    /// After the launch: awaits the control socket, configures, lets the guest run. `alive` tells whether the process
    /// is still there, and boot() ends at once with Unavailable when it is not. Throws Timeout after `timeout`. Does
    /// nothing if the guest runs already.
    virtual void boot(const VmmPlace& place, const GuestSpec& guest, std::chrono::milliseconds timeout,
                      const std::function<bool()>& alive) = 0;

    /// Asks the VMM. Throws Unavailable if nobody listens on the control socket, Timeout if there is no answer.
    [[nodiscard]] virtual GuestState query(const VmmPlace& place, std::chrono::milliseconds timeout) const = 0;

    /// Asks the guest to shut down (Ctrl-Alt-Del) and returns; whether it obeys is seen by its exit. Errors as query().
    virtual void requestStop(const VmmPlace& place, std::chrono::milliseconds timeout) = 0;

    /// Freezes and goes on; does nothing if it is so already. Errors as query(); NotSupported where traits() says so.
    virtual void pause(const VmmPlace& place, std::chrono::milliseconds timeout) = 0;
    virtual void resume(const VmmPlace& place, std::chrono::milliseconds timeout) = 0;

    /// Removes what an ended VMM leaves in its run directory. Does nothing if there is nothing.
    virtual void cleanUp(const VmmPlace& place) = 0;
};

}  // namespace mergen
