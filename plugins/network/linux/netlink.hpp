#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <functional>
#include <linux/netfilter/nfnetlink.h>
#include <memory>
#include <new>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <netlink/attr.h>
#include <netlink/msg.h>

#include <mergen/sdk/error.hpp>
#include <mergen/sdk/types.hpp>

struct nl_sock;

namespace mergen::network {

/// One request to the kernel. Attributes can only fail to fit, as no input is longer than a few hundred bytes that is a
/// lack of memory.
class NetlinkMessage {
public:
    NetlinkMessage(int type, int flags) : message_(nlmsg_alloc_simple(type, flags)) {
        if (message_ == nullptr) throw std::bad_alloc();
    }
    NetlinkMessage(const NetlinkMessage&) = delete;
    NetlinkMessage& operator=(const NetlinkMessage&) = delete;
    NetlinkMessage(NetlinkMessage&& other) noexcept : message_(std::exchange(other.message_, nullptr)) {}
    NetlinkMessage& operator=(NetlinkMessage&&) = delete;
    ~NetlinkMessage() { nlmsg_free(message_); }

    /// The header of the message's family, before all attributes.
    template <typename Header>
    NetlinkMessage& header(Header value) {
        return check(nlmsg_append(message_, &value, sizeof(value), NLMSG_ALIGNTO));
    }
    NetlinkMessage& put(int attribute, const void* data, std::size_t size) {
        return check(nla_put(message_, attribute, static_cast<int>(size), data));
    }
    NetlinkMessage& put(int attribute, const std::string& text) {
        return put(attribute, text.c_str(), text.size() + 1);
    }
    NetlinkMessage& put(int attribute, Ipv4Address address);
    NetlinkMessage& put(int attribute, const MacAddress& mac) {
        return put(attribute, mac.bytes().data(), mac.bytes().size());
    }
    template <typename Number>
        requires std::is_integral_v<Number>
    NetlinkMessage& put(int attribute, Number value) {
        return put(attribute, &value, sizeof(value));
    }

    /// Runs `fill` inside a nested attribute.
    template <typename Fill>
    NetlinkMessage& nest(int attribute, Fill fill) {
        nlattr* const start = nla_nest_start(message_, attribute);
        if (start == nullptr) throw std::bad_alloc();
        fill();
        nla_nest_end(message_, start);
        return *this;
    }
    [[nodiscard]] nl_msg* get() const noexcept { return message_; }

private:
    NetlinkMessage& check(int result) {
        if (result < 0) throw std::bad_alloc();
        return *this;
    }
    nl_msg* message_;
};

/// Requests that go to the kernel in one piece, for it to carry out together or not at all. Their family says with
/// which messages such a transaction begins and ends.
class NetlinkBatch {
public:
    void add(const NetlinkMessage& message);
    /// Has the kernel answer the last one that was added, even if it succeeds.
    void acknowledgeLast() noexcept;

private:
    friend class NetlinkSocket;
    std::vector<char> bytes_;
    std::size_t last_ = 0;  ///< where in bytes_ the last message begins
};

/// The number of a message to a part of netfilter, and what it begins with (linux/netfilter/nfnetlink.h).
[[nodiscard]] constexpr int nfMessage(int subsystem, int message) noexcept {
    return subsystem << 8 | message;
}
[[nodiscard]] nfgenmsg nfHeader(std::uint8_t family, std::uint16_t resource = 0) noexcept;

/// Attributes by number; absent ones are null.
template <std::size_t N>
using NetlinkAttributes = std::array<const nlattr*, N>;

template <std::size_t N>
NetlinkAttributes<N> attributesIn(const nlattr* first, int left) {
    NetlinkAttributes<N> found{};
    for (const nlattr* at = first; nla_ok(at, left) != 0; at = nla_next(at, &left)) {
        const auto type = static_cast<std::size_t>(nla_type(at));
        if (type < N) found[type] = at;
    }
    return found;
}

/// Those behind the family header of an answer.
template <std::size_t N>
NetlinkAttributes<N> attributesOf(const nlmsghdr& message, std::size_t headerSize) {
    const int size = static_cast<int>(headerSize);
    return attributesIn<N>(nlmsg_attrdata(&message, size), nlmsg_attrlen(&message, size));
}

/// Those within another one; none if that is absent.
template <std::size_t N>
NetlinkAttributes<N> attributesWithin(const nlattr* nest) {
    return nest == nullptr ? NetlinkAttributes<N>{}
                           : attributesIn<N>(static_cast<const nlattr*>(nla_data(nest)), nla_len(nest));
}

/// Text up to its zero, if it has one; empty if the attribute is absent. The view is of the message itself.
[[nodiscard]] std::string_view viewOf(const nlattr* attribute) noexcept;
[[nodiscard]] std::string textOf(const nlattr* attribute);

template <typename Value>
Value valueOf(const nlattr* attribute, Value otherwise) {
    if (attribute != nullptr && nla_len(attribute) >= static_cast<int>(sizeof(Value))) {
        std::memcpy(&otherwise, nla_data(attribute), sizeof(Value));
    }
    return otherwise;
}

[[nodiscard]] Ipv4Address addressOf(const nlattr* attribute);

/// A conversation with one part of the kernel. It belongs for good to the network namespace of the thread that made
/// it. Threads: one at a time.
class NetlinkSocket {
public:
    using Each = std::function<void(const nlmsghdr&)>;

    /// `protocol`: NETLINK_ROUTE, ...; `name`: what texts of errors call it.
    NetlinkSocket(int protocol, std::string name);

    /// Sends and reads the answer to its end, calling `each` for what it consists of; gives errno, 0 for success.
    /// Throws Unavailable if the kernel cannot be talked to.
    int exchange(const NetlinkMessage& message, const Each& each = {});
    /// The same, throwing "cannot `what`: ..." on failure.
    void require(const NetlinkMessage& message, std::string_view what, const Each& each = {});
    /// Sends a batch of which at least one message is to be answered, and gives errno of the first that failed, 0: all
    /// was carried out. Throws Unavailable if the kernel cannot be talked to.
    int transact(NetlinkBatch& batch);
    /// The error for what the last exchange() or transact() gave.
    [[nodiscard]] Error failure(int errnum, std::string_view what) const;
    /// Whether the table that the last exchange() read changed meanwhile.
    [[nodiscard]] bool interrupted() const noexcept { return interrupted_; }

    /// From now on the socket is told what the kernel tells this group. It is then for hear() alone.
    void subscribe(int group);
    /// Calls `each` for every message that has come; never waits. False: some were lost for lack of room.
    bool hear(const Each& each);
    /// What the kernel calls this socket, in the header of what it tells of its requests.
    [[nodiscard]] std::uint32_t port() const noexcept;

private:
    struct SocketDeleter {
        void operator()(nl_sock* socket) const noexcept;
    };
    /// Lets a batch of this many bytes be sent.
    void makeRoom(std::size_t size);
    /// Takes over from a message of type NLMSG_ERROR what went wrong; gives errno.
    int takeError(const nlmsghdr& answer);

    std::string name_;
    std::unique_ptr<nl_sock, SocketDeleter> socket_;
    std::size_t sendRoom_ = 32U << 10U;  ///< the longest batch that can be sent; at first libnl's default
    std::vector<char> heard_;            ///< room for what hear() reads
    std::string reason_;                 ///< the kernel's own words for the last failure (extended ack), often empty
    bool interrupted_ = false;
};

}  // namespace mergen::network
