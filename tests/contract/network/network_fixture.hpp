#pragma once

#include <functional>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include <mergen/base/fd.hpp>
#include <mergen/sdk/error.hpp>
#include <mergen/sdk/network.hpp>

#include "test_host.hpp"

namespace mergen::test {

/// The spec of a new VM of `instance` with a random id: address 172.30.0.<number>, names as the engine makes them, no
/// ports.
[[nodiscard]] NetworkSpec networkSpec(const std::string& instance, std::uint32_t number);
/// The same with `count` network cards, the further ones with the addresses 172.30.0.<number + 1> and so on.
[[nodiscard]] NetworkSpec withCards(NetworkSpec spec, std::uint8_t count);

/// What of the network is on this host, line by line: links, addresses, routes, neighbours that are set for good, names
/// and mounts in /run/netns, rules, forwarding. Read with ip(8) and nft(8), so that a backend is not its own witness.
/// Without root the rules are missing.
[[nodiscard]] std::string hostSnapshot();

/// The lines that only one of two snapshots has, with "-" before those of the first and "+" before those of the second;
/// empty if they are equal.
[[nodiscard]] std::string difference(const std::string& before, const std::string& after);

/// hostSnapshot() as soon as it equals `expected`, else the last one before the deadline: the kernel ends network
/// namespaces in the background, and a backend may take traces of a guest away later.
[[nodiscard]] std::string settledSnapshot(const std::string& expected);

/// The network namespaces that this process has open, as "net:[4026531840]".
[[nodiscard]] std::multiset<std::string> openNamespaces();

/// Runs a program of the host by its absolute path and gives its output; fails the test if it fails.
std::string runTool(const std::vector<std::string>& arguments);

/// A socket bound to `port` of the calling thread's namespace on all IPv4 addresses; null if it is taken.
[[nodiscard]] UniqueFd bindPort(Protocol protocol, std::uint16_t port);
/// Whether another program could bind it.
[[nodiscard]] inline bool portIsFree(Protocol protocol, std::uint16_t port) {
    return static_cast<bool>(bindPort(protocol, port));
}

/// The Error that `action` throws; a failure of the test, and nothing, if it throws none.
[[nodiscard]] std::optional<Error> errorOf(const std::function<void()>& action);

}  // namespace mergen::test
