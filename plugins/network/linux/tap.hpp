#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include <mergen/sdk/types.hpp>

namespace mergen::network {

struct TapSpec {
    IfName name;
    std::uint32_t owner = 0;  ///< uid that, beside CAP_NET_ADMIN, may open it
    std::string alias;        ///< empty: none
    unsigned mtu = 1500;
    std::optional<MacAddress> mac{};  ///< of the host's side; none: the kernel's choice
};

/// Makes a tap in the network namespace of the calling thread that stays when no process has it open (TUNSETPERSIST),
/// for frames with a virtio-net header and without packet information. It bears its alias before it is made to stay, and
/// can be opened when this returns.
/// Throws AlreadyExists if a link of that name is there: without IFF_TUN_EXCL the kernel would silently hand out a tap
/// that somebody else made. See Documentation/networking/tuntap.rst of the kernel.
void makeTap(const TapSpec& spec);

}  // namespace mergen::network
