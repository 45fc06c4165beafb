#pragma once

#include <map>
#include <mutex>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <mergen/sdk/network.hpp>

namespace mergen::network {

/// A network that exists in the memory of the server only: it keeps account of who has which name, address and port,
/// with the errors that a real one would give, and touches nothing on the host. For trials without root, for tests, and
/// as the example to read before writing a backend.
class StubNetwork : public NetworkBackend {
public:
    /// The manifest's table.
    static const mergen_key keys[];

    void configure(Host& host) override;
    void start() override {}
    void stop() noexcept override {}

    [[nodiscard]] NetworkTraits traits() const noexcept override { return {.touchesHost = false, .udp = true}; }
    void checkNames(const NetworkSpec& spec) const override;
    [[nodiscard]] bool holdPort(Protocol protocol, std::uint16_t port) override;
    void releasePort(Protocol protocol, std::uint16_t port) noexcept override;
    NetworkAttachment attach(const NetworkSpec& spec) override;
    [[nodiscard]] std::optional<NetworkAttachment> inspect(const NetworkSpec& spec) const override;
    void publish(const NetworkSpec& spec) override;
    void unpublish(const NetworkSpec& spec) override;
    void detach(const NetworkSpec& spec) override;
    [[nodiscard]] std::vector<NetworkFinding> list() const override;
    void removeStray(const OwnerTag& owner) override;

private:
    using Port = std::pair<Protocol, std::uint16_t>;
    struct Wire {
        std::string netns;
        std::set<Ipv4Address> guests;  ///< of all network cards
    };

    [[nodiscard]] static Wire wireOf(const NetworkSpec& spec);
    void checkOwner(const OwnerTag& owner) const;
    void checkNamesLocked(const NetworkSpec& spec) const;
    void forgetPorts(const OwnerTag& owner);

    std::string instance_;  // set by configure(), constant from then on

    mutable std::mutex mutex_;
    std::map<OwnerTag, Wire> wires_;  // guarded by mutex_
    std::map<Port, OwnerTag> ports_;  // guarded by mutex_
    std::set<Port> held_;             // guarded by mutex_
};

}  // namespace mergen::network
