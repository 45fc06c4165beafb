#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <utility>

#include <mergen/base/fd.hpp>
#include <mergen/sdk/types.hpp>

namespace mergen::network {

/// Ports of the host that are kept from other programs. Each is one socket, bound on all addresses, IPv4 and IPv6, that
/// nothing is ever read from. It is not in the way of a published port, whose packets are translated before a socket is
/// looked for, and costs one descriptor.
///
/// What a client meets while nothing is published there: TCP is refused, as by a port that nobody has, for the socket
/// does not listen. UDP is silence, where a port that nobody has would give an ICMP error: a datagram belongs to a
/// bound socket, which drops it before it takes memory. The sockets are of the network namespace of the thread that
/// calls hold(). Threads: any, for different ports.
class HeldPorts {
public:
    /// False if another program has the port on any address; true also if it is held already. Throws ResourceExhausted
    /// if the process may open no more files.
    [[nodiscard]] bool hold(Protocol protocol, std::uint16_t port);
    void release(Protocol protocol, std::uint16_t port) noexcept;
    void releaseAll() noexcept;

private:
    std::mutex mutex_;
    std::map<std::pair<Protocol, std::uint16_t>, UniqueFd> sockets_;  // guarded by mutex_
};

}  // namespace mergen::network
