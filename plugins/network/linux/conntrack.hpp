#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include <mergen/sdk/types.hpp>

#include "netlink.hpp"

namespace mergen::network {

/// What the kernel remembers of flows (nf_conntrack), asked and changed over ctnetlink. A flow's entry says where its
/// packets are translated to, and goes on saying so when the rule that made it is gone: a TCP connection ends, but a
/// UDP flow lives as long as its sender sends, and both outlive the guest that they lead to.
///
/// The kernel has no index by address: every question walks its whole table (6 ms of a processor with the usual 262144
/// buckets, however few the flows), so they are asked where flows can have gone astray and nowhere else. It picks the
/// entries itself, so that what is copied does not grow with the traffic of others.
/// It works in the network namespace of the thread that made it. Threads: one at a time.
/// Errors: every method throws Error that names the operation and the kernel's reason.
class Conntrack {
public:
    Conntrack();

    /// Throws NotSupported if this kernel does not let its flows be changed.
    void requireSupport();

    /// Forgets the UDP flows that `published` contradicts: those that a port led to `guest` and no longer does, and
    /// those to a port of `published` that lead elsewhere, because they began when it was another guest's or nobody's
    /// and would go on as they are for as long as their sender sends. Flows to addresses that are not the host's own
    /// are left: they only pass through.
    void settleUdp(Ipv4Address guest, const std::vector<PortBinding>& published);

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
        std::optional<std::uint8_t> protocol;  ///< not together with an original source
    };

    static Tuple tupleOf(const nlattr* attribute);
    /// Forgets the flows of `pattern` that `which` chooses.
    void forget(const Pattern& pattern, const std::function<bool(const Flow&)>& which);

    NetlinkSocket socket_;
};

/// Conntracks that are kept for who asks next: to close such a socket takes the kernel 8 ms. Threads: any.
class KeptConntracks {
public:
    /// Calls `work` with one that nobody else has meanwhile. After a throw it is not kept: an answer may be left in it.
    void use(const std::function<void(Conntrack&)>& work);
    void close() noexcept;

private:
    std::mutex mutex_;
    std::vector<std::unique_ptr<Conntrack>> idle_;  // guarded by mutex_
};

}  // namespace mergen::network
