#include "ephemeral_ports.hpp"

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include <mergen/base/text.hpp>

#include "sysctl.hpp"

namespace mergen::network {

namespace {

/// Whether `port` to `end` are all in a list as of net.ipv4.ip_local_reserved_ports: "8080,20000-30000".
bool allReserved(std::string_view list, std::uint16_t port, std::uint16_t end) {
    std::uint32_t next = port;
    for (const std::string& range : split(list, ',')) {  // the kernel writes them in ascending order
        const std::size_t dash = range.find('-');
        const unsigned long first = std::strtoul(range.c_str(), nullptr, 10);
        const unsigned long last = dash == std::string::npos ? first : std::strtoul(&range[dash + 1], nullptr, 10);
        if (first <= next && next <= last) next = static_cast<std::uint32_t>(last + 1);
    }
    return next > end;
}

}  // namespace

std::string ephemeralClash(const NetworkPlan& plan) {
    const auto text = readSysctl("ipv4/ip_local_port_range");  // "32768\t60999"
    if (!text) return {};
    char* rest = nullptr;
    const unsigned long first = std::strtoul(text->c_str(), &rest, 10);
    const unsigned long last = std::strtoul(rest, nullptr, 10);
    const auto from = static_cast<std::uint16_t>(std::max<unsigned long>(first, plan.portStart));
    const auto to = static_cast<std::uint16_t>(std::min<unsigned long>(last, plan.portEnd));
    if (from > to || allReserved(readSysctl("ipv4/ip_local_reserved_ports").value_or(""), from, to)) return {};
    const std::string own = std::to_string(plan.portStart) + "-" + std::to_string(plan.portEnd);
    const std::string both = std::to_string(from) + "-" + std::to_string(to);
    return "the ports for guests, " + own + ", overlap net.ipv4.ip_local_port_range, " + std::to_string(first) + "-" +
           std::to_string(last) + ", from which programs of this host get ports for outgoing connections: in " + both +
           " a port that a VM asks for may be taken at times; set net.ipv4.ip_local_reserved_ports = " + both;
}

}  // namespace mergen::network
