#include "tap.hpp"

#include <cerrno>
#include <chrono>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <string>
#include <sys/ioctl.h>
#include <thread>

#include <mergen/base/file.hpp>
#include <mergen/sdk/error.hpp>
#include <mergen/sdk/failpoint.hpp>

#include "rtnetlink.hpp"

namespace mergen::network {

namespace {

/// Waits until no process has the tap open. It is its maker's, exclusively, until the last copy of the descriptor is
/// closed, and any process that the server starts meanwhile has one until it executes its program: a VMM that opens the
/// tap in that moment would be told that it is busy. With its last user a tap loses its carrier (drivers/net/tun.c).
void awaitFree(Rtnetlink& links, const std::string& name, const std::string& what) {
    constexpr std::chrono::milliseconds pause{1};
    constexpr std::chrono::seconds limit{10};
    const auto deadline = std::chrono::steady_clock::now() + limit;
    for (;;) {
        const auto link = links.findLink(name);
        if (!link) throw Error(ErrorKind::Conflict, what + " was removed while it was made");
        if (!link->carrier) return;
        if (std::chrono::steady_clock::now() > deadline)
            throw Error(ErrorKind::Timeout, what + " is held open by another process");
        std::this_thread::sleep_for(pause);
    }
}

}  // namespace

void makeTap(const TapSpec& spec) {
    const std::string what = "the tap '" + spec.name.str() + "'";
    UniqueFd fd = openFile("/dev/net/tun", O_RDWR);
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
    fd.reset();
    awaitFree(links, spec.name.str(), what);
}

}  // namespace mergen::network
