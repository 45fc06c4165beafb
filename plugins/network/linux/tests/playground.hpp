#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <mergen/base/fd.hpp>
#include <mergen/sdk/network.hpp>

#include "net_namespace.hpp"

/// Real packets without a VMM: namespaces that play guests and other hosts, and small servers and clients in them.
namespace mergen::network::test {

/// Runs `ip ARGUMENTS...` in `space`, or in the host's namespace if it is null; a failure fails the test.
void ip(const NetNamespace* space, std::vector<std::string> arguments);
/// Writes a key below /proc/sys/net in `space`, or in the host's namespace if it is null.
void sysctl(const NetNamespace* space, const std::string& key, const std::string& value);
/// The named namespace of a VM.
[[nodiscard]] NetNamespace namespaceOf(const NetworkSpec& spec);

/// Another machine on a wire to this host: `here` is the host's address on it, `there` the machine's, both of a /24.
/// Its default route leads to the host.
class Neighbour {
public:
    Neighbour(const std::string& name, const std::string& here, const std::string& there);
    ~Neighbour();
    Neighbour(const Neighbour&) = delete;
    Neighbour& operator=(const Neighbour&) = delete;
    [[nodiscard]] const NetNamespace& space() const noexcept { return space_; }

private:
    std::string link_;
    NetNamespace space_;
};

/// Plays the guest of a VM: a namespace whose kernel speaks through the VM's tap as a virtual machine's would. Frames
/// are carried between that tap, opened where and as a VMM opens it, and one in the guest's namespace, "eth0". A
/// further card is "eth1" and so on, and packets from its address leave by it.
class Guest {
public:
    Guest(const NetworkSpec& spec, const NetworkAttachment& wire);
    [[nodiscard]] const NetNamespace& space() const noexcept { return space_; }

private:
    NetNamespace space_;
    void addCard(const std::string& name, const IfName& tap, const MacAddress& mac, const NetworkAttachment& wire,
                 const NetworkSpec& spec);
    void useCard(const std::string& name, Ipv4Address address, Ipv4Address gateway, int table);

    std::vector<UniqueFd> ends_;  ///< of every card the VM's tap and then the guest's
    std::jthread pump_;           // last: ends first
};

/// A server in a namespace (`space` null: the host) on TCP and UDP alike. It greets every TCP client with "NAME
/// PEER\n", the address that the client seems to have, then echoes; it answers every datagram with that line.
class Server {
public:
    Server(const NetNamespace* space, const std::string& name, const std::string& address, std::uint16_t port);
    /// Datagrams that came.
    [[nodiscard]] unsigned heard() const noexcept { return heard_; }

private:
    UniqueFd listener_, datagrams_;
    std::atomic<unsigned> heard_{0};
    std::jthread loop_;
};

/// An open connection.
class Connection {
public:
    explicit Connection(UniqueFd fd) : fd_(std::move(fd)) {}
    /// What comes until the end of a line; empty if nothing comes in time or the connection ended.
    std::string readLine();
    /// Sends a line and gives what comes back.
    std::string echo(const std::string& line);

private:
    UniqueFd fd_;
};

/// A UDP socket of one client, which keeps its own address and port for good.
class UdpClient {
public:
    /// From `space` (null: the host) to an IPv4 or IPv6 address. `source`: the address to send from, empty for any.
    UdpClient(const NetNamespace* space, const std::string& address, std::uint16_t port,
              const std::string& source = {});
    /// Sends until something can be said, and says it as probe() does.
    [[nodiscard]] std::string ask();

private:
    UniqueFd fd_;
    std::uint16_t port_;
    std::string failed_;
};

/// Tries to reach a server from `space` (null: the host) and says what became of it: the server's greeting; "refused";
/// "unreachable"; "dropped: COMMENT" with the comment of the rule that counted a packet since; "swallowed" by a UDP
/// socket of the host that throws it away; or "silence" if nothing of these came in time. `address`: IPv4 or IPv6.
/// `source`: the address to come from, empty for any.
[[nodiscard]] std::string probe(const NetNamespace* space, const std::string& address, std::uint16_t port,
                                const std::string& source = {}, Protocol protocol = Protocol::Tcp);

/// Sends one packet by `send` in `space` and gives "dropped: COMMENT" as probe() does, "dropped: reverse path" if the
/// namespace `wire` took it for one of a foreign source, or "silence".
[[nodiscard]] std::string fateOf(const NetNamespace& space, const std::function<void()>& send,
                                 const NetNamespace* wire = nullptr);

/// An open tap of the calling thread's namespace, as a VMM opens it.
[[nodiscard]] UniqueFd openTap(const std::string& name);

/// How often the kernel of a namespace answered a TCP segment of no connection of its own.
[[nodiscard]] std::uint64_t resetsSentBy(const NetNamespace& space);

/// Sends a UDP datagram from `source` from the calling thread's namespace.
void sendDatagram(const std::string& address, std::uint16_t port, const std::string& source);
/// Sends a TCP reset that belongs to no connection from the calling thread's namespace.
void sendReset(const std::string& address);
/// Sends an IPv6 packet (no next header) by `link` of the calling thread's namespace to the Ethernet address `to`.
void sendIpv6(const std::string& link, const MacAddress& to);

/// A connection that must come about, after its greeting; null after failing the test if it does not.
[[nodiscard]] std::unique_ptr<Connection> connected(const NetNamespace* space, const std::string& address,
                                                    std::uint16_t port);

}  // namespace mergen::network::test
