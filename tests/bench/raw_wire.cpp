#include "raw_wire.hpp"

#include <arpa/inet.h>
#include <array>
#include <cerrno>
#include <exception>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <thread>
#include <unistd.h>

#include <mergen/base/file.hpp>
#include <mergen/sdk/error.hpp>

#include "raw_netlink.hpp"

namespace mergen::bench {

namespace {

constexpr int uplinkIndex = 100;
constexpr std::uint32_t transitHost = 0xc0000001U, transitInner = 0xc0000002U;  // 192.0.0.1, 192.0.0.2
constexpr std::uint16_t anew = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
using Mac = std::array<std::uint8_t, 6>;

int hostIndex(const RawWire& wire) {
    return 1'000'000 + static_cast<int>(wire.number);
}

Mac macOf(const RawWire& wire, std::uint8_t side) {
    return {side, 0, 0, 0, static_cast<std::uint8_t>(wire.number >> 8U), static_cast<std::uint8_t>(wire.number)};
}

[[noreturn]] void fail(const std::string& what) {
    throw Error::fromErrno(errno, what);
}

void check(bool fine, const std::string& what) {
    if (!fine) fail(what);
}

ifinfomsg link(int index, bool up = false) {
    ifinfomsg header{};
    header.ifi_index = index;
    header.ifi_flags = up ? IFF_UP : 0;
    header.ifi_change = up ? IFF_UP : 0;
    return header;
}

void setUp(NetlinkBatch& batch, int index) {
    batch.request(RTM_NEWLINK, NLM_F_ACK, link(index, true));
}

void addAddress(NetlinkBatch& batch, int index, std::uint32_t address, std::uint8_t prefix) {
    ifaddrmsg header{};
    header.ifa_family = AF_INET;
    header.ifa_prefixlen = prefix;
    header.ifa_index = static_cast<unsigned>(index);
    batch.request(RTM_NEWADDR, anew, header).put(IFA_LOCAL, htonl(address)).put(IFA_ADDRESS, htonl(address));
}

void addNeighbour(NetlinkBatch& batch, int index, std::uint32_t address, const Mac& mac) {
    ndmsg header{};
    header.ndm_family = AF_INET;
    header.ndm_ifindex = index;
    header.ndm_state = NUD_PERMANENT;
    batch.request(RTM_NEWNEIGH, anew, header).put(NDA_DST, htonl(address)).put(NDA_LLADDR, mac);
}

void addRoute(NetlinkBatch& batch, int index, std::uint32_t to, std::uint8_t prefix, std::uint32_t via) {
    rtmsg header{};
    header.rtm_family = AF_INET;
    header.rtm_dst_len = prefix;
    header.rtm_table = RT_TABLE_MAIN;
    header.rtm_protocol = RTPROT_STATIC;
    header.rtm_type = RTN_UNICAST;
    header.rtm_flags = RTNH_F_ONLINK;
    batch.request(RTM_NEWROUTE, anew, header);
    if (prefix != 0) batch.put(RTA_DST, htonl(to));
    batch.put(RTA_GATEWAY, htonl(via)).put(RTA_OIF, index);
}

int makeTap(const RawWire& wire) {
    const UniqueFd tun = openFile("/dev/net/tun", O_RDWR);
    ifreq request{};
    std::string(RawWire::tap).copy(request.ifr_name, IFNAMSIZ - 1);
    request.ifr_flags = static_cast<short>(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | IFF_TUN_EXCL);
    check(::ioctl(tun.get(), TUNSETIFF, &request) == 0, "tap");
    check(::ioctl(tun.get(), TUNSETOWNER, static_cast<unsigned long>(wire.tapOwner)) == 0, "tap's owner");
    check(::ioctl(tun.get(), TUNSETPERSIST, 1UL) == 0, "tap's life");
    return static_cast<int>(::if_nametoindex(RawWire::tap));
}

void setSysctl(const std::string& key) {
    const UniqueFd file = openFile("/proc/sys/net/" + key, O_WRONLY);
    check(::write(file.get(), "1", 1) == 1, key);
}

/// All inside the new namespace, which the calling thread is in.
void wireInside(const RawWire& wire, int outside) {
    setSysctl("ipv4/ip_forward");
    const int tap = makeTap(wire);
    NetlinkBatch batch;
    setUp(batch, 1);  // lo
    addAddress(batch, tap, RawWire::gateway, 16);
    setUp(batch, tap);
    addNeighbour(batch, tap, wire.guest().value(), wire.mac.bytes());
    batch.request(RTM_NEWLINK, anew, link(uplinkIndex))
        .text(IFLA_IFNAME, "uplink")
        .put(IFLA_ADDRESS, macOf(wire, 0x0a))
        .nest(IFLA_LINKINFO, [&](NetlinkBatch& info) {
            info.text(IFLA_INFO_KIND, "veth").nest(IFLA_INFO_DATA, [&](NetlinkBatch& data) {
                data.nest(VETH_INFO_PEER, [&](NetlinkBatch& peer) {
                    peer.header(link(hostIndex(wire)))
                        .text(IFLA_IFNAME, wire.hostLink())
                        .put(IFLA_ADDRESS, macOf(wire, 0x06))
                        .put(IFLA_NET_NS_FD, outside);
                });
            });
        });
    addAddress(batch, uplinkIndex, transitInner, 32);
    setUp(batch, uplinkIndex);
    addNeighbour(batch, uplinkIndex, transitHost, macOf(wire, 0x06));
    addRoute(batch, uplinkIndex, 0, 0, transitHost);
    batch.send(openNetlink(NETLINK_ROUTE), "the inside of a bare wire");
}

template <typename Work>
void onThread(Work work) {
    std::exception_ptr failure;
    std::thread([&] {
        try {
            work();
        } catch (const Error&) {
            failure = std::current_exception();
        }
    }).join();
    if (failure) std::rethrow_exception(failure);
}

}  // namespace

void within(const std::filesystem::path& handle, const std::function<void()>& work) {
    onThread([&] {
        const UniqueFd space = openFile(handle, O_RDONLY);
        check(::setns(space.get(), CLONE_NEWNET) == 0, "setns");
        work();
    });
}

RawWires::RawWires() : route_(openNetlink(NETLINK_ROUTE)), filter_(openNetlink(NETLINK_NETFILTER)) {}

void RawWires::make(const RawWire& wire) {
    element(wire, true);
    const UniqueFd outside = openFile("/proc/thread-self/ns/net", O_RDONLY);
    onThread([&] {
        check(::unshare(CLONE_NEWNET) == 0, "unshare");
        { const UniqueFd name = openFile(wire.handle(), O_WRONLY | O_CREAT | O_EXCL, 0444); }
        check(::mount("/proc/thread-self/ns/net", wire.handle().c_str(), "none", MS_BIND, nullptr) == 0, "mount");
        wireInside(wire, outside.get());
    });
    setSysctl("ipv4/conf/" + wire.hostLink() + "/route_localnet");
    NetlinkBatch batch;
    addAddress(batch, hostIndex(wire), transitHost, 32);
    setUp(batch, hostIndex(wire));
    addNeighbour(batch, hostIndex(wire), transitInner, macOf(wire, 0x0a));
    addRoute(batch, hostIndex(wire), wire.guest().value(), 32, transitInner);
    batch.send(route_, "the outside of a bare wire");
}

void RawWires::remove(const RawWire& wire) {
    NetlinkBatch().request(RTM_DELLINK, NLM_F_ACK, link(hostIndex(wire))).send(route_, "a bare wire's link");
    element(wire, false);
    check(::umount2(wire.handle().c_str(), MNT_DETACH) == 0 && ::unlink(wire.handle().c_str()) == 0, "a bare name");
}

void RawWires::element(const RawWire& wire, bool there) {
    std::array<char, 20> key{};  // ifname . ipv4_addr
    wire.hostLink().copy(key.data(), IFNAMSIZ - 1);
    const std::uint32_t address = htonl(wire.guest().value());
    std::memcpy(key.data() + IFNAMSIZ, &address, sizeof address);

    nfgenmsg whole{};
    whole.version = NFNETLINK_V0;
    whole.res_id = htons(NFNL_SUBSYS_NFTABLES);
    nfgenmsg table{};
    table.nfgen_family = NFPROTO_INET;
    table.version = NFNETLINK_V0;
    const auto type =
        static_cast<std::uint16_t>(NFNL_SUBSYS_NFTABLES << 8U | (there ? NFT_MSG_NEWSETELEM : NFT_MSG_DELSETELEM));
    constexpr auto nested = static_cast<std::uint16_t>(NLA_F_NESTED);
    NetlinkBatch batch;
    batch.request(NFNL_MSG_BATCH_BEGIN, 0, whole);
    for (const auto& [set, size] : {std::pair<const char*, std::size_t>{"links", IFNAMSIZ}, {"sources", key.size()}}) {
        const std::size_t length = size;
        batch.request(type, there ? anew : NLM_F_ACK, table)
            .text(NFTA_SET_ELEM_LIST_TABLE, RawWire::table)
            .text(NFTA_SET_ELEM_LIST_SET, set)
            .nest(NFTA_SET_ELEM_LIST_ELEMENTS | nested, [&](NetlinkBatch& list) {
                list.nest(NFTA_LIST_ELEM | nested, [&](NetlinkBatch& one) {
                    one.nest(NFTA_SET_ELEM_KEY | nested,
                             [&](NetlinkBatch& value) { value.put(NFTA_DATA_VALUE, key.data(), length); });
                });
            });
    }
    batch.request(NFNL_MSG_BATCH_END, 0, whole);
    batch.send(filter_, "the elements of a bare wire");
}

}  // namespace mergen::bench
