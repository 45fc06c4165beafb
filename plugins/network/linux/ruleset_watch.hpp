#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "netlink.hpp"

namespace mergen::network {

/// Listens to what the kernel tells of everybody's transactions in nf_tables, so that one that left our table alone is
/// known as such: a host whose other programs change their rules all the time (Docker, a firewall, kube-proxy) would
/// otherwise have our table read anew before every change.
///
/// It works in the network namespace of the thread that made it. Threads: one at a time.
class RulesetWatch {
public:
    /// `table`: of the family inet. `own`: the port of the socket (NfTables) whose transactions are no news.
    RulesetWatch(std::string table, std::uint32_t own);

    /// Forgets all that has come. Whoever is about to learn the table's state and the ruleset's generation calls it
    /// before.
    void restart();
    /// Whether the table is the same in both generations: all transactions of others between the two are known, and
    /// none was about the table. `from`: not from before the last restart(). `to`: as it is now. To be asked now and
    /// then: what does not fit into the socket is lost, and the answer is no.
    [[nodiscard]] bool untouched(std::uint32_t from, std::uint32_t to);

private:
    void listen();
    void note(const nlmsghdr& told) noexcept;

    const std::string table_;
    const std::uint32_t own_;
    NetlinkSocket socket_;
    bool doubtful_ = false;              ///< the table was touched, or something was lost
    std::optional<std::uint32_t> last_;  ///< the newest generation that was told of
};

}  // namespace mergen::network
