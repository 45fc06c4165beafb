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

    /// Takes note of what has come. To be called now and then: what does not fit into the socket is lost, and with it
    /// what untouchedUntil() could say.
    void listen();
    /// Forgets all that has come. Whoever is about to learn the table's state and the ruleset's generation calls it
    /// before.
    void restart();
    /// Whether all transactions of others from the last restart() to the one that made this generation are known, and
    /// none was about the table.
    [[nodiscard]] bool untouchedUntil(std::uint32_t generation);

private:
    void note(const nlmsghdr& told);

    const std::string table_;
    const std::uint32_t own_;
    NetlinkSocket socket_;
    bool doubtful_ = false;              ///< the table was touched, or something was lost
    std::optional<std::uint32_t> last_;  ///< the newest generation that was told of
};

}  // namespace mergen::network
