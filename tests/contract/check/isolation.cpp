#include "isolation.hpp"

#include <cerrno>
#include <net/if.h>
#include <sched.h>
#include <string>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>

#include <mergen/base/fd.hpp>
#include <mergen/base/file.hpp>
#include <mergen/sdk/error.hpp>

namespace mergen::check {

namespace {

void mustHold(bool done, const std::string& what) {
    if (!done) throw Error::fromErrno(errno, "cannot " + what);
}

void bringLoopbackUp() {
    const UniqueFd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    ifreq request{};
    std::string("lo").copy(static_cast<char*>(request.ifr_name), IFNAMSIZ - 1);
    request.ifr_flags = static_cast<short>(IFF_UP | IFF_RUNNING);
    mustHold(socket && ::ioctl(socket.get(), SIOCSIFFLAGS, &request) == 0, "set the loopback interface up");
}

}  // namespace

void isolateNetwork() {
    mustHold(::unshare(CLONE_NEWNET | CLONE_NEWNS) == 0, "make a network namespace");
    mustHold(::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0, "make all mounts private");
    mustHold(::mount("tmpfs", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755") == 0, "mount a tmpfs on /run");
    makeDirectories("/run/netns", 0755);
    // The old /sys shows the links of the old namespace. Where it may not be mounted anew, a backend reads those.
    static_cast<void>(::mount("sysfs", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, nullptr));
    bringLoopbackUp();
}

}  // namespace mergen::check
