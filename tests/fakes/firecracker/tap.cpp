#include "tap.hpp"

#include <cerrno>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <stdexcept>
#include <sys/ioctl.h>

#include "faults.hpp"
#include "machine.hpp"

namespace mergen::fake {

UniqueFd openTap(const std::string& name) {
    UniqueFd tun(::open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC));
    if (!tun) throw std::runtime_error("Couldn't open /dev/net/tun: " + osError(errno));
    if (name.size() >= IFNAMSIZ) throw std::runtime_error("Invalid interface name");
    ifreq request{};
    name.copy(static_cast<char*>(request.ifr_name), IFNAMSIZ - 1);
    request.ifr_flags = static_cast<short>(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR);
    if (::ioctl(tun.get(), TUNSETIFF, &request) != 0) {
        throw std::runtime_error("Error while creating ifreq structure: " + osError(errno) +
                                 ". Invalid TUN/TAP Backend provided by " + name +
                                 ". Check our documentation on setting up the network devices.");
    }
    return tun;
}

}  // namespace mergen::fake
