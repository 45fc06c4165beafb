#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <mergen/sdk/network.hpp>

#include "named_namespaces.hpp"
#include "ruleset.hpp"

namespace mergen::network {

class Rtnetlink;
struct Link;

/// Guests on the kernel's own network stack: one network namespace per VM with the VM's tap in it, a veth pair from
/// there to the host, and one nftables table per server.
///
///     guest ── tap-<id8> [ namespace mergen-<id8> ] uplink ══ mg-<id8> [ host: routes, table inet mergen_<instance> ]
///
/// The namespace routes between tap and uplink; all filtering and translation is the host's, out of the reach of what
/// breaks out of a VMM. Every veth pair uses the same two transit addresses with fixed neighbours: each is a wire of
/// its own, and nothing is asked for by ARP, so that neither rp_filter nor the number of VMs matters.
///
/// A wire is made in a namespace without a name, which ends with the process, and named last: a server killed on the
/// way leaves at most elements of the table and a file, each with the owner's tag.
class LinuxNetwork final : public NetworkBackend {
public:
    /// The manifest's table.
    static const mergen_key keys[];

    void configure(Host& host) override;
    void start() override;
    void stop() noexcept override;
    [[nodiscard]] Health health() const override;

    [[nodiscard]] NetworkTraits traits() const noexcept override;
    void checkNames(const NetworkSpec& spec) const override;
    [[nodiscard]] bool portFree(Protocol protocol, std::uint16_t port) const override;
    NetworkAttachment attach(const NetworkSpec& spec) override;
    [[nodiscard]] std::optional<NetworkAttachment> inspect(const NetworkSpec& spec) const override;
    void publish(const NetworkSpec& spec) override;
    void unpublish(const NetworkSpec& spec) override;
    void detach(const NetworkSpec& spec) override;
    [[nodiscard]] std::vector<NetworkFinding> list() const override;
    void removeStray(const OwnerTag& owner) override;

private:
    void checkSpec(const NetworkSpec& spec) const;
    void wireInside(const NetworkSpec& spec, const NetNamespace& space, Rtnetlink& host) const;
    void wireOutside(const NetworkSpec& spec, Rtnetlink& host) const;
    [[nodiscard]] bool wholeInside(const NetworkSpec& spec, const NetNamespace& space) const;
    /// Takes away what bears the owner's tag under the names of `spec`; every step is done even if another fails.
    void takeDown(const NetworkSpec& spec) const;
    void turnForwardingOn() const;
    void giveForwardingBack() const;
    [[nodiscard]] Ruleset& ruleset() const;

    Host* host_ = nullptr;  // set by configure(); outlives us

    // Set by configure(), constant from then on.
    Ipv4Address transitHost_;   // of the host's end of every veth pair
    Ipv4Address transitInner_;  // of the namespace's end
    Ipv4Network transit_;
    std::vector<Ipv4Network> denied_;
    std::filesystem::path state_;  // where start() writes down what it changed on the host

    NamedNamespaces names_{"/run/netns"};
    std::unique_ptr<Ruleset> ruleset_;  // made by start(); has its own lock
};

}  // namespace mergen::network
