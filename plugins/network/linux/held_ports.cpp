#include "held_ports.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <linux/filter.h>
#include <netinet/in.h>
#include <optional>
#include <string>
#include <sys/resource.h>
#include <sys/socket.h>

#include <mergen/sdk/error.hpp>

namespace mergen::network {

namespace {

Error cannotHold(int errnum, std::uint16_t port) {
    const std::string text = "cannot hold host port " + std::to_string(port);
    if (errnum != EMFILE && errnum != ENFILE) return Error::fromErrno(errnum, text);
    rlimit limit{};
    ::getrlimit(RLIMIT_NOFILE, &limit);
    return {ErrorKind::ResourceExhausted,
            text + ": the server may open no more files (limit " + std::to_string(limit.rlim_cur) +
                "), and each port of a VM takes one: raise its limit (systemd: LimitNOFILE=)"};
}

void set(int fd, int level, int option, int value, std::uint16_t port) {
    if (::setsockopt(fd, level, option, &value, sizeof(value)) != 0) throw cannotHold(errno, port);
}

/// No datagram is ever queued, whoever sends one.
void dropAll(int fd, std::uint16_t port) {
    std::array<sock_filter, 1> nothing{{{BPF_RET | BPF_K, 0, 0, 0}}};
    const sock_fprog program{static_cast<unsigned short>(nothing.size()), nothing.data()};
    if (::setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)) != 0) throw cannotHold(errno, port);
    set(fd, SOL_SOCKET, SO_RCVBUF, 0, port);  // the kernel makes it the least that it allows
}

/// Ports take no more than leaves room to serve requests and to stop and delete VMs. Descriptors are given lowest
/// first, so the number of a new one tells how many there are.
void leaveSpare(int fd, std::uint16_t port) {
    rlimit limit{};
    if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
    const rlim_t spare = std::min<rlim_t>(256, limit.rlim_cur / 4);
    if (static_cast<rlim_t>(fd) + spare >= limit.rlim_cur) throw cannotHold(EMFILE, port);
}

/// A socket bound to `port` on all addresses of the family, with IPv6 those of IPv4 too. Null if another program has
/// it; nothing if the host lacks the family.
template <typename Address>
std::optional<UniqueFd> bound(int type, const Address& any, sa_family_t family, std::uint16_t port) {
    UniqueFd fd(::socket(family, type | SOCK_CLOEXEC, 0));
    if (!fd) {
        if (errno == EAFNOSUPPORT) return std::nullopt;
        throw cannotHold(errno, port);
    }
    leaveSpare(fd.get(), port);
    if (family == AF_INET6) set(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, 0, port);
    if (type == SOCK_DGRAM) dropAll(fd.get(), port);
    if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&any), sizeof(any)) == 0) return fd;
    if (errno == EADDRINUSE) return UniqueFd();
    if (errno == EADDRNOTAVAIL) return std::nullopt;  // IPv6 is turned off
    throw cannotHold(errno, port);
}

UniqueFd boundEverywhere(Protocol protocol, std::uint16_t port) {
    const int type = protocol == Protocol::Tcp ? SOCK_STREAM : SOCK_DGRAM;
    sockaddr_in6 any6{};
    any6.sin6_family = AF_INET6;
    any6.sin6_port = htons(port);
    if (auto fd = bound(type, any6, AF_INET6, port)) return *std::move(fd);
    sockaddr_in any4{};
    any4.sin_family = AF_INET;
    any4.sin_port = htons(port);
    if (auto fd = bound(type, any4, AF_INET, port)) return *std::move(fd);
    throw cannotHold(EAFNOSUPPORT, port);
}

}  // namespace

bool HeldPorts::hold(Protocol protocol, std::uint16_t port) {
    {
        const std::lock_guard lock(mutex_);
        if (sockets_.contains({protocol, port})) return true;
    }
    UniqueFd fd = boundEverywhere(protocol, port);
    if (!fd) return false;
    const std::lock_guard lock(mutex_);
    sockets_.insert_or_assign({protocol, port}, std::move(fd));
    return true;
}

void HeldPorts::release(Protocol protocol, std::uint16_t port) noexcept {
    const std::lock_guard lock(mutex_);
    sockets_.erase({protocol, port});
}

void HeldPorts::releaseAll() noexcept {
    const std::lock_guard lock(mutex_);
    sockets_.clear();
}

}  // namespace mergen::network
