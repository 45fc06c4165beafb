#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <mergen/base/fd.hpp>
#include <mergen/sdk/types.hpp>

#include "egress.hpp"
#include "nf_tables.hpp"
#include "ruleset_watch.hpp"
#include "set_elements.hpp"

struct nft_ctx;

namespace mergen::network {

/// The nftables table of one instance, "inet mergen_<instance>": rules that never change, and sets and maps whose
/// elements belong to VMs. An element bears its VM's tag as its comment. What the rules promise stands beside them in
/// the source.
///
/// The rules are written by libnftables, in this process and in one transaction; elements, which come and go with VMs,
/// by the kernel's own messages (NfTables). What the table holds is remembered here, so that a change costs the same
/// with one VM and with thousands. The memory is exact, not hoped: the kernel counts the ruleset's generations, one per
/// transaction of anybody. A change of ours is carried out in the generation that the memory is of, save the last of
/// several tries on a host whose rules never rest, where what the kernel itself refuses has to do; and as soon as there
/// was a transaction that is not ours and is not known to have left the table alone (RulesetWatch), the table is
/// read anew. That also brings back a table that somebody flushed.
///
/// It works in the network namespace of the thread that made it. Threads: any.
/// Errors: Error(Unavailable) with what nftables says; AlreadyExists where a method says so.
class Ruleset {
public:
    /// Opens two sockets, changes nothing.
    Ruleset(const std::string& instance, EgressPolicy egress);
    ~Ruleset();
    Ruleset(const Ruleset&) = delete;
    Ruleset& operator=(const Ruleset&) = delete;

    /// Makes the table, or brings the rules of the one that is there up to date and keeps its elements: the traffic of
    /// running VMs goes on.
    void prepare();
    /// Removes the table if no VM has an element in it; whether it is gone.
    bool removeIfUnused();

    /// A link of the host and an address that a guest may use there. A link may have several.
    struct Source {
        std::string link;
        Ipv4Address guest;
    };
    /// Lets packets of these sources in by their links and no others: what comes by one of these links is a guest's
    /// from then on.
    void admit(const OwnerTag& owner, const std::vector<Source>& sources);
    [[nodiscard]] bool admitted(const OwnerTag& owner, const std::vector<Source>& sources);

    /// Whether one of the owner's published ports is a UDP port.
    [[nodiscard]] bool publishesUdp(const OwnerTag& owner);
    /// The addresses that are, or were before a dismiss(), admitted for the owner by whatever link.
    [[nodiscard]] std::set<Ipv4Address> guestsOf(const OwnerTag& owner);

    /// Makes the owner's published ports exactly `ports`. Throws AlreadyExists if one leads to somebody else.
    void publish(const OwnerTag& owner, Ipv4Address guest, const std::vector<PortBinding>& ports);

    /// Lets nothing of the owner's in any more, and publishes none of its ports: what comes by its links is dropped.
    /// Its addresses stay known.
    void dismiss(const OwnerTag& owner);
    /// Takes away everything that bears the owner's tag.
    void expel(const OwnerTag& owner);

    /// The elements of every owner, as text for the log.
    [[nodiscard]] std::map<OwnerTag, std::vector<std::string>> list();
    /// How many VMs have elements, and whether the table is there and whole.
    struct Summary {
        bool whole = false;
        std::size_t owners = 0;
    };
    [[nodiscard]] Summary summary();

    /// Whether tables of other instances are on this host.
    [[nodiscard]] bool otherInstances();
    /// "family table CHAIN (why)" of the chains of others that end guests' packets whatever our table accepts; `links`:
    /// how nft writes our links, "mg-*". Looked for anew only if somebody else changed a rule since the last time.
    [[nodiscard]] std::vector<std::string> foreignDrops(const std::string& links);

    [[nodiscard]] const std::string& table() const noexcept { return table_; }

private:
    /// Makes the owner's elements of `sets` exactly `wanted`.
    void replace(const OwnerTag& owner, const std::set<TableSet>& sets, const Elements& wanted);
    /// The sources of the owner, present and past.
    [[nodiscard]] std::vector<ElementKey> sourcesOf(const OwnerTag& owner);
    /// Makes the memory true. With mutex_ held, as all below.
    void refresh();
    /// Whether the table is what it was at a generation; the memory, which is of that one, then is of today's, too.
    [[nodiscard]] bool isUntouchedSince(std::uint32_t generation);
    /// Reads the table; whether what was read can be relied on, if the table was not touched meanwhile.
    [[nodiscard]] bool read();
    void remember(const ElementKey& key, ElementEntry entry);
    void forget(const ElementKey& key);
    [[nodiscard]] std::string fixedRules() const;
    /// Makes the rules what they should be, and the sets where there are none.
    void writeRules();
    /// Refuses an element that is there and is somebody else's.
    void refuseForeign(const ElementKey& key, const ElementEntry& there, const std::string& tag) const;
    /// Runs commands as one transaction and keeps the memory's generation right. Gives nft's complaint, empty: done.
    [[nodiscard]] std::string runChange(const std::string& commands);
    /// The memory is of the generation after `before`, which a transaction of ours made.
    void knowOurs(std::uint32_t before);
    void holdPlaces();
    /// Runs one command; first its output, then its complaint (empty: done).
    [[nodiscard]] std::pair<std::string, std::string> run(const std::string& commands, bool json);

    struct ContextDeleter {
        void operator()(nft_ctx* context) const noexcept;
    };

    const std::string table_;
    const EgressPolicy egress_;

    std::mutex mutex_;
    // All below is guarded by mutex_.
    std::unique_ptr<nft_ctx, ContextDeleter> context_;
    std::size_t contextUses_ = 0;
    std::vector<UniqueFd> places_;  ///< low descriptors, kept free for the next context whatever else takes them
    NfTables tables_;
    RulesetWatch watch_;
    std::optional<std::uint32_t> known_;  ///< the generation that the memory is of; none: it is of no use
    bool whole_ = false;                  ///< the table is there with all its rules
    Elements elements_;
    std::map<std::string, std::set<ElementKey>, std::less<>> byComment_;
    std::optional<std::uint32_t> foreignKnown_;  ///< the generation that foreignDrops_ is of
    std::vector<std::string> foreignDrops_;
};

}  // namespace mergen::network
