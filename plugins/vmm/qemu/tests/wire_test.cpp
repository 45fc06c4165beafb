/// A guest on a wire, in a network of the test's own: QEMU runs as a user who may not open /dev/net/tun and gets the
/// tap as an open descriptor, within its sandbox.
#include <arpa/inet.h>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <netinet/in.h>
#include <string>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <mergen/base/fd.hpp>
#include <mergen/base/file.hpp>

#include "qemu_vmm.hpp"
#include "test_host.hpp"
#include "vmm_process.hpp"

namespace mergen::vmm {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;

constexpr auto tapName = "tap-test";
constexpr auto hostAddress = "192.0.2.1", guestAddress = "192.0.2.2", netmask = "255.255.255.0";  // RFC 5737
constexpr std::uint32_t unprivileged = 1900000001;

ifreq request() {
    ifreq request{};
    std::strncpy(request.ifr_name, tapName, IFNAMSIZ - 1);
    return request;
}

void setAddress(int socket, unsigned long what, const char* address) {
    ifreq change = request();
    sockaddr_in value{};
    value.sin_family = AF_INET;
    ASSERT_EQ(::inet_pton(AF_INET, address, &value.sin_addr), 1);
    std::memcpy(&change.ifr_addr, &value, sizeof(value));
    ASSERT_EQ(::ioctl(socket, what, &change), 0) << address << ": " << std::strerror(errno);
}

/// The tap as a supervisor hands it over, with the host's end up.
UniqueFd makeTap() {
    UniqueFd tap(::open("/dev/net/tun", O_RDWR | O_CLOEXEC));
    if (!tap) return {};
    ifreq change = request();
    change.ifr_flags = static_cast<short>(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR);
    EXPECT_EQ(::ioctl(tap.get(), TUNSETIFF, &change), 0) << std::strerror(errno);
    const UniqueFd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    setAddress(socket.get(), SIOCSIFADDR, hostAddress);
    setAddress(socket.get(), SIOCSIFNETMASK, netmask);
    change = request();
    change.ifr_flags = static_cast<short>(IFF_UP | IFF_RUNNING);
    EXPECT_EQ(::ioctl(socket.get(), SIOCSIFFLAGS, &change), 0) << std::strerror(errno);
    return tap;
}

/// The answer to an HTTP request to the guest, head and body.
std::string askGuest(const std::string& head, const std::string& body = {}) {
    const UniqueFd socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const timeval patience{.tv_sec = 30, .tv_usec = 0};
    ::setsockopt(socket.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    ::setsockopt(socket.get(), SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
    sockaddr_in guest{};
    guest.sin_family = AF_INET;
    guest.sin_port = htons(80);
    ::inet_pton(AF_INET, guestAddress, &guest.sin_addr);
    if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&guest), sizeof(guest)) != 0)
        return std::string("cannot connect: ") + std::strerror(errno);
    writeAll(socket.get(), head + " HTTP/1.0\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body,
             "a request");
    std::string answer;
    char chunk[4096];
    for (ssize_t count = 0; (count = ::recv(socket.get(), chunk, sizeof(chunk), 0)) > 0;)
        answer.append(chunk, static_cast<std::size_t>(count));
    return answer;
}

TEST(QemuWire, GuestServesItsPageThroughAnInheritedTap) {
    const auto images = test::GuestImages::find();
    if (!images) GTEST_SKIP() << "there is no guest to boot: run guest/build-rootfs, or the test by ctest";
    if (::access("/usr/bin/qemu-system-x86_64", X_OK) != 0) GTEST_SKIP() << "this host has no qemu-system-x86_64";
    const UniqueFd tap = makeTap();
    if (!tap) GTEST_SKIP() << "this host has no /dev/net/tun";

    test::TestHost host(QemuVmm::keys, {{"accel", "tcg"}});
    QemuVmm vmm;
    vmm.configure(host);
    vmm.start();

    const Credentials user{unprivileged, unprivileged};
    VmmPlace place{OwnerTag{host.instance(), Uuid::random()}, host.paths().runRoot / "vm", {}, user};
    place.controlSocket = place.runDirectory / "control.sock";
    makeDirectories(place.runDirectory, 0700);
    ASSERT_EQ(::chown(place.runDirectory.c_str(), user.uid, user.gid), 0);

    GuestSpec guest;
    guest.memory = MiB{256};
    guest.kernel = host.paths().dataRoot / "vmlinuz";  // the build folder may be closed to other users
    guest.bootArguments = std::string("console=ttyS0 reboot=k panic=1 ip=") + guestAddress + "::" + hostAddress + ":" +
                          netmask + "::eth0:off";
    guest.disks = {{.id = "rootfs", .file = host.paths().dataRoot / "rootfs.ext4", .root = true}};
    guest.nics = {{"eth0", IfName::parse(tapName), MacAddress::of(place.owner.vm)}};
    copySparse(openFile(images->kernel, O_RDONLY).get(), guest.kernel, 0644, 0, 0);
    copySparse(openFile(images->rootDisk, O_RDONLY).get(), guest.disks[0].file, 0600, user.uid, user.gid);

    const LaunchPlan plan = vmm.plan(guest, place);
    ASSERT_EQ(plan.taps.size(), 1U);
    test::VmmProcess process(plan, {{tap.get(), plan.taps[0].fd}}, user);
    vmm.boot(place, guest, 60s, [&] { return process.alive(); });
    ASSERT_TRUE(process.awaitConsole(std::string("mergen-guest: ready ") + guestAddress)) << process.console();

    EXPECT_THAT(askGuest("GET /"), HasSubstr("boots: 1"));
    EXPECT_THAT(askGuest("POST /cgi-bin/note?kept", "for later"), HasSubstr("kept"));
    EXPECT_THAT(askGuest("GET /cgi-bin/note?kept"), HasSubstr("for later"));
    EXPECT_THAT(askGuest(std::string("GET /cgi-bin/probe?") + hostAddress + ":9"), HasSubstr("refused"));

    // The guest ends by itself, as after `reboot`: the VMM does not start it again.
    EXPECT_THAT(askGuest("POST /cgi-bin/reboot"), HasSubstr("rebooting"));
    EXPECT_EQ(process.awaitExit(), 0) << process.console();
    vmm.cleanUp(place);
    EXPECT_THAT(listDirectory(place.runDirectory), ::testing::IsEmpty());
}

}  // namespace
}  // namespace mergen::vmm
