#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include <mergen/sdk/types.hpp>

#include "batcher.hpp"
#include "netlink.hpp"

namespace mergen::network {

/// What the kernel remembers of flows (nf_conntrack), asked and changed over ctnetlink. A flow's entry says where its
/// packets are translated to, and goes on saying so when the rule that made it is gone: a TCP connection ends, but a
/// UDP flow lives as long as its sender sends, and both outlive the guest that they lead to.
///
/// The kernel has no index by address: every question walks its whole table (6 ms of a processor with the usual 262144
/// buckets, however few the flows), so they are asked where flows can have gone astray and nowhere else. Where flows
/// are few, one walk serves all guests that are asked for; where they are many, the kernel picks the entries itself, in
/// two walks per guest, so that what is copied does not grow with the traffic of others. It works in the network
/// namespace of the thread that made it. Threads: one at a time. Errors: every method throws Error that names the
/// operation and the kernel's reason.
class Conntrack {
public:
    Conntrack();

    /// Throws NotSupported if this kernel does not let its flows be changed.
    void requireSupport();

    /// What has become of a guest.
    struct Change {
        Ipv4Address guest;
        /// Its ports from now on; nothing if the guest is gone.
        std::optional<std::vector<PortBinding>> published;
    };

    /// Forgets the flows that the changes contradict. Of a guest that is gone: every flow from and to it, as nothing of
    /// them may reach who gets its address next. Of one that is there the UDP flows that a port led to it and no longer
    /// does, and those to a published port that lead elsewhere, because they began when it was another guest's or
    /// nobody's and would go on as they are for as long as their sender sends; flows to addresses that are not the
    /// host's own are left: they only pass through.
    void settle(const std::vector<Change>& changes);

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

/// One Conntrack for all: what is asked of it at once takes one walk. It is kept open, as to close such a socket takes
/// the kernel 8 ms. Works in the network namespace of the calling threads, which must be one. Threads: any.
class SharedConntrack {
public:
    SharedConntrack();
    /// As Conntrack's; before anybody else asks.
    void requireSupport();
    using Changes = std::vector<Conntrack::Change>;
    /// As Conntrack's. Returns when it is done.
    void settle(Changes changes) { changes_.ask(std::move(changes)); }
    /// Nobody may be asking.
    void close() noexcept { kept_.reset(); }

private:
    void work(const std::vector<Changes>& asked);

    std::unique_ptr<Conntrack> kept_;  // whose turn it is in changes_
    Batcher<Changes> changes_;
};

}  // namespace mergen::network
