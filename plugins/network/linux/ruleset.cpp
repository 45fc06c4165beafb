#include "ruleset.hpp"

#include <algorithm>
#include <cerrno>
#include <fcntl.h>
#include <iterator>
#include <new>
#include <sys/select.h>
#include <utility>

#include <nftables/libnftables.h>

#include <mergen/base/json.hpp>
#include <mergen/base/text.hpp>
#include <mergen/sdk/error.hpp>

#include "foreign_firewall.hpp"

namespace mergen::network {

namespace {

/// A context keeps memory for good with every command (about 1 KiB); a new one costs 14 ms.
constexpr std::size_t usesPerContext = 2000;
constexpr std::string_view tablePrefix = "mergen_";

/// The rules, in chains of the table.
/// Chains are flushed and filled in the same transaction, so that no packet meets half of them.
struct Chain {
    std::string_view name;
    std::string_view hook;
    std::vector<std::string> rules;
};

std::vector<Chain> chains(const EgressPolicy& egress) {
    std::vector<Chain> all;
    // Before connection tracking: what a guest sends must be IPv4 from its own address. A guest's link has
    // route_localnet on, for the answers to 127.0.0.1, which without the first rule would open the host's loopback
    // services to it (CVE-2020-8558 was this). No `iifname != "lo"` there: on links that are not ours it is not our
    // business.
    all.push_back(
        {"guest_packets",
         "type filter hook prerouting priority raw; policy accept;",
         {R"(iifname @guest_links meta nfproto != ipv4 counter drop comment "not IPv4")",
          R"(iifname @guest_links ip daddr 127.0.0.0/8 counter drop comment "to loopback")",
          R"(iifname @guest_links iifname . ip saddr != @guest_sources counter drop comment "foreign source")"}});
    // Before any table translates: an address of the host's may be a port that somebody else has published (another
    // server of ours, Docker), and a guest would pass through to it.
    all.push_back({"guest_to_host",
                   "type filter hook prerouting priority mangle; policy accept;",
                   {R"(iifname @guest_links ct state new fib daddr type local counter drop comment "guest to host")"}});
    // Only what is addressed to the host itself: without the `fib` a published port would catch connections to any host
    // that merely pass through (CVE-2025-67499 was this).
    const std::vector<std::string> publish{
        "fib daddr type local meta l4proto tcp dnat ip to tcp dport map @published_tcp",
        "fib daddr type local meta l4proto udp dnat ip to udp dport map @published_udp"};
    all.push_back({"published", "type nat hook prerouting priority dstnat; policy accept;", publish});
    all.push_back({"published_here", "type nat hook output priority -100; policy accept;", publish});
    all.push_back({"sources",
                   "type nat hook postrouting priority srcnat; policy accept;",
                   {"ip saddr 127.0.0.0/8 oifname @guest_links masquerade",
                    "iifname @guest_links oifname != @guest_links masquerade"}});
    // The first rule is above the one for established connections on purpose: it also closes the way from a guest to
    // another's published port through the host's address, which is DNATed by then.
    Chain through{
        "through",
        "type filter hook forward priority filter; policy accept;",
        {R"(iifname @guest_links oifname @guest_links counter drop comment "guest to guest")",
         "iifname @guest_links ct state established,related accept",
         "oifname @guest_links ct state established,related accept",
         // What belongs to no connection would pass masquerade with the guest's own address.
         R"(iifname @guest_links ct state invalid counter drop comment "no connection")",
         "oifname @guest_links ct status dnat accept", R"(oifname @guest_links counter drop comment "not published")"}};
    std::ranges::move(egressRules(egress, "iifname @guest_links"), std::back_inserter(through.rules));
    all.push_back(std::move(through));
    all.push_back({"to_host",
                   "type filter hook input priority filter; policy accept;",
                   {"iifname @guest_links ct state established,related accept",
                    R"(iifname @guest_links counter drop comment "guest to host")"}});
    return all;
}

/// nft reports with marks under the command; the first line says it all.
std::string firstLine(std::string_view text) {
    text = trim(text.substr(0, text.find('\n')));
    constexpr std::string_view prefix = "Error: ";
    if (text.starts_with(prefix)) text.remove_prefix(prefix.size());
    return std::string(text);
}

// Every list of the ruleset that we ask for is the kernel's own text, so its bounds are only a stop for the absurd.
constexpr json::Limits listLimits{.bytes = 256U << 20U, .depth = 64, .members = 50'000'000, .stringBytes = 64U << 10U};

/// libnftables awaits answers by select(2), which takes no descriptor of FD_SETSIZE (1024) or more: the C library then
/// ends the process.
void refuseHighDescriptor() {
    const UniqueFd lowest(::open("/dev/null", O_RDONLY | O_CLOEXEC));
    if (lowest && lowest.get() < FD_SETSIZE) return;
    throw Error(ErrorKind::ResourceExhausted, "cannot talk to nftables: the server has no file descriptor below " +
                                                  std::to_string(FD_SETSIZE) + " left");
}

}  // namespace

void Ruleset::ContextDeleter::operator()(nft_ctx* context) const noexcept {
    nft_ctx_free(context);
}

Ruleset::Ruleset(const std::string& instance, EgressPolicy egress)
    : table_(std::string(tablePrefix) + instance),
      egress_(std::move(egress)),
      tables_(table_),
      watch_(table_, tables_.port()) {}

Ruleset::~Ruleset() = default;

void Ruleset::holdPlaces() {
    constexpr int count = 16;
    for (int i = 0; i < count; ++i) {
        UniqueFd place(::open("/dev/null", O_RDONLY | O_CLOEXEC));
        if (place && place.get() < FD_SETSIZE) places_.push_back(std::move(place));
    }
}

std::pair<std::string, std::string> Ruleset::run(const std::string& commands, bool json) {
    if (contextUses_++ % usesPerContext == 0) {
        context_.reset();  // before the new one is made, which then has its descriptor
        places_.clear();
        refuseHighDescriptor();
        context_.reset(nft_ctx_new(NFT_CTX_DEFAULT));
        holdPlaces();
        if (!context_) throw std::bad_alloc();
        nft_ctx_buffer_output(context_.get());
        nft_ctx_buffer_error(context_.get());
    }
    nft_ctx_output_set_flags(context_.get(), json ? NFT_CTX_OUTPUT_JSON : NFT_CTX_OUTPUT_NUMERIC_ALL);
    const int result = nft_run_cmd_from_buffer(context_.get(), commands.c_str());
    std::string output = nft_ctx_get_output_buffer(context_.get());
    std::string complaint = firstLine(nft_ctx_get_error_buffer(context_.get()));
    if (result != 0 && complaint.empty()) complaint = "nftables gave no reason";
    if (result == 0) complaint.clear();  // a warning
    return {std::move(output), std::move(complaint)};
}

std::string Ruleset::runChange(const std::string& commands) {
    const std::optional<std::uint32_t> before = known_;
    known_.reset();  // until it is sure what the table holds
    std::string complaint = run(commands, /*json=*/false).second;
    if (complaint.empty() && before) {
        watch_.restart();  // has heard of this change as of somebody else's
        if (tables_.generation() == NfTables::after(*before)) knowOurs(*before);
    }
    return complaint;
}

void Ruleset::knowOurs(std::uint32_t before) {
    known_ = NfTables::after(before);
    if (foreignKnown_ == before) foreignKnown_ = known_;
}

std::string Ruleset::fixedRules() const {
    const std::string table = "inet " + table_;
    std::string text = "add table " + table + " { comment \"Mergen: guests of one server\"; }\n";
    for (const TableSet set : allTableSets) {
        text += std::string("add ") + (isMap(set) ? "map " : "set ") + table + " " + std::string(nameOf(set)) +
                " { type " + std::string(typeOf(set)) + "; }\n";
    }
    for (const Chain& chain : chains(egress_)) {
        const std::string name = table + " " + std::string(chain.name);
        text += "add chain " + name + " { " + std::string(chain.hook) + " }\n";
        text += "flush chain " + name + "\n";
        for (const std::string& rule : chain.rules) text += "add rule " + name + " " + rule + "\n";
    }
    return text;
}

void Ruleset::remember(const ElementKey& key, ElementEntry entry) {
    byComment_[entry.comment].insert(key);
    elements_.insert_or_assign(key, std::move(entry));
}

void Ruleset::forget(const ElementKey& key) {
    const auto found = elements_.find(key);
    if (found == elements_.end()) return;
    const auto keys = byComment_.find(found->second.comment);
    keys->second.erase(key);
    if (keys->second.empty()) byComment_.erase(keys);
    elements_.erase(found);
}

bool Ruleset::read() {
    elements_.clear();
    byComment_.clear();
    whole_ = true;
    const auto list = [&] {
        Elements found;
        for (const TableSet set : allTableSets) whole_ = tables_.read(set, found) && whole_;
        return found;
    };
    // A set whose hash table the kernel enlarges while it is listed in parts may come with elements left out, and with
    // no other generation (net/netfilter/nft_set_hash.c): what is listed twice alike is taken.
    constexpr int attempts = 5;
    Elements found = list();
    bool alike = false;
    for (int attempt = 0; attempt < attempts && !alike; ++attempt) {
        Elements again = list();
        alike = again == found;
        found = std::move(again);
    }
    for (auto& [key, entry] : found) remember(key, std::move(entry));
    std::size_t expected = 0;
    for (const Chain& chain : chains(egress_)) expected += chain.rules.size();
    whole_ = whole_ && tables_.countRules() == expected;
    return alike;
}

void Ruleset::refresh() {
    if (known_ && isUntouchedSince(*known_)) return;
    known_.reset();
    // A change of the table while we read it gives a list of which we cannot say when it was true: again. If it changes
    // all the time the last list is used once and not kept.
    constexpr int attempts = 5;
    for (int attempt = 0; attempt < attempts; ++attempt) {
        watch_.restart();
        const std::uint32_t before = tables_.generation();
        if (read() && isUntouchedSince(before)) return;
    }
}

bool Ruleset::isUntouchedSince(std::uint32_t generation) {
    const std::uint32_t now = tables_.generation();
    if (!watch_.untouched(generation, now)) return false;
    known_ = now;
    return true;
}

void Ruleset::refuseForeign(const ElementKey& key, const ElementEntry& there, const std::string& tag) const {
    if (there.comment == tag) return;
    const auto other = OwnerTag::parse(there.comment);
    const std::string holder = other ? "VM " + other->vm.str() : std::string("something that is not this server's");
    if (isMap(key.set)) {
        const Protocol protocol = key.set == TableSet::PublishedTcp ? Protocol::Tcp : Protocol::Udp;
        throw Error(ErrorKind::AlreadyExists,
                    "host port " + toText(key) + " (" + std::string(toString(protocol)) + ") leads to " + holder)
            .about("ports");
    }
    throw Error(ErrorKind::AlreadyExists, "the packet filter's element '" + toText(key) + "' in '" +
                                              std::string(nameOf(key.set)) + "' belongs to " + holder);
}

void Ruleset::replace(const OwnerTag& owner, const std::set<TableSet>& sets, const Elements& wanted) {
    const std::string tag = owner.str();
    const std::lock_guard lock(mutex_);
    // A second try is needed when somebody else changed the ruleset between our look and our change.
    constexpr int attempts = 5;
    for (int attempt = 1;; ++attempt) {
        refresh();
        if (!whole_ && !wanted.empty()) {
            writeRules();
            refresh();
        }
        std::vector<ElementKey> gone;
        if (const auto own = byComment_.find(tag); own != byComment_.end()) {
            for (const ElementKey& key : own->second) {
                if (!sets.contains(key.set)) continue;
                const auto kept = wanted.find(key);
                if (kept == wanted.end() || kept->second != elements_.at(key)) gone.push_back(key);
            }
        }
        Elements made;
        for (const auto& [key, entry] : wanted) {
            const auto there = elements_.find(key);
            if (there != elements_.end() && there->second == entry) continue;
            if (there != elements_.end()) refuseForeign(key, there->second, tag);
            made.emplace(key, entry);
        }
        if (gone.empty() && made.empty()) return;
        const std::optional<std::uint32_t> before = std::exchange(known_, std::nullopt);  // until it is sure again
        // Whoever changes rules without a pause can always be quicker than we. What matters of the elements is seen by
        // the kernel itself: that those that come are not there, and those that go are.
        const bool guarded = before && attempt < attempts;
        const int errnum = tables_.change(gone, made, guarded ? before : std::nullopt);
        if (errnum == 0) {
            for (const ElementKey& key : gone) forget(key);
            for (auto& [key, entry] : made) remember(key, std::move(entry));
            if (guarded) knowOurs(*before);
            return;
        }
        if (attempt == attempts) throw tables_.changeFailure(errnum);
        if (errnum == ERESTART) known_ = before;  // a new generation, which may have left the table alone
    }
}

void Ruleset::writeRules() {
    if (const std::string complaint = runChange(fixedRules()); !complaint.empty()) {
        throw Error(ErrorKind::Unavailable, "cannot make the packet filter table '" + table_ + "': " + complaint);
    }
    whole_ = true;
}

void Ruleset::prepare() {
    const std::lock_guard lock(mutex_);
    refresh();
    writeRules();
}

bool Ruleset::removeIfUnused() {
    const std::lock_guard lock(mutex_);
    refresh();
    if (!elements_.empty()) return false;
    // `add` first: the deletion of a table that somebody removed already is no error then.
    const std::string table = "table inet " + table_ + "\n";
    if (const std::string complaint = runChange("add " + table + "delete " + table); !complaint.empty()) {
        throw Error(ErrorKind::Unavailable, "cannot remove the packet filter table '" + table_ + "': " + complaint);
    }
    whole_ = false;
    return true;
}

void Ruleset::admit(const OwnerTag& owner, const std::vector<Source>& sources) {
    const ElementEntry entry{"", owner.str()};
    Elements wanted;
    for (const Source& source : sources) {
        wanted.insert_or_assign(guestLink(source.link), entry);
        wanted.insert_or_assign(guestSource(source.link, source.guest), entry);
    }
    replace(owner, {TableSet::GuestLinks, TableSet::GuestSources, TableSet::PastSources}, wanted);
}

bool Ruleset::admitted(const OwnerTag& owner, const std::vector<Source>& sources) {
    const ElementEntry entry{"", owner.str()};
    const std::lock_guard lock(mutex_);
    refresh();
    const auto has = [&](const ElementKey& key) {
        const auto found = elements_.find(key);
        return found != elements_.end() && found->second == entry;
    };
    return whole_ && std::ranges::all_of(sources, [&](const Source& source) {
               return has(guestLink(source.link)) && has(guestSource(source.link, source.guest));
           });
}

void Ruleset::publish(const OwnerTag& owner, Ipv4Address guest, const std::vector<PortBinding>& ports) {
    Elements wanted;
    for (const PortBinding& port : ports) {
        wanted.insert_or_assign(publishedPort(port.protocol, port.host),
                                ElementEntry{publishedTarget(guest, port.guest), owner.str()});
    }
    replace(owner, {TableSet::PublishedTcp, TableSet::PublishedUdp}, wanted);
}

bool Ruleset::publishesUdp(const OwnerTag& owner) {
    const std::lock_guard lock(mutex_);
    refresh();
    const auto own = byComment_.find(owner.str());
    return own != byComment_.end() &&
           std::ranges::any_of(own->second, [](const ElementKey& key) { return key.set == TableSet::PublishedUdp; });
}

std::vector<ElementKey> Ruleset::sourcesOf(const OwnerTag& owner) {
    const std::lock_guard lock(mutex_);
    refresh();
    std::vector<ElementKey> sources;
    const auto own = byComment_.find(owner.str());
    if (own == byComment_.end()) return sources;
    std::ranges::copy_if(own->second, std::back_inserter(sources), [](const ElementKey& key) {
        return key.set == TableSet::GuestSources || key.set == TableSet::PastSources;
    });
    return sources;
}

std::set<Ipv4Address> Ruleset::guestsOf(const OwnerTag& owner) {
    std::set<Ipv4Address> guests;
    for (const ElementKey& source : sourcesOf(owner)) guests.insert(guestOf(source));
    return guests;
}

void Ruleset::dismiss(const OwnerTag& owner) {
    Elements past;
    for (const ElementKey& source : sourcesOf(owner))
        past.insert_or_assign(pastSource(source), ElementEntry{"", owner.str()});
    replace(owner, {TableSet::GuestSources, TableSet::PastSources, TableSet::PublishedTcp, TableSet::PublishedUdp},
            past);
}

void Ruleset::expel(const OwnerTag& owner) {
    replace(owner, {allTableSets.begin(), allTableSets.end()}, {});
}

std::map<OwnerTag, std::vector<std::string>> Ruleset::list() {
    const std::lock_guard lock(mutex_);
    refresh();
    std::map<OwnerTag, std::vector<std::string>> found;
    for (const auto& [comment, keys] : byComment_) {
        const auto owner = OwnerTag::parse(comment);
        if (!owner) continue;
        for (const ElementKey& key : keys) {
            found[*owner].push_back("element " + std::string(nameOf(key.set)) + " " + toText(key));
        }
    }
    return found;
}

Ruleset::Summary Ruleset::summary() {
    const std::lock_guard lock(mutex_);
    refresh();
    return {whole_, byComment_.size()};
}

bool Ruleset::otherInstances() {
    const std::lock_guard lock(mutex_);
    const auto [output, complaint] = run("list tables inet", /*json=*/false);
    if (!complaint.empty()) throw Error(ErrorKind::Unavailable, "cannot list the packet filter's tables: " + complaint);
    for (const std::string& line : split(output, '\n')) {  // "table inet NAME"
        const std::string_view text = trim(line);
        const std::string_view name = text.substr(text.rfind(' ') + 1);
        if (name.starts_with(tablePrefix) && name != table_) return true;
    }
    return false;
}

std::vector<std::string> Ruleset::foreignDrops(const std::string& links) {
    const std::lock_guard lock(mutex_);
    const std::uint32_t now = tables_.generation();
    if (foreignKnown_ == now) return foreignDrops_;
    const auto [output, complaint] = run("list chains", /*json=*/true);
    if (!complaint.empty()) throw Error(ErrorKind::Unavailable, "cannot list the packet filter's chains: " + complaint);
    std::set<std::string> tables;  // of others, with a chain at the forward hook
    try {
        const auto all = json::parseObject(output, listLimits)->getArray("nftables");
        for (const auto& item : *all) {
            const auto chain = item.extract<Poco::JSON::Object::Ptr>()->getObject("chain");
            if (chain.isNull() || chain->optValue<std::string>("hook", "") != "forward") continue;
            const auto family = chain->getValue<std::string>("family");
            const auto table = chain->getValue<std::string>("table");
            if ((family == "ip" || family == "inet") && !table.starts_with(tablePrefix)) {
                tables.insert(family + " " + table);
            }
        }
    } catch (const Poco::Exception& error) {
        throw Error(ErrorKind::Internal, "cannot understand nftables' list of chains: " + error.displayText());
    }
    foreignDrops_.clear();
    for (const std::string& table : tables) {
        const auto listed = run("list table " + table, /*json=*/false);  // gone meanwhile: nothing drops there
        for (const std::string& chain : chainsThatDrop(listed.first, links)) {
            foreignDrops_.push_back(table + " " + chain);
        }
    }
    foreignKnown_ = now;
    return foreignDrops_;
}

}  // namespace mergen::network
