#include "netlink.hpp"

#include <arpa/inet.h>
#include <cstdlib>
#include <linux/netlink.h>
#include <sys/socket.h>

#include <netlink/errno.h>
#include <netlink/netlink.h>
#include <netlink/socket.h>

namespace mergen::network {

NetlinkMessage& NetlinkMessage::put(int attribute, Ipv4Address address) {
    return put(attribute, htonl(address.value()));
}

std::string textOf(const nlattr* attribute) {
    if (attribute == nullptr) return {};
    const char* const data = static_cast<const char*>(nla_data(attribute));
    return {data, ::strnlen(data, static_cast<std::size_t>(nla_len(attribute)))};
}

Ipv4Address addressOf(const nlattr* attribute) {
    return Ipv4Address(ntohl(valueOf<std::uint32_t>(attribute, 0)));
}

void NetlinkSocket::SocketDeleter::operator()(nl_sock* socket) const noexcept {
    nl_socket_free(socket);
}

NetlinkSocket::NetlinkSocket(int protocol, std::string name) : name_(std::move(name)), socket_(nl_socket_alloc()) {
    if (!socket_) throw std::bad_alloc();
    if (const int result = nl_connect(socket_.get(), protocol); result < 0) {
        throw Error(ErrorKind::Unavailable, "cannot open a socket to " + name_ + ": " + nl_geterror(result));
    }
    // The kernel then says in words what it does not like. An older one does not know the option: no harm.
    const int on = 1;
    static_cast<void>(::setsockopt(nl_socket_get_fd(socket_.get()), SOL_NETLINK, NETLINK_EXT_ACK, &on, sizeof(on)));
}

int NetlinkSocket::exchange(const NetlinkMessage& message, const Each& each) {
    reason_.clear();
    interrupted_ = false;
    if (const int sent = nl_send_auto(socket_.get(), message.get()); sent < 0) {
        throw Error(ErrorKind::Unavailable, "cannot send a request to " + name_ + ": " + nl_geterror(sent));
    }
    const std::uint32_t sequence = nlmsg_hdr(message.get())->nlmsg_seq;
    for (;;) {
        sockaddr_nl peer{};
        unsigned char* raw = nullptr;
        const int got = nl_recv(socket_.get(), &peer, &raw, nullptr);
        const std::unique_ptr<unsigned char, decltype(&std::free)> buffer(raw, &std::free);
        if (got <= 0) {
            throw Error(ErrorKind::Unavailable, "cannot read an answer of " + name_ + ": " + nl_geterror(got));
        }
        int left = got;
        for (auto* at = reinterpret_cast<nlmsghdr*>(buffer.get()); nlmsg_ok(at, left) != 0;
             at = nlmsg_next(at, &left)) {
            if (at->nlmsg_seq != sequence || peer.nl_pid != 0) continue;
            if ((at->nlmsg_flags & NLM_F_DUMP_INTR) != 0) interrupted_ = true;
            if (at->nlmsg_type == NLMSG_DONE) {  // a table that could not be told whole ends with an error in it
                int error = 0;
                if (at->nlmsg_len < NLMSG_LENGTH(sizeof error)) return 0;
                std::memcpy(&error, NLMSG_DATA(at), sizeof error);
                return -error;
            }
            if (at->nlmsg_type != NLMSG_ERROR) {
                if (each) each(*at);
                continue;
            }
            const auto* const error = static_cast<const nlmsgerr*>(nlmsg_data(at));
            if (error->error != 0 && (at->nlmsg_flags & NLM_F_ACK_TLVS) != 0) {
                // The attributes follow the echoed request, or its header alone if the kernel capped it.
                const bool capped = (at->nlmsg_flags & NLM_F_CAPPED) != 0;
                const std::size_t echoed = capped ? 0 : error->msg.nlmsg_len - sizeof(nlmsghdr);
                reason_ =
                    textOf(attributesOf<NLMSGERR_ATTR_MAX + 1>(*at, sizeof(nlmsgerr) + echoed)[NLMSGERR_ATTR_MSG]);
            }
            return -error->error;
        }
    }
}

Error NetlinkSocket::failure(int errnum, std::string_view what) const {
    std::string text = "cannot " + std::string(what);
    if (!reason_.empty()) text += " (" + reason_ + ")";
    return Error::fromErrno(errnum, text);
}

void NetlinkSocket::require(const NetlinkMessage& message, std::string_view what, const Each& each) {
    if (const int errnum = exchange(message, each); errnum != 0) throw failure(errnum, what);
}

}  // namespace mergen::network
