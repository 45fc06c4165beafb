#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include <mergen/sdk/plugin.hpp>
#include <mergen/sdk/types.hpp>

namespace mergen {

/// A network card of a VM beside its first one, on the same wire: an address of its own, no published ports.
struct FurtherNic {
    IfName tap;         ///< "tap1-<8 digits>"
    MacAddress mac;     ///< the guest's
    Ipv4Address guest;  ///< within NetworkSpec::network
};

/// The wire of one VM. Recorded when the VM is created; a backend derives no name of its own from anything else than
/// `owner.vm`.
struct NetworkSpec {
    OwnerTag owner;
    std::string netns;    ///< "mergen-<8 digits>"
    IfName tap;           ///< "tap-<8 digits>"
    MacAddress mac;       ///< the guest's
    Ipv4Address guest;    ///< the guest's address
    Ipv4Address gateway;  ///< the guest's next hop, within `network`
    Ipv4Network network;
    std::uint32_t tapOwner = 0;         ///< uid that may use the tap
    std::vector<PortBinding> ports;     ///< sorted, host ports not 0
    std::vector<FurtherNic> further{};  ///< eth1 and so on
};

/// Where the VMM finds the wire.
struct NetworkAttachment {
    std::optional<std::filesystem::path> netns;  ///< the namespace to run in; none: the server's own
    bool tap = false;                            ///< the tap exists (a stub makes none)
};

/// Something of this instance that was found on the host.
struct NetworkFinding {
    OwnerTag owner;
    std::vector<std::string> objects;  ///< for the log: "link veth-7f3a9c01", "element tcp 20001"
};

struct NetworkTraits {
    bool touchesHost = false;  ///< false: addresses and ports are only numbers (stub)
    bool udp = false;          ///< publishes UDP ports too
};

/// What a guest must be told of its wire, beside its addresses; constant from configure() on.
struct GuestSettings {
    unsigned mtu = 0;                ///< bytes; 0: Ethernet's 1500, which every guest takes by itself
    std::vector<Ipv4Address> dns{};  ///< name servers, at most two
};

/// Brings packets to a guest and back.
///
/// Story: checkNames, holdPort (at create) → reserve → attach → publish → (VM runs) → unpublish → detach → … →
/// releasePort (at delete). The guest's filter is in place before its link goes up. Every object bears the owner's tag.
/// Each step is idempotent: attach and publish complete what is half there, unpublish and detach succeed when pieces
/// are missing, twice, in any order.
///
/// After the last guest is detached nothing of this instance is on the host but what start() made; after stop() with no
/// guest attached, nothing at all.
///
/// Threads: any method from any thread at once, for different VMs.
class MERGEN_SDK_API NetworkBackend : public Plugin {
public:
    ~NetworkBackend() override;

    [[nodiscard]] virtual NetworkTraits traits() const noexcept = 0;

    /// Throws AlreadyExists, naming it, if an object of one of the spec's names, or a route to its address, is on the
    /// host and bears no tag of this owner. Changes nothing.
    virtual void checkNames(const NetworkSpec& spec) const = 0;

    /// For the guests that are started from now on.
    [[nodiscard]] virtual GuestSettings guestSettings() const { return {}; }

    /// Takes `port` of the host's for a VM, published or not, so that no other program gets it until releasePort() or
    /// stop(): where traits().touchesHost, by a socket bound on all IPv4 and IPv6 addresses of the server's network
    /// namespace, which no VMM inherits. True also if it is held already; false if another program has it. Throws
    /// ResourceExhausted if the process may open no more files.
    [[nodiscard]] virtual bool holdPort(Protocol protocol, std::uint16_t port) = 0;

    /// Gives the port back; does nothing if it is not held.
    virtual void releasePort(Protocol protocol, std::uint16_t port) noexcept = 0;

    /// The part of attach() that a process must have to be started on the wire, and quick: where it will find the wire.
    /// By default, and where nothing can be had before the whole, all of attach(). Errors as attach().
    virtual NetworkAttachment reserve(const NetworkSpec& spec) { return attach(spec); }

    /// Makes the wire, without published ports. Throws AlreadyExists for a foreign object in the way, which is left as
    /// it was. On any throw nothing of this VM is left on the host.
    virtual NetworkAttachment attach(const NetworkSpec& spec) = 0;

    /// The attachment if the whole wire of `spec` is there, else nothing. Changes nothing.
    [[nodiscard]] virtual std::optional<NetworkAttachment> inspect(const NetworkSpec& spec) const = 0;

    /// Makes the VM's published ports exactly `spec.ports`, in one transaction: all or none. Throws AlreadyExists if a
    /// port leads to another VM, NotSupported for a protocol that the backend lacks. A TCP connection that is open goes
    /// on to where it led; a UDP flow, which has no end, follows the ports at once.
    virtual void publish(const NetworkSpec& spec) = 0;

    /// Takes all published ports of this VM away, as publish() with none.
    virtual void unpublish(const NetworkSpec& spec) = 0;

    /// Takes the wire away, published ports and open connections included: who gets the address next gets nothing of
    /// them. Only objects that bear this owner's tag. Returns when the VM's ports are free and nothing that comes by
    /// the wire is let in any more. What is left then may go a moment later: checkNames() and attach() of the VM or of
    /// its addresses wait for that, and so do list(), removeStray() and stop(); what is left by a kill before that,
    /// list() finds.
    virtual void detach(const NetworkSpec& spec) = 0;

    /// Everything on the host that bears a tag of this instance, by VM, incomplete wires included.
    [[nodiscard]] virtual std::vector<NetworkFinding> list() const = 0;

    /// Takes away what bears this tag, for a VM whose record is gone: as detach(), found by looking.
    virtual void removeStray(const OwnerTag& owner) = 0;
};

}  // namespace mergen
