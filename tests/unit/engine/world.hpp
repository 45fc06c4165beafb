#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include <mergen/engine/engine.hpp>

/// A host in memory under the engine: backends that keep to the SDK's contracts, can be told to fail, and outlive an
/// engine as a real host outlives a server. Disks are real files below a temporary folder.
namespace mergen::engine::test {

/// Thrown to play `kill -9`: no handler of the engine knows it, so nothing is undone and nothing is written.
struct Crash {};

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

    EngineConfig config;
    std::filesystem::path root, images;

    // What is on the host.
    std::map<std::string, StoredRecord> records;
    std::map<Uuid, ProcessStatus> processes;
    std::map<Uuid, GuestState> guests;
    std::map<Uuid, NetworkSpec> wires;
    std::map<Uuid, std::vector<PortBinding>> published;
    std::set<std::uint16_t> busyPorts;       // bound by other programs
    std::set<Ipv4Address> foreignAddresses;  // routed elsewhere by somebody
    bool udp = true;                         // the network backend publishes UDP
    bool guestObeys = true;                  // shuts down when asked
    bool diesOnTerm = true;
    std::string bootError;  // boot() fails with this

    /// Called with the name of each effect before and after it happens ("network.attach", "after"): throws to make it
    /// fail. Every call of the engine into a backend that changes something goes through here.
    std::function<void(const std::string& effect, const std::string& moment)> onEffect;
    /// The VMM of this VM ends by itself.
    void end(const Uuid& vm, ExitStatus exit);

    /// Compares records, host and files: a text for each contradiction, empty if all is well. Everything on the host
    /// must belong to a record whose state says so, and the other way round.
    [[nodiscard]] std::string contradictions(const Engine& engine) const;

private:
    friend class FakeStorage;
    friend class FakeSupervisor;
    friend class FakeNetwork;
    friend class FakeVmm;
    void effect(const std::string& name, const std::function<void()>& action);

    mutable std::recursive_mutex mutex_;
    std::uint64_t revision_ = 0;
    ExitListener* listener_ = nullptr;
    std::unique_ptr<StorageBackend> storage_;
    std::unique_ptr<SupervisorBackend> supervisor_;
    std::unique_ptr<NetworkBackend> network_;
    std::unique_ptr<VmmBackend> vmm_;
};

/// All that is in a file; nothing if it is not there.
[[nodiscard]] std::string contentOf(const std::filesystem::path& path);

/// Waits until `condition` holds; false after a generous deadline. For what another thread does.
[[nodiscard]] bool eventually(const std::function<bool()>& condition);

/// Calls again while the end of a VMM, which the engine settles on its own thread, holds the VM.
void whenFree(const std::function<void()>& call);

}  // namespace mergen::engine::test
