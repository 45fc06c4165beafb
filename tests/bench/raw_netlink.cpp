#include "raw_netlink.hpp"

#include <array>
#include <cerrno>
#include <sys/socket.h>

#include <mergen/sdk/error.hpp>

namespace mergen::bench {

void NetlinkBatch::append(const void* data, std::size_t size) {
    const auto* const from = static_cast<const std::byte*>(data);
    bytes_.insert(bytes_.end(), from, from + size);
    bytes_.resize((bytes_.size() + NLMSG_ALIGNTO - 1) / NLMSG_ALIGNTO * NLMSG_ALIGNTO);
}

void NetlinkBatch::close() {
    if (begin_ == bytes_.size()) return;
    const auto length = static_cast<std::uint32_t>(bytes_.size() - begin_);
    std::memcpy(bytes_.data() + begin_, &length, sizeof length);
}

void NetlinkBatch::send(const UniqueFd& socket, std::string_view what) {
    close();
    if (::send(socket.get(), bytes_.data(), bytes_.size(), 0) < 0) throw Error::fromErrno(errno, std::string(what));
    alignas(nlmsghdr) std::array<char, 16384> buffer;  // NOLINT: recv fills it
    for (unsigned answered = 0; answered < awaited_;) {
        const ssize_t got = ::recv(socket.get(), buffer.data(), buffer.size(), 0);
        if (got < 0) throw Error::fromErrno(errno, std::string(what));
        int left = static_cast<int>(got);
        for (auto* at = reinterpret_cast<nlmsghdr*>(buffer.data()); NLMSG_OK(at, static_cast<unsigned>(left));
             at = NLMSG_NEXT(at, left)) {
            if (at->nlmsg_type != NLMSG_ERROR) continue;
            const int error = static_cast<const nlmsgerr*>(NLMSG_DATA(at))->error;
            if (error != 0) throw Error::fromErrno(-error, std::string(what));
            ++answered;
        }
    }
}

UniqueFd openNetlink(int protocol) {
    UniqueFd socket(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol));
    if (!socket) throw Error::fromErrno(errno, "cannot open a netlink socket");
    return socket;
}

}  // namespace mergen::bench
