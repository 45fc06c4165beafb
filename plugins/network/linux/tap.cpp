#include "tap.hpp"

#include <cerrno>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <string>
#include <sys/ioctl.h>

#include <mergen/base/file.hpp>
#include <mergen/sdk/error.hpp>

namespace mergen::network {

void makeTap(const IfName& name, std::uint32_t owner) {
    const UniqueFd fd = openFile("/dev/net/tun", O_RDWR);
    ifreq request{};
    name.str().copy(request.ifr_name, IFNAMSIZ - 1);
    request.ifr_flags = static_cast<short>(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | IFF_TUN_EXCL);
    if (::ioctl(fd.get(), TUNSETIFF, &request) != 0) {
        const std::string text = "cannot make the tap '" + name.str() + "'";
        if (errno == EBUSY) throw Error(ErrorKind::AlreadyExists, text + ": a link of that name is there");
        throw Error::fromErrno(errno, text);
    }
    if (::ioctl(fd.get(), TUNSETOWNER, static_cast<unsigned long>(owner)) != 0) {
        throw Error::fromErrno(errno, "cannot give the tap '" + name.str() + "' to uid " + std::to_string(owner));
    }
    // Last: until here the tap goes away with the descriptor.
    if (::ioctl(fd.get(), TUNSETPERSIST, 1UL) != 0) {
        throw Error::fromErrno(errno, "cannot make the tap '" + name.str() + "' stay");
    }
}

}  // namespace mergen::network
