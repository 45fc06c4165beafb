#pragma once

#include <optional>
#include <string>
#include <string_view>

#include <mergen/base/fd.hpp>

namespace mergen::network {

/// The keys below /proc/sys/net/ipv4 and ipv6 of the network namespace of the thread that made it, wherever it is used.
///
/// The folders "ipv4" and "ipv6" are looked for once: the kernel keeps those of all namespaces under one name
/// (fs/dcache.c, fs/proc/proc_sysctl.c), so that with a thousand namespaces to find one takes a third of a millisecond.
/// Threads: any.
class Sysctls {
public:
    Sysctls();

    /// The text of a key ("ipv4/ip_forward"), trimmed; nothing if there is no such key.
    [[nodiscard]] std::optional<std::string> read(const std::string& key) const;
    /// Throws Error with path and errno.
    void write(const std::string& key, std::string_view value) const;
    /// Turns IPv6 off on a link ("all", "default": on every one, on new ones). A kernel without IPv6 has no such key,
    /// and nothing to turn off.
    void disableIpv6(const std::string& link) const;

private:
    /// The folder that a key begins with, and the rest of it.
    struct Place {
        int folder;
        std::string name;
    };
    [[nodiscard]] Place placeOf(const std::string& key) const;

    UniqueFd ipv4_, ipv6_;  ///< ipv6_: none in a kernel without
};

/// The text of a key below /proc/sys/net of the calling thread's namespace ("netfilter/nf_conntrack_count"), trimmed;
/// nothing if there is no such key.
[[nodiscard]] std::optional<std::string> readSysctl(const std::string& key);

}  // namespace mergen::network
