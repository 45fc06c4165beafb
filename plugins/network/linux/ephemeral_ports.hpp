#pragma once

#include <string>

#include <mergen/sdk/plugin.hpp>

namespace mergen::network {

/// What is to be said where the host ports for guests overlap those that the kernel gives to programs of the calling
/// thread's namespace for outgoing connections (net.ipv4.ip_local_port_range), and what ends it. Empty where they do
/// not, or where the kernel is told to leave them out (net.ipv4.ip_local_reserved_ports).
[[nodiscard]] std::string ephemeralClash(const NetworkPlan& plan);

}  // namespace mergen::network
