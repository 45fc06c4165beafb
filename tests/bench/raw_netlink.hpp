#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <linux/netlink.h>
#include <string>
#include <string_view>
#include <vector>

#include <mergen/base/fd.hpp>

/// Netlink with nothing around it: what a start costs at least.
namespace mergen::bench {

/// Requests that go to the kernel in one send.
class NetlinkBatch {
public:
    /// Begins a request; its family's header follows.
    template <typename Header>
    NetlinkBatch& request(std::uint16_t type, std::uint16_t flags, const Header& header) {
        close();
        begin_ = bytes_.size();
        nlmsghdr head{};
        head.nlmsg_type = type;
        head.nlmsg_flags = static_cast<std::uint16_t>(NLM_F_REQUEST | flags);
        append(&head, sizeof head);
        append(&header, sizeof header);
        awaited_ += (flags & NLM_F_ACK) != 0 ? 1U : 0U;
        return *this;
    }
    NetlinkBatch& put(std::uint16_t attribute, const void* data, std::size_t size) {
        const nlattr head{static_cast<std::uint16_t>(NLA_HDRLEN + size), attribute};
        append(&head, sizeof head);
        append(data, size);
        return *this;
    }
    template <typename Number>
    NetlinkBatch& put(std::uint16_t attribute, Number value) {
        return put(attribute, &value, sizeof value);
    }
    NetlinkBatch& text(std::uint16_t attribute, const std::string& value) {
        return put(attribute, value.c_str(), value.size() + 1);
    }
    /// Attributes within an attribute, and a header before them where the family wants one.
    template <typename Fill>
    NetlinkBatch& nest(std::uint16_t attribute, Fill fill) {
        const std::size_t at = bytes_.size();
        const nlattr head{0, attribute};
        append(&head, sizeof head);
        fill(*this);
        const auto length = static_cast<std::uint16_t>(bytes_.size() - at);
        std::memcpy(bytes_.data() + at, &length, sizeof length);
        return *this;
    }
    template <typename Header>
    NetlinkBatch& header(const Header& value) {
        append(&value, sizeof value);
        return *this;
    }

    /// Sends all and waits for the answers; throws Error that names `what` if one is a refusal.
    void send(const UniqueFd& socket, std::string_view what);

private:
    void append(const void* data, std::size_t size);
    void close();

    std::vector<std::byte> bytes_;
    std::size_t begin_ = 0;
    unsigned awaited_ = 0;
};

/// A netlink socket in the calling thread's network namespace.
[[nodiscard]] UniqueFd openNetlink(int protocol);

}  // namespace mergen::bench
