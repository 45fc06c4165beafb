#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>

#include <mergen/base/fd.hpp>
#include <mergen/sdk/types.hpp>

namespace mergen::bench {

/// The wire of one VM as network/linux makes it (topology netns), by the system calls that it takes and no others:
/// namespace and its name, tap, veth pair, addresses, routes, two elements of a table that is there.
struct RawWire {
    unsigned number = 0;  ///< 1 to 60000: names, address 10.128.0.0 + number, link indexes
    std::uint32_t tapOwner = 0;
    MacAddress mac = MacAddress::parse("02:fc:00:00:00:01");  ///< the guest's

    [[nodiscard]] std::string netns() const { return "bare-" + std::to_string(number); }
    [[nodiscard]] std::filesystem::path handle() const { return "/run/netns/" + netns(); }
    [[nodiscard]] std::string hostLink() const { return "bg-" + std::to_string(number); }
    [[nodiscard]] Ipv4Address guest() const { return Ipv4Address(0x0a800000U + number); }
    static constexpr const char* tap = "tap0";
    static constexpr const char* table = "bare";  ///< inet; sets "links" (ifname) and "sources" (ifname . ipv4_addr)
    static constexpr std::uint32_t gateway = 0x0a80fffeU;  ///< 10.128.255.254, of the guests' /16
};

/// Makes wires, over sockets that are kept.
class RawWires {
public:
    RawWires();
    void make(const RawWire& wire);
    void remove(const RawWire& wire);

private:
    void element(const RawWire& wire, bool there);

    UniqueFd route_, filter_;
};

/// Runs `work` in the namespace of that handle, on a thread that ends with it.
void within(const std::filesystem::path& handle, const std::function<void()>& work);

}  // namespace mergen::bench
