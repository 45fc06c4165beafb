#include "netlink.hpp"

#include <arpa/inet.h>
#include <cerrno>
#include <cstdlib>
#include <linux/netlink.h>
#include <sys/socket.h>

#include <netlink/errno.h>
#include <netlink/netlink.h>
#include <netlink/socket.h>

namespace mergen::network {

namespace {

Error unavailable(const std::string& what) {
    return {ErrorKind::Unavailable, Error::fromErrno(errno, what).what()};
}

}  // namespace

NetlinkMessage& NetlinkMessage::put(int attribute, Ipv4Address address) {
    return put(attribute, htonl(address.value()));
}

nfgenmsg nfHeader(std::uint8_t family, std::uint16_t resource) noexcept {
    nfgenmsg header{};
    header.nfgen_family = family;
    header.version = NFNETLINK_V0;
    header.res_id = htons(resource);
    return header;
}

std::string_view viewOf(const nlattr* attribute) noexcept {
    if (attribute == nullptr) return {};
    const char* const data = static_cast<const char*>(nla_data(attribute));
    return {data, ::strnlen(data, static_cast<std::size_t>(nla_len(attribute)))};
}

std::string textOf(const nlattr* attribute) {
    return std::string(viewOf(attribute));
}

Ipv4Address addressOf(const nlattr* attribute) {
    return Ipv4Address(ntohl(valueOf<std::uint32_t>(attribute, 0)));
}

void NetlinkBatch::add(const NetlinkMessage& message) {
    const nlmsghdr* const header = nlmsg_hdr(message.get());
    const auto* const bytes = reinterpret_cast<const char*>(header);
    last_ = bytes_.size();
    bytes_.insert(bytes_.end(), bytes, bytes + header->nlmsg_len);
    bytes_.resize(NLMSG_ALIGN(bytes_.size()));
}

void NetlinkBatch::acknowledgeLast() noexcept {
    reinterpret_cast<nlmsghdr*>(bytes_.data() + last_)->nlmsg_flags |= NLM_F_ACK;
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
            return takeError(*at);
        }
    }
}

int NetlinkSocket::takeError(const nlmsghdr& answer) {
    const auto* const error = static_cast<const nlmsgerr*>(nlmsg_data(&answer));
    if (error->error != 0 && (answer.nlmsg_flags & NLM_F_ACK_TLVS) != 0) {
        // The attributes follow the echoed request, or its header alone if the kernel capped it.
        const bool capped = (answer.nlmsg_flags & NLM_F_CAPPED) != 0;
        const std::size_t echoed = capped ? 0 : error->msg.nlmsg_len - sizeof(nlmsghdr);
        reason_ = textOf(attributesOf<NLMSGERR_ATTR_MAX + 1>(answer, sizeof(nlmsgerr) + echoed)[NLMSGERR_ATTR_MSG]);
    }
    return -error->error;
}

void NetlinkSocket::makeRoom(std::size_t size) {
    if (size <= sendRoom_) return;
    // A longer datagram than the buffer is refused (socket(7)); this goes beyond net.core.wmem_max, and needs
    // CAP_NET_ADMIN.
    const int room = static_cast<int>(size);
    if (::setsockopt(nl_socket_get_fd(socket_.get()), SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof room) != 0) {
        throw unavailable("cannot send a long request to " + name_);
    }
    sendRoom_ = size;
}

int NetlinkSocket::transact(NetlinkBatch& batch) {
    reason_.clear();
    std::uint32_t awaited = 0;
    const std::uint32_t first = nl_socket_use_seq(socket_.get());
    std::uint32_t next = first;
    int left = static_cast<int>(batch.bytes_.size());
    for (auto* at = reinterpret_cast<nlmsghdr*>(batch.bytes_.data()); nlmsg_ok(at, left) != 0;
         at = nlmsg_next(at, &left)) {
        at->nlmsg_pid = port();
        at->nlmsg_seq = next;
        if ((at->nlmsg_flags & NLM_F_ACK) != 0) awaited = next;
        next = nl_socket_use_seq(socket_.get());
    }
    makeRoom(batch.bytes_.size());
    if (const int sent = nl_sendto(socket_.get(), batch.bytes_.data(), batch.bytes_.size()); sent < 0) {
        throw Error(ErrorKind::Unavailable, "cannot send a request to " + name_ + ": " + nl_geterror(sent));
    }
    // The kernel has carried out what was sent when the call returns: all that it answers is there.
    int failed = 0;
    bool confirmed = false;
    const bool whole = hear([&](const nlmsghdr& answer) {
        if (answer.nlmsg_type != NLMSG_ERROR || failed != 0) return;
        if (answer.nlmsg_seq - first >= next - first) return;  // of an earlier request
        failed = takeError(answer);
        confirmed = confirmed || answer.nlmsg_seq == awaited;
    });
    if (failed == 0 && !whole) failed = ENOBUFS;
    if (failed == 0 && !confirmed) failed = EPROTO;
    return failed;
}

void NetlinkSocket::subscribe(int group) {
    if (const int result = nl_socket_add_memberships(socket_.get(), group, 0); result < 0) {
        throw Error(ErrorKind::Unavailable, "cannot listen to " + name_ + ": " + nl_geterror(result));
    }
}

bool NetlinkSocket::hear(const Each& each) {
    constexpr std::size_t longest = 64U << 10U;  // longer than the kernel's messages, which are at most 32 KiB
    heard_.resize(longest);
    const int fd = nl_socket_get_fd(socket_.get());
    bool whole = true;
    for (;;) {
        sockaddr_nl peer{};
        socklen_t peerSize = sizeof peer;
        const ssize_t got = ::recvfrom(fd, heard_.data(), longest, MSG_DONTWAIT | MSG_TRUNC,
                                       reinterpret_cast<sockaddr*>(&peer), &peerSize);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return whole;
        if (got < 0 && errno != ENOBUFS) {
            throw unavailable("cannot read an answer of " + name_);
        }
        if (got < 0 || static_cast<std::size_t>(got) > longest) {
            whole = false;
            continue;
        }
        if (peer.nl_pid != 0) continue;
        int left = static_cast<int>(got);
        for (auto* at = reinterpret_cast<nlmsghdr*>(heard_.data()); nlmsg_ok(at, left) != 0;
             at = nlmsg_next(at, &left)) {
            each(*at);
        }
    }
}

std::uint32_t NetlinkSocket::port() const noexcept {
    return nl_socket_get_local_port(socket_.get());
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
