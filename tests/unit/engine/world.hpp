#pragma once

#include <chrono>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include <mergen/engine/engine.hpp>

/// A host in memory under the engine: backends that keep to the SDK's contracts, can be told to fail, and outlive an
/// engine as a real host outlives a server. Disks are real files below a temporary folder.
namespace mergen::engine::test {

/// Thrown to play `kill -9`: no handler of the engine knows it, so nothing is undone and nothing is written.
struct Crash {};

/// A function that may be replaced while threads of the engine call it: when the assignment returns, no call of the old
/// one is in progress.
class Hook {
public:
    using Function = std::function<void(const std::string& effect, const std::string& moment)>;
    explicit Hook(std::recursive_mutex& mutex) : mutex_(mutex) {}
    Hook& operator=(Function function) {
        const std::lock_guard lock(mutex_);
        function_ = std::move(function);
        return *this;
    }
    void operator()(const std::string& effect, const std::string& moment) const {
        const std::lock_guard lock(mutex_);
        if (function_) function_(effect, moment);
    }

private:
    std::recursive_mutex& mutex_;
    Function function_;  // guarded by mutex_
};

class World {
public:
    World();
    ~World();
    World(const World&) = delete;
    World& operator=(const World&) = delete;

    /// A new server on this host, ready for requests: its recovery is over.
    [[nodiscard]] std::unique_ptr<Engine> boot();

    /// A request whose rootfs and kernel exist.
    [[nodiscard]] CreateRequest request() const;

    /// Creates what `request` asks for (by default request()) under the id "web", and starts it.
    VmView runWeb(Engine& engine, std::optional<CreateRequest> request = {}) const;

    EngineConfig config;
    Log* log = &nullLog();  ///< of engines that boot from now on
    std::filesystem::path root, images;

    // What is on the host.
    std::map<std::string, StoredRecord> records;
    std::map<Uuid, ProcessStatus> processes;
    std::map<Uuid, GuestState> guests;
    std::set<Uuid> jails;  ///< what prepare() made
    std::map<Uuid, NetworkSpec> wires;
    std::set<OwnerTag> traces;  ///< of wires that are gone: list() finds them, inspect() does not
    std::map<Uuid, std::vector<PortBinding>> published;
    std::map<Uuid, RestartPlan> plans;
    std::map<Uuid, std::vector<PastRun>> pastRuns;
    std::set<Uuid> restartable;                              // restarts are permitted
    std::set<std::uint16_t> busyPorts;                       // bound by other programs
    std::set<std::pair<Protocol, std::uint16_t>> heldPorts;  // bound by the server
    GuestSettings guestSettings;                             // of the network backend
    std::set<Ipv4Address> foreignAddresses;                  // routed elsewhere by somebody
    bool udp = true;                                         // the network backend publishes UDP
    bool guestObeys = true;                                  // shuts down when asked
    bool diesOnTerm = true;
    bool diesOnKill = true;      // else it waits in the kernel for its storage, until end()
    bool durable = true;         // the storage
    bool pauses = true;          // the VMM can
    bool inheritsTap = false;    // the VMM, as an open descriptor
    bool unattended = true;      // the VMM can be started again without the server
    std::string bootError;       // boot() fails with this
    std::string hostLacks;       // the VMM refuses to start any guest with this, about "hugePages"
    std::string exitMeaning;     // what both VMMs say of any exit status
    int noRoom = 0;              // errno with which a kernel cannot be imported
    bool keepsForSpeed = false;  // the VMM "spare", what is in the way of kernels
    Health spareHealth;          // of the second VMM, "spare"

    /// Called with the name of each effect before and after it happens ("network.attach", "after"): throws to make it
    /// fail. Every call of the engine into a backend that changes something goes through here.
    Hook onEffect{mutex_};
    /// How long the engine was ready to wait for what, in the order in which it waited: "query", "resume",
    /// "requestStop", "exit". Clear it before the operation that is to be looked at.
    [[nodiscard]] std::vector<std::pair<std::string, std::chrono::milliseconds>> waits() const;
    void clearWaits();

    /// Called with the name of each effect before it, under no lock of this host's: may keep it waiting.
    std::function<void(const std::string& effect)> onBegin;
    /// Called by every question to a VMM, under no lock of this host's: may keep it waiting.
    std::function<void(const Uuid& vm)> onQuery;
    /// A run of the VMM of this VM ends, with what its parent found of a panic; by its policy it waits then for
    /// startAgain().
    void end(const Uuid& vm, ExitStatus exit, std::optional<SentSignal> sent = {}, const std::string& panic = {});
    void startAgain(const Uuid& vm);

    /// Compares records, host and files: a text for each contradiction, empty if all is well. Everything on the host
    /// must belong to a record whose state says so, and the other way round.
    [[nodiscard]] std::string contradictions(const Engine& engine) const;

private:
    friend class FakeStorage;
    friend class FakeSupervisor;
    friend class FakeNetwork;
    friend class FakeVmm;
    void effect(const std::string& name, const std::function<void()>& action);

    void noteWait(const std::string& what, std::chrono::milliseconds limit) const;

    mutable std::recursive_mutex mutex_;
    mutable std::vector<std::pair<std::string, std::chrono::milliseconds>> waits_;  // guarded by mutex_
    std::uint64_t revision_ = 0;
    ExitListener* listener_ = nullptr;
    std::unique_ptr<StorageBackend> storage_;
    std::unique_ptr<SupervisorBackend> supervisor_;
    std::unique_ptr<NetworkBackend> network_;
    std::unique_ptr<VmmBackend> vmm_, spareVmm_;
};

/// All that is in a file; nothing if it is not there.
[[nodiscard]] std::string contentOf(const std::filesystem::path& path);

/// Waits until `condition` holds; false after a generous deadline. For what another thread does.
[[nodiscard]] bool eventually(const std::function<bool()>& condition);

/// Calls again while the end of a VMM, which the engine settles on its own thread, holds the VM.
void whenFree(const std::function<void()>& call);

}  // namespace mergen::engine::test
