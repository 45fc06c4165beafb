#include "tap.hpp"

#include <cerrno>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <string>
#include <sys/ioctl.h>

#include <mergen/base/file.hpp>
#include <mergen/sdk/error.hpp>
#include <mergen/sdk/failpoint.hpp>

#include "rtnetlink.hpp"

namespace mergen::network {

void makeTap(const TapSpec& spec) {
    const std::string what = "the tap '" + spec.name.str() + "'";
    const UniqueFd fd = openFile("/dev/net/tun", O_RDWR);
    ifreq request{};
    spec.name.str().copy(request.ifr_name, IFNAMSIZ - 1);
    request.ifr_flags = static_cast<short>(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | IFF_TUN_EXCL);
    if (::ioctl(fd.get(), TUNSETIFF, &request) != 0) {
        const std::string text = "cannot make " + what;
        if (errno == EBUSY) throw Error(ErrorKind::AlreadyExists, text + ": a link of that name is there");
        throw Error::fromErrno(errno, text);
    }
    if (::ioctl(fd.get(), TUNSETOWNER, static_cast<unsigned long>(spec.owner)) != 0) {
        throw Error::fromErrno(errno, "cannot give " + what + " to uid " + std::to_string(spec.owner));
    }
    Rtnetlink links;
    const auto link = links.findLink(spec.name.str());
    if (!link) throw Error(ErrorKind::Conflict, what + " was removed while it was made");
    if (!spec.alias.empty()) links.setAlias(link->index, spec.alias);
    if (link->mtu != spec.mtu) links.setMtu(link->index, spec.mtu);
    if (spec.mac) links.setMac(link->index, *spec.mac);
    MERGEN_FAILPOINT("network.linux.attach.tap.made");
    // Last: until here the tap goes away with the descriptor.
    if (::ioctl(fd.get(), TUNSETPERSIST, 1UL) != 0) {
        throw Error::fromErrno(errno, "cannot make " + what + " stay");
    }
}

}  // namespace mergen::network
