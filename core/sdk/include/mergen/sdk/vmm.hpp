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

/// How fast something may go: a bucket of `size` tokens, bytes or operations, that fills again within `refillTime`, and
/// `oneTimeBurst` tokens more that are given once. As Firecracker's TokenBucket.
struct TokenBucket {
    std::uint64_t size = 0;  ///< 0: no limit
    std::uint64_t oneTimeBurst = 0;
    std::chrono::milliseconds refillTime{};
    auto operator<=>(const TokenBucket&) const = default;
};

/// As Firecracker's RateLimiter; what is absent is not limited.
struct RateLimiter {
    std::optional<TokenBucket> bandwidth{};  ///< in bytes
    std::optional<TokenBucket> operations{};
    bool operator==(const RateLimiter&) const = default;
};

/// What a guest's flush does: reaches the medium, or nothing.
enum class DiskCache : std::uint8_t { Writeback, Unsafe };
/// How the VMM reads and writes a disk's file: by blocking calls, or by io_uring.
enum class IoEngine : std::uint8_t { Sync, Async };

struct DiskSpec {
    std::string id;              ///< [A-Za-z0-9_]+; "rootfs" is the root disk
    std::filesystem::path file;  ///< raw image, readable (and writable) for the VM's uid
    bool readOnly = false;
    bool root = false;  ///< exactly one disk of a guest
    DiskCache cache = DiskCache::Writeback;
    IoEngine engine = IoEngine::Sync;
    RateLimiter limit{};
    bool reread = false;  ///< adjust() has the VMM open the file again and the guest told how large it is now
};

struct NicSpec {
    std::string id;  ///< "eth0"
    IfName tap;
    MacAddress mac;
    unsigned mtu = 0;                   ///< bytes; 0: the VMM's and the guest's own default
    RateLimiter receive{}, transmit{};  ///< as the guest sees it
};

/// A virtio-vsock device. Its host side is a unix socket, VmmBackend::vsockPath().
struct VsockSpec {
    std::uint32_t cid = 3;  ///< the guest's context id, 3 or more; need not differ between VMs
    bool operator==(const VsockSpec&) const = default;
};

/// A virtio-balloon device.
struct BalloonSpec {
    MiB amount{};                          ///< taken from the guest
    bool deflateOnOom = false;             ///< the guest takes memory back before it kills processes
    std::chrono::seconds statsInterval{};  ///< 0: no statistics
    bool operator==(const BalloonSpec&) const = default;
};

/// A virtio-rng device.
struct EntropySpec {
    RateLimiter limit{};
    bool operator==(const EntropySpec&) const = default;
};

/// A metadata service inside the VMM, which the guest asks over its first network card at `address`, with session
/// tokens (Firecracker's MMDS, version 2).
struct MmdsSpec {
    Ipv4Address address = Ipv4Address(0xa9fea9fe);  ///< 169.254.169.254
    bool imdsCompatible = false;                    ///< answers are plain text, as EC2's are
    std::string content = "{}";                     ///< text of a JSON object
    bool operator==(const MmdsSpec&) const = default;
};

/// What backs the guest's memory.
enum class HugePages : std::uint8_t { None, TwoMiB };

/// The virtual machine.
struct GuestSpec {
    unsigned vcpus = 1;
    MiB memory{128};
    bool smt = false;  ///< processors are shown as pairs of hyperthreads
    HugePages hugePages = HugePages::None;
    std::string cpuTemplate{};  ///< name of a static template of Firecracker's ("T2", ...); empty: the host's processor
    std::filesystem::path kernel;
    std::optional<std::filesystem::path> initrd{};
    std::string bootArguments;  ///< without root=: the VMM knows what the root disk is called
    std::vector<DiskSpec> disks;
    std::vector<NicSpec> nics;  ///< empty where the network backend makes no tap
    std::optional<VsockSpec> vsock{};
    std::optional<BalloonSpec> balloon{};
    std::optional<EntropySpec> entropy{};
    std::optional<MmdsSpec> mmds{};
    bool metrics = false;  ///< the VMM counts what it does; see VmmBackend::metrics()
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
    /// The program is started as the server's user and takes the VM's credentials by itself, as a jailer does.
    bool dropsPrivileges = false;
    /// The program gets a process-id namespace of its own; see ProcessSpec::pidNamespace.
    bool pidNamespace = false;
};

struct VmmTraits {
    bool pause = false;   ///< pause() and resume() work
    bool adjust = false;  ///< adjust() works
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
/// Story: check, importKernel (at create) → checkStart → prepare → plan → (the supervisor launches it) → boot → query,
/// adjust, requestStop → (it ends) → cleanUp. Threads: any method from any thread at once, for different VMs.
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

    /// Throws FailedPrecondition, or as check(), about the GuestSpec member that this host cannot give at this moment,
    /// with what an operator can do: what check() takes may come to be there later. Looks and holds nothing, so that
    /// another guest can still be first. Asked before a start makes anything, and before a VM is made that is to be
    /// started at once. By default all is there.
    virtual void checkStart(const GuestSpec& guest) const;

    /// Turns `kernel`, the VM's own copy of the kernel that it was given, into one that this VMM can load, in place; by
    /// default it is left as it is. Throws InvalidArgument about "kernel", naming what is wrong with it.
    virtual void importKernel(const std::filesystem::path& kernel) const;

    /// Gives up what it keeps on the data root's file system for speed alone; whether that was anything. Asked where
    /// the files of a VM that is made find no room, which are then made once more, whichever VMM the VM has. By default
    /// there is nothing. If it throws, it has given up nothing.
    virtual bool giveUpRoom();

    /// Makes on the host what the VMM needs beside its run directory, before the launch: by default nothing. What is
    /// there from an earlier run is made anew. cleanUp() takes it away, also after a throw.
    virtual void prepare(const GuestSpec& guest, const VmmPlace& place);

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

    /// Brings a guest that runs or is paused to `guest`, as far as that can be done while it runs: files and limits of
    /// disks, limits of network cards, amount and statistics of a balloon, content of its metadata service. Compares
    /// with what the VMM says it has, changes only what differs, and can be repeated. Throws NotSupported where
    /// traits() says so, FailedPrecondition with the VMM's words if it refuses. Errors as query().
    virtual void adjust(const VmmPlace& place, const GuestSpec& guest, std::chrono::milliseconds timeout);

    /// Counters of the VMM since its last call, text of a JSON object. Throws NotSupported if it has none. Errors as
    /// query().
    [[nodiscard]] virtual std::string metrics(const VmmPlace& place, std::chrono::milliseconds timeout);

    /// Where the host reaches the guest's vsock: a unix socket, as the host sees it. Empty: this VMM has none.
    [[nodiscard]] virtual std::filesystem::path vsockPath(const VmmPlace& place) const;

    /// Removes what an ended VMM leaves, in its run directory and of prepare(). Does nothing if there is nothing.
    virtual void cleanUp(const VmmPlace& place) = 0;

    /// VMs of which something of prepare() is on the host.
    [[nodiscard]] virtual std::vector<Uuid> list() const;

    /// Takes that away, for a VM whose record is gone.
    virtual void removeStray(const Uuid& vm);
};

}  // namespace mergen
