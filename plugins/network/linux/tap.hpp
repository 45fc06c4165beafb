#pragma once

#include <cstdint>

#include <mergen/sdk/types.hpp>

namespace mergen::network {

/// Makes a tap in the network namespace of the calling thread that stays when no process has it open (TUNSETPERSIST),
/// for frames with a virtio-net header and without packet information. Only `owner` (a uid) or CAP_NET_ADMIN may open
/// it. Throws AlreadyExists if a link of that name is there: without IFF_TUN_EXCL the kernel would silently hand out a
/// tap that somebody else made. See Documentation/networking/tuntap.rst of the kernel.
void makeTap(const IfName& name, std::uint32_t owner);

}  // namespace mergen::network
