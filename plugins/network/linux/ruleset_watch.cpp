#include "ruleset_watch.hpp"

#include <arpa/inet.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <string_view>
#include <utility>

#include "nf_tables.hpp"

namespace mergen::network {

namespace {

// What is told of a table, chain, rule, set, set's element, object or flowtable names its table in the first attribute.
constexpr int tableAttribute = 1;
static_assert(NFTA_TABLE_NAME == tableAttribute && NFTA_CHAIN_TABLE == tableAttribute &&
              NFTA_RULE_TABLE == tableAttribute && NFTA_SET_TABLE == tableAttribute &&
              NFTA_SET_ELEM_LIST_TABLE == tableAttribute && NFTA_OBJ_TABLE == tableAttribute &&
              NFTA_FLOWTABLE_TABLE == tableAttribute);

}  // namespace

RulesetWatch::RulesetWatch(std::string table, std::uint32_t own)
    : table_(std::move(table)), own_(own), socket_(NETLINK_NETFILTER, "nf_tables") {
    socket_.subscribe(NFNLGRP_NFTABLES);
}

void RulesetWatch::listen() {
    if (!socket_.hear([this](const nlmsghdr& told) { note(told); })) doubtful_ = true;
}

void RulesetWatch::note(const nlmsghdr& told) noexcept {
    if (told.nlmsg_type == nfMessage(NFNL_SUBSYS_NFTABLES, NFT_MSG_NEWGEN)) {
        const nlattr* const id = attributesOf<NFTA_GEN_MAX + 1>(told, sizeof(nfgenmsg))[NFTA_GEN_ID];
        last_ = ntohl(valueOf<std::uint32_t>(id, 0));
        return;
    }
    if (told.nlmsg_pid == own_) return;
    const bool inet = static_cast<const nfgenmsg*>(nlmsg_data(&told))->nfgen_family == NFPROTO_INET;
    const std::string_view table = viewOf(attributesOf<tableAttribute + 1>(told, sizeof(nfgenmsg))[tableAttribute]);
    if (table.empty() || (inet && table == table_)) doubtful_ = true;
}

void RulesetWatch::restart() {
    listen();
    doubtful_ = false;
    last_.reset();
}

bool RulesetWatch::untouched(std::uint32_t from, std::uint32_t to) {
    listen();
    return !doubtful_ && (from == to || last_ == to);
}

}  // namespace mergen::network
