#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include <mergen/sdk/types.hpp>

#include "netlink.hpp"

namespace mergen::network {

/// What the kernel remembers of flows (nf_conntrack), asked and changed over ctnetlink. A flow's entry says where its
/// packets are translated to, and goes on saying so when the rule that made it is gone: a TCP connection ends, but a
/// UDP flow lives as long as its sender sends, and both outlive the guest that they lead to.
///
/// The kernel looks for the entries, so that what is copied and what is done here does not grow with their number.
/// It works in the network namespace of the thread that made it. Threads: one at a time.
/// Errors: every method throws Error that names the operation and the kernel's reason.
class Conntrack {
public:
    Conntrack();

    /// Throws NotSupported if this kernel does not let its flows be changed.
    void requireSupport();

    /// Forgets the UDP flows that a published port led to `guest`, save those of a port that still does.
    void forgetUnpublished(Ipv4Address guest, const std::vector<PortBinding>& published);

    /// Forgets the UDP flows to a host port in `published` that do not lead to `guest`: they began when the port was
    /// another guest's or nobody's, and would go on as they are for as long as their sender sends. Flows to addresses
    /// that are not the host's own are left: they only pass through.
    void forgetOlder(Ipv4Address guest, const std::vector<PortBinding>& published);

    /// Forgets every flow from and to `guest`, which is gone: nothing of them may reach who gets its address next.
    void forgetGuest(Ipv4Address guest);

private:
    struct Tuple {
        Ipv4Address source, destination;
        std::uint8_t protocol = 0;
        std::uint16_t sourcePort = 0, destinationPort = 0;
    };
    struct Flow {
        Tuple original, reply;
        std::vector<char> key;  ///< attributes that name it, as the kernel wrote them
    };
    /// What the kernel is to look for; empty parts match all.
    struct Pattern {
        std::optional<Ipv4Address> originalSource, replySource;
        std::optional<std::uint8_t> protocol;
        std::optional<std::uint16_t> originalPort;  ///< destination; only with a protocol
    };

    static Tuple tupleOf(const nlattr* attribute);
    /// Forgets the flows of `pattern` that `which` chooses.
    void forget(const Pattern& pattern, const std::function<bool(const Flow&)>& which);

    NetlinkSocket socket_;
};

}  // namespace mergen::network
