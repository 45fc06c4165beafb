#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "netlink.hpp"
#include "set_elements.hpp"

namespace mergen::network {

/// The kernel's own words with nf_tables about one table of the family inet and the elements in its sets
/// (linux/netfilter/nf_tables.h; transactions: net/netfilter/nfnetlink.c).
///
/// For what changes with every VM: libnftables reads the tables, chains and sets of the host before each change, which
/// costs ten times as much as the change, and more.
///
/// It works in the network namespace of the thread that made it. Threads: one at a time.
/// Errors: Error(Unavailable, ...) with the kernel's reason.
class NfTables {
public:
    explicit NfTables(std::string table);

    /// Which state of the host's ruleset there is now: the kernel counts the transactions of everybody.
    [[nodiscard]] std::uint32_t generation();
    /// The generation after the next transaction: the count skips 0 when it goes round.
    [[nodiscard]] static constexpr std::uint32_t after(std::uint32_t generation) noexcept {
        return generation + 1 == 0 ? 1 : generation + 1;
    }

    /// Adds the elements of one set of the table; false: there is no such set.
    [[nodiscard]] bool read(TableSet set, Elements& elements);
    [[nodiscard]] std::size_t countRules();

    /// Takes away and makes elements in one transaction, if the ruleset is still of the generation `at` (none: whatever
    /// it is). Gives errno, 0: done. ERESTART: it is of another one. ENOENT, EEXIST: an element that should go is not
    /// there, one that should come is. ENOBUFS, EPROTO: the answer was lost, and it may be done or not. With any other,
    /// nothing was changed.
    [[nodiscard]] int change(const std::vector<ElementKey>& gone, const Elements& made,
                             std::optional<std::uint32_t> at);
    /// The error for what the last change() gave.
    [[nodiscard]] Error changeFailure(int errnum) const;

    /// What the kernel says of the changes of this object, to everybody who listens (RulesetWatch).
    [[nodiscard]] std::uint32_t port() const noexcept { return socket_.port(); }

private:
    [[nodiscard]] NetlinkMessage elementMessage(int type, int flags, const ElementKey& key,
                                                const ElementEntry* entry) const;

    /// The error for `what` was to be done with the table.
    [[nodiscard]] Error unavailable(int errnum, const std::string& what) const;

    const std::string table_;
    NetlinkSocket socket_;
};

}  // namespace mergen::network
