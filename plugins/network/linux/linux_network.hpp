#pragma once

#include <chrono>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <mergen/sdk/network.hpp>

#include "conntrack.hpp"
#include "departures.hpp"
#include "egress.hpp"
#include "fresh_namespaces.hpp"
#include "held_ports.hpp"
#include "link_remover.hpp"
#include "named_namespaces.hpp"
#include "netns_topology.hpp"
#include "ruleset.hpp"
#include "tap_topology.hpp"

namespace mergen::network {

/// Guests on the kernel's own network stack: a tap per VM that the host routes to, in one of two shapes (Topology), and
/// one nftables table per server (Ruleset), which does all filtering and translation on the host, out of the reach of
/// what breaks out of a VMM.
///
/// Whatever shape the setting asks for, a wire that is there keeps its own: a server that comes back under another
/// setting leaves running VMs as they are.
class LinuxNetwork final : public NetworkBackend {
public:
    LinuxNetwork();

    /// The manifest's table.
    static const mergen_key keys[];

    void configure(Host& host) override;
    void start() override;
    void stop() noexcept override;
    [[nodiscard]] Health health() const override;

    [[nodiscard]] NetworkTraits traits() const noexcept override;
    void checkNames(const NetworkSpec& spec) const override;
    [[nodiscard]] GuestSettings guestSettings() const override;
    [[nodiscard]] bool holdPort(Protocol protocol, std::uint16_t port) override;
    void releasePort(Protocol protocol, std::uint16_t port) noexcept override;
    NetworkAttachment reserve(const NetworkSpec& spec) override;
    NetworkAttachment attach(const NetworkSpec& spec) override;
    [[nodiscard]] std::optional<NetworkAttachment> inspect(const NetworkSpec& spec) const override;
    void publish(const NetworkSpec& spec) override;
    void unpublish(const NetworkSpec& spec) override;
    void detach(const NetworkSpec& spec) override;
    [[nodiscard]] std::vector<NetworkFinding> list() const override;
    void removeStray(const OwnerTag& owner) override;

private:
    void checkSpec(const NetworkSpec& spec) const;
    /// Throws AlreadyExists if the host has a route to the card's address that is not the VM's own.
    static void refuseForeignRoute(const OwnerTag& owner, const Card& card, const Topology& shape);
    /// Throws InvalidArgument if the guests' network overlaps the transit addresses that the shape uses.
    void refuseOverlap(const Ipv4Network& guests, const Topology& shape) const;
    void checkNames(const NetworkSpec& spec, const Topology& shape) const;
    /// Who may send by which link of the host: the VM's cards, and no more.
    [[nodiscard]] static std::vector<Ruleset::Source> sourcesOf(const NetworkSpec& spec, const Topology& shape);
    /// The shape that the VM's wire has, or is to get.
    [[nodiscard]] const Topology& shapeOf(const NetworkSpec& spec) const;
    /// Makes `ports` the VM's published ports, and brings UDP flows in line with them. A server killed in between
    /// leaves these to the next call for the VM that has UDP ports, or to its detach.
    void setPorts(const NetworkSpec& spec, const std::vector<PortBinding>& ports) const;
    /// Takes away what bears the owner's tag under the names of `spec`; every step is done even if another fails.
    /// The guest's addresses stay taken for a while, and so does the link to its namespace (Departures).
    void takeDown(const NetworkSpec& spec) const;
    /// takeDown() after a failure, whose error is the one to be told.
    void undoAttach(const NetworkSpec& spec) const noexcept;
    /// Takes the VM's published ports away and lets nothing of it in, and has what is left of `links`, its flows and
    /// its filter follow.
    void dismiss(const OwnerTag& owner, std::set<std::string> links) const;
    /// Removes what links of these guests are left, makes the kernel forget their flows, then takes their
    /// VMs out of the table.
    void expel(const std::vector<Departures::Guest>& guests) const;
    /// Waits until nothing is left of the VM, nor of who had one of its addresses before. Throws what keeps it so.
    void awaitDeparture(const NetworkSpec& spec) const;
    [[nodiscard]] Departures& departures() const;
    void turnForwardingOn() const;
    void giveForwardingBack() const;
    /// Chains of other programs that end guests' packets.
    [[nodiscard]] std::vector<std::string> foreignFirewalls() const;
    [[nodiscard]] std::string adviceOnFirewalls() const;
    void warnOfForeignFirewalls() const;
    [[nodiscard]] Ruleset& ruleset() const;

    Host* host_ = nullptr;  // set by configure(); outlives us

    // Set by configure(), constant from then on.
    Ipv4Network transit_;
    EgressPolicy egress_;
    unsigned mtu_ = 0;
    std::filesystem::path state_;  // where start() writes down what it changed on the host
    NamedNamespaces names_{"/run/netns"};
    FreshNamespaces fresh_;  // has its own lock
    std::unique_ptr<NetnsTopology> netns_;
    std::unique_ptr<TapTopology> tap_;
    const Topology* forNew_ = nullptr;  // one of the two, by the setting
    const Topology* other_ = nullptr;   // the other one

    HeldPorts ports_;                // has its own lock
    mutable LinkRemover links_;      // likewise
    mutable SharedConntrack flows_;  // likewise
    // Made by start(), and each has its own lock; departures_ uses the others.
    std::unique_ptr<Ruleset> ruleset_;
    std::unique_ptr<Departures> departures_;
};

}  // namespace mergen::network
