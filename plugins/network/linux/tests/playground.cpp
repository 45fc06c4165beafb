#include "playground.hpp"

#include <algorithm>
#include <arpa/inet.h>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <fcntl.h>
#include <functional>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/ip6.h>
#include <netinet/tcp.h>
#include <optional>
#include <poll.h>
#include <regex>
#include <sstream>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <gtest/gtest.h>

#include <mergen/base/file.hpp>
#include <mergen/base/text.hpp>
#include <mergen/sdk/error.hpp>

#include "network_fixture.hpp"
#include "tap.hpp"

namespace mergen::network::test {

namespace {

using Clock = std::chrono::steady_clock;
constexpr std::chrono::seconds patience{10};

template <typename Work>
auto in(const NetNamespace* space, Work work) {
    return space == nullptr ? work() : space->run(work);
}

int remaining(Clock::time_point deadline) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now()).count();
    return left < 0 ? 0 : static_cast<int>(left);
}

/// An address of either family.
struct Endpoint {
    sockaddr_storage storage{};
    socklen_t size = 0;

    Endpoint(const std::string& address, std::uint16_t port) {
        if (address.find(':') == std::string::npos) {
            auto* const at = reinterpret_cast<sockaddr_in*>(&storage);
            at->sin_family = AF_INET;
            at->sin_port = htons(port);
            at->sin_addr.s_addr = htonl(Ipv4Address::parse(address).value());
            size = sizeof(*at);
        } else {
            auto* const at = reinterpret_cast<sockaddr_in6*>(&storage);
            at->sin6_family = AF_INET6;
            at->sin6_port = htons(port);
            if (::inet_pton(AF_INET6, address.c_str(), &at->sin6_addr) != 1) {
                throw Error(ErrorKind::InvalidArgument, address + " is no address");
            }
            size = sizeof(*at);
        }
    }
    [[nodiscard]] const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
    [[nodiscard]] int family() const { return storage.ss_family; }
};

UniqueFd openSocket(const NetNamespace* space, int family, int type) {
    UniqueFd fd = in(space, [&] { return UniqueFd(::socket(family, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)); });
    if (!fd) throw Error::fromErrno(errno, "cannot open a socket");
    return fd;
}

bool bindTo(const UniqueFd& fd, const std::string& address, std::uint16_t port) {
    const Endpoint at(address, port);
    return ::bind(fd.get(), at.get(), at.size) == 0;
}

std::string greetingFor(const std::string& name, const sockaddr_in& peer) {
    return name + " " + Ipv4Address(ntohl(peer.sin_addr.s_addr)).str() + "\n";
}

/// A jthread whose loop polls `wanted()` and a descriptor that stops it.
std::jthread poller(std::function<std::vector<int>()> wanted, std::function<void(int)> ready) {
    return std::jthread([wanted = std::move(wanted), ready = std::move(ready)](const std::stop_token& stop) {
        const UniqueFd wake(::eventfd(0, EFD_CLOEXEC));
        const std::stop_callback onStop(stop, [&] { ::eventfd_write(wake.get(), 1); });
        while (!stop.stop_requested()) {
            std::vector<pollfd> set{{wake.get(), POLLIN, 0}};
            for (const int fd : wanted()) set.push_back({fd, POLLIN, 0});
            ::poll(set.data(), set.size(), -1);
            for (std::size_t i = 1; i < set.size(); ++i) {
                if (set[i].revents != 0) ready(set[i].fd);
            }
        }
    });
}

/// Packets that each dropping rule of the host has counted, by table and comment.
std::map<std::string, std::uint64_t> drops() {
    static const std::regex rule(R"re(counter packets (\d+) bytes \d+ drop comment "([^"]+)")re");
    std::map<std::string, std::uint64_t> counted;
    std::string table;
    for (const std::string& line : split(mergen::test::runTool({"/usr/sbin/nft", "list", "ruleset"}), '\n')) {
        if (line.starts_with("table ")) table = line;
        std::smatch match;
        if (std::regex_search(line, match, rule)) counted[table + match[2].str()] += std::stoull(match[1].str());
    }
    return counted;
}

/// Datagrams that the host's UDP sockets on `port` have thrown away.
std::uint64_t swallowed(std::uint16_t port) {
    std::array<char, 8> digits{};
    std::snprintf(digits.data(), digits.size(), ":%04X", port);
    std::uint64_t count = 0;
    for (const char* const file : {"/proc/net/udp", "/proc/net/udp6"}) {
        constexpr std::size_t enough = 1U << 20U;
        for (const std::string& line : split(readFile(file, enough).value_or(""), '\n')) {
            std::istringstream words(line);
            std::string slot, local, word, last;
            words >> slot >> local;
            while (words >> word) last = word;
            if (local.ends_with(digits.data())) count += std::stoull(last);
        }
    }
    return count;
}

/// A counter of a namespace's kernel, from a file of /proc/net that has two lines for each group: names and values.
std::uint64_t counterOf(const NetNamespace& space, const std::string& file, const std::string& group,
                        const std::string& name) {
    constexpr std::size_t enough = 1U << 20U;
    const std::string text = space.run([&] { return readFile("/proc/thread-self/net/" + file, enough).value_or(""); });
    std::vector<std::vector<std::string>> lines;
    for (const std::string& line : split(text, '\n')) {
        if (line.starts_with(group)) lines.push_back(split(line, ' '));
    }
    const auto at = std::ranges::find(lines.at(0), name);
    return std::stoull(lines.at(1).at(static_cast<std::size_t>(at - lines[0].begin())));
}

std::string grown(const std::map<std::string, std::uint64_t>& before) {
    for (const auto& [rule, count] : drops()) {
        const auto old = before.find(rule);
        if (old != before.end() && count > old->second) return rule.substr(rule.find('{') + 1);
    }
    return {};
}

}  // namespace

UniqueFd openTap(const std::string& name) {
    UniqueFd fd = openFile("/dev/net/tun", O_RDWR | O_NONBLOCK);
    ifreq request{};
    name.copy(request.ifr_name, IFNAMSIZ - 1);
    request.ifr_flags = static_cast<short>(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR);
    if (::ioctl(fd.get(), TUNSETIFF, &request) != 0) throw Error::fromErrno(errno, "cannot open the tap " + name);
    return fd;
}

void ip(const NetNamespace* space, std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), "/usr/sbin/ip");
    in(space, [&] { mergen::test::runTool(arguments); });  // a child is born into its parent thread's namespace
}

void sysctl(const NetNamespace* space, const std::string& key, const std::string& value) {
    in(space, [&] {
        const std::string path = "/proc/sys/net/" + key;
        writeAll(openFile(path, O_WRONLY).get(), value, path);
    });
}

NetNamespace namespaceOf(const NetworkSpec& spec) {
    return NetNamespace(openFile("/run/netns/" + spec.netns, O_RDONLY));
}

Neighbour::Neighbour(const std::string& name, const std::string& here, const std::string& there)
    : link_(name), space_(NetNamespace::create()) {
    const std::string nsPath = "/proc/" + std::to_string(::getpid()) + "/fd/" + std::to_string(space_.fd());
    ip(nullptr, {"link", "add", link_, "type", "veth", "peer", "name", "eth0", "netns", nsPath});
    ip(nullptr, {"address", "add", here + "/24", "dev", link_});
    ip(nullptr, {"link", "set", link_, "up"});
    ip(&space_, {"link", "set", "lo", "up"});
    ip(&space_, {"address", "add", there + "/24", "dev", "eth0"});
    ip(&space_, {"link", "set", "eth0", "up"});
    ip(&space_, {"route", "add", "default", "via", here});
}

Neighbour::~Neighbour() {
    ip(nullptr, {"link", "delete", link_});
}

Guest::Guest(const NetworkSpec& spec, const NetworkAttachment& wire) : space_(NetNamespace::create()) {
    sysctl(&space_, "ipv6/conf/all/disable_ipv6", "1");
    // What comes in by a further card would be answered by the first one, but for its own address.
    for (const char* const links : {"all", "default"}) {
        sysctl(&space_, std::string("ipv4/conf/") + links + "/rp_filter", "0");
    }
    ip(&space_, {"link", "set", "lo", "up"});
    addCard("eth0", spec.tap, spec.mac, wire, spec);
    ip(&space_, {"address", "add", spec.guest.str() + "/" + std::to_string(spec.network.prefix()), "dev", "eth0"});
    ip(&space_, {"route", "add", "default", "via", spec.gateway.str()});
    for (std::size_t i = 0; i < spec.further.size(); ++i) {
        const FurtherNic& nic = spec.further[i];
        const std::string name = "eth" + std::to_string(i + 1);
        addCard(name, nic.tap, nic.mac, wire, spec);
        useCard(name, nic.guest, spec.gateway, 101 + static_cast<int>(i));
    }
    pump_ = poller(
        [this] {
            std::vector<int> all;
            for (const UniqueFd& end : ends_) all.push_back(end.get());
            return all;
        },
        [this](int from) {
            const auto at = std::ranges::find(ends_, from, &UniqueFd::get) - ends_.begin();
            const int to = ends_[static_cast<std::size_t>(at ^ 1)].get();
            std::array<char, 70000> frame{};
            for (ssize_t got = 0; (got = ::read(from, frame.data(), frame.size())) > 0;) {
                // A frame that the other side has no room for is lost, as on a wire.
                [[maybe_unused]] const ssize_t put = ::write(to, frame.data(), static_cast<std::size_t>(got));
            }
        });
}

void Guest::addCard(const std::string& name, const IfName& tap, const MacAddress& mac, const NetworkAttachment& wire,
                    const NetworkSpec& spec) {
    const auto open = [&] { return openTap(tap.str()); };
    ends_.push_back(wire.netns ? namespaceOf(spec).run(open) : open());
    ends_.push_back(space_.run([&] {
        makeTap({.name = IfName::parse(name), .owner = 0, .alias = {}, .mtu = 1500});
        return openTap(name);
    }));
    ip(&space_, {"link", "set", name, "address", mac.str(), "up"});
}

void Guest::useCard(const std::string& name, Ipv4Address address, Ipv4Address gateway, int table) {
    const std::string number = std::to_string(table);
    ip(&space_, {"address", "add", address.str() + "/32", "dev", name});
    ip(&space_, {"route", "add", "default", "via", gateway.str(), "dev", name, "onlink", "table", number});
    ip(&space_, {"rule", "add", "from", address.str(), "lookup", number});
}

Server::Server(const NetNamespace* space, const std::string& name, const std::string& address, std::uint16_t port)
    : listener_(openSocket(space, AF_INET, SOCK_STREAM)), datagrams_(openSocket(space, AF_INET, SOCK_DGRAM)) {
    const int on = 1;
    ::setsockopt(listener_.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (!bindTo(listener_, address, port) || ::listen(listener_.get(), 16) != 0 || !bindTo(datagrams_, address, port)) {
        throw Error::fromErrno(errno, "cannot listen on " + address + ":" + std::to_string(port));
    }
    const auto clients = std::make_shared<std::map<int, UniqueFd>>();
    loop_ = poller(
        [this, clients] {
            std::vector<int> all{listener_.get(), datagrams_.get()};
            for (const auto& [fd, owner] : *clients) all.push_back(fd);
            return all;
        },
        [this, clients, name](int fd) {
            sockaddr_in peer{};
            socklen_t size = sizeof(peer);
            std::array<char, 4096> data{};
            if (fd == listener_.get()) {
                UniqueFd client(::accept4(fd, reinterpret_cast<sockaddr*>(&peer), &size, SOCK_CLOEXEC | SOCK_NONBLOCK));
                if (!client) return;
                const std::string greeting = greetingFor(name, peer);
                ::send(client.get(), greeting.data(), greeting.size(), MSG_NOSIGNAL);
                const int key = client.get();
                clients->emplace(key, std::move(client));
            } else if (fd == datagrams_.get()) {
                if (::recvfrom(fd, data.data(), data.size(), 0, reinterpret_cast<sockaddr*>(&peer), &size) < 0) return;
                ++heard_;
                const std::string greeting = greetingFor(name, peer);
                ::sendto(fd, greeting.data(), greeting.size(), 0, reinterpret_cast<const sockaddr*>(&peer), size);
            } else if (const ssize_t got = ::recv(fd, data.data(), data.size(), 0); got <= 0) {
                clients->erase(fd);
            } else {
                ::send(fd, data.data(), static_cast<std::size_t>(got), MSG_NOSIGNAL);
            }
        });
}

UdpClient::UdpClient(const NetNamespace* space, const std::string& address, std::uint16_t port,
                     const std::string& source)
    : port_(port) {
    const Endpoint to(address, port);
    fd_ = openSocket(space, to.family(), SOCK_DGRAM);
    const int on = 1;  // to be told of a host that cannot be reached as well
    const bool v4 = to.family() == AF_INET;
    ::setsockopt(fd_.get(), v4 ? IPPROTO_IP : IPPROTO_IPV6, v4 ? IP_RECVERR : IPV6_RECVERR, &on, sizeof(on));
    if (!source.empty() && !bindTo(fd_, source, 0)) failed_ = "cannot bind";
    if (::connect(fd_.get(), to.get(), to.size) != 0) failed_ = "unreachable";
}

std::string UdpClient::ask() {
    if (!failed_.empty()) return failed_;
    std::array<char, 4096> data{};
    while (::recv(fd_.get(), data.data(), data.size(), 0) > 0) {  // answers to what was sent before
    }
    const auto before = drops();
    const std::uint64_t swallowedBefore = swallowed(port_);
    const auto deadline = Clock::now() + patience;
    while (remaining(deadline) > 0) {
        // What became of an earlier datagram is told by whichever call comes first.
        ssize_t got = ::send(fd_.get(), "?", 1, MSG_NOSIGNAL);
        constexpr int lookMs = 50;  // between two looks at the counters
        pollfd wait{fd_.get(), POLLIN, 0};
        if (got > 0 && ::poll(&wait, 1, lookMs) > 0) {
            got = ::recv(fd_.get(), data.data(), data.size(), 0);
            if (got > 0) return {data.data(), static_cast<std::size_t>(got) - 1};
        }
        if (got < 0 && errno == ECONNREFUSED) return "refused";
        if (got < 0 && (errno == EHOSTUNREACH || errno == ENETUNREACH)) return "unreachable";
        if (const std::string rule = grown(before); !rule.empty()) return "dropped: " + rule;
        if (swallowed(port_) > swallowedBefore) return "swallowed";
    }
    return "silence";
}

std::string Connection::readLine() {
    const auto deadline = Clock::now() + patience;
    std::string line;
    for (;;) {
        pollfd wait{fd_.get(), POLLIN, 0};
        if (::poll(&wait, 1, remaining(deadline)) <= 0) return {};
        char c = 0;
        if (::recv(fd_.get(), &c, 1, 0) != 1) return {};
        if (c == '\n') return line;
        line += c;
    }
}

std::string Connection::echo(const std::string& line) {
    const std::string text = line + "\n";
    if (::send(fd_.get(), text.data(), text.size(), MSG_NOSIGNAL) < 0) return {};
    return readLine();
}

std::string probe(const NetNamespace* space, const std::string& address, std::uint16_t port, const std::string& source,
                  Protocol protocol) {
    if (protocol == Protocol::Udp) return UdpClient(space, address, port, source).ask();
    const Endpoint to(address, port);
    UniqueFd fd = openSocket(space, to.family(), SOCK_STREAM);
    if (!source.empty() && !bindTo(fd, source, 0)) return "cannot bind";
    const auto before = drops();
    int errnum = ::connect(fd.get(), to.get(), to.size) == 0 ? 0 : errno;
    const auto deadline = Clock::now() + patience;
    while (errnum == EINPROGRESS) {
        constexpr int lookMs = 50;  // between two looks at the counters
        pollfd wait{fd.get(), POLLOUT, 0};
        if (::poll(&wait, 1, lookMs) > 0) {
            socklen_t size = sizeof(errnum);
            ::getsockopt(fd.get(), SOL_SOCKET, SO_ERROR, &errnum, &size);
            break;
        }
        if (const std::string rule = grown(before); !rule.empty()) return "dropped: " + rule;
        if (remaining(deadline) == 0) return "silence";
    }
    switch (errnum) {
        case 0:
            return Connection(std::move(fd)).readLine();
        case ECONNREFUSED:
            return "refused";
        case EHOSTUNREACH:
        case ENETUNREACH:
            return "unreachable";
        default:
            return "error " + std::to_string(errnum);
    }
}

std::string fateOf(const NetNamespace& space, const std::function<void()>& send, const NetNamespace* wire) {
    const auto foreign = [&] {
        return wire == nullptr ? 0 : counterOf(*wire, "netstat", "TcpExt: ", "IPReversePathFilter");
    };
    const auto before = drops();
    const std::uint64_t foreignBefore = foreign();
    space.run(send);
    const auto deadline = Clock::now() + patience;
    while (remaining(deadline) > 0) {
        if (const std::string rule = grown(before); !rule.empty()) return "dropped: " + rule;
        if (foreign() > foreignBefore) return "dropped: reverse path";
    }
    return "silence";
}

std::uint64_t resetsSentBy(const NetNamespace& space) {
    return counterOf(space, "snmp", "Tcp: ", "OutRsts");
}

void sendDatagram(const std::string& address, std::uint16_t port, const std::string& source) {
    const UniqueFd fd(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    const Endpoint to(address, port);
    if (!bindTo(fd, source, 0) || ::sendto(fd.get(), "?", 1, 0, to.get(), to.size) < 0) {
        throw Error::fromErrno(errno, "cannot send a datagram from " + source + " to " + address);
    }
}

void sendReset(const std::string& address) {
    const UniqueFd fd(::socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_TCP));
    tcphdr header{};
    header.source = htons(40000);
    header.dest = htons(80);
    header.doff = sizeof(header) / 4;
    header.rst = 1;
    const Endpoint to(address, 0);
    if (::sendto(fd.get(), &header, sizeof(header), 0, to.get(), to.size) < 0) {
        throw Error::fromErrno(errno, "cannot send a reset to " + address);
    }
}

void sendIpv6(const std::string& link, const MacAddress& to) {
    const UniqueFd fd(::socket(AF_PACKET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    ip6_hdr packet{};
    packet.ip6_flow = htonl(6U << 28U);
    packet.ip6_nxt = IPPROTO_NONE;
    packet.ip6_hlim = 64;
    packet.ip6_src.s6_addr[0] = 0xfd;  // unique local (RFC 4193)
    packet.ip6_src.s6_addr[15] = 1;
    packet.ip6_dst = packet.ip6_src;
    packet.ip6_dst.s6_addr[15] = 2;
    sockaddr_ll at{};
    at.sll_family = AF_PACKET;
    at.sll_protocol = htons(ETH_P_IPV6);
    at.sll_ifindex = static_cast<int>(::if_nametoindex(link.c_str()));
    at.sll_halen = static_cast<unsigned char>(to.bytes().size());
    std::ranges::copy(to.bytes(), at.sll_addr);
    if (::sendto(fd.get(), &packet, sizeof(packet), 0, reinterpret_cast<const sockaddr*>(&at), sizeof(at)) < 0) {
        throw Error::fromErrno(errno, "cannot send an IPv6 packet by " + link);
    }
}

std::unique_ptr<Connection> connected(const NetNamespace* space, const std::string& address, std::uint16_t port) {
    const Endpoint to(address, port);
    UniqueFd fd = openSocket(space, to.family(), SOCK_STREAM);
    ::connect(fd.get(), to.get(), to.size);
    auto connection = std::make_unique<Connection>(std::move(fd));
    if (connection->readLine().empty()) {
        ADD_FAILURE() << "no connection to " << address << ":" << port;
        return nullptr;
    }
    return connection;
}

}  // namespace mergen::network::test
