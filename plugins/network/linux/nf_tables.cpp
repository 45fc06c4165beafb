#include "nf_tables.hpp"

#include <arpa/inet.h>
#include <cerrno>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <sys/socket.h>
#include <utility>

namespace mergen::network {

namespace {

// A comment stands in an element's user data as libnftables writes it (libnftnl's udata.h): its type, its length, and
// the text with a zero at the end.
constexpr char commentType = 0;  // NFTNL_UDATA_SET_ELEM_COMMENT

std::string userData(const std::string& comment) {
    std::string data{commentType, static_cast<char>(comment.size() + 1)};
    return data + comment + '\0';
}

std::string bytesOf(const nlattr* attribute) {
    if (attribute == nullptr) return {};
    return {static_cast<const char*>(nla_data(attribute)), static_cast<std::size_t>(nla_len(attribute))};
}

std::string dataOf(const nlattr* attribute) {
    return bytesOf(attributesWithin<NFTA_DATA_MAX + 1>(attribute)[NFTA_DATA_VALUE]);
}

/// The comment in somebody's user data, which may hold anything; empty: none.
std::string commentOf(const std::string& data) {
    std::size_t at = 0;
    constexpr std::size_t head = 2;
    while (data.size() >= at + head) {
        const auto size = static_cast<unsigned char>(data[at + 1]);
        if (data.size() < at + head + size) break;
        if (data[at] == commentType) {
            const std::string text = data.substr(at + head, size);
            return text.substr(0, text.find('\0'));
        }
        at += head + size;
    }
    return {};
}

constexpr int message(int type) {
    return nfMessage(NFNL_SUBSYS_NFTABLES, type);
}

NetlinkMessage batchMark(int type, std::optional<std::uint32_t> generation = {}) {
    NetlinkMessage mark(type, NLM_F_REQUEST);
    mark.header(nfHeader(AF_UNSPEC, NFNL_SUBSYS_NFTABLES));
    if (generation) mark.put(NFNL_BATCH_GENID, htonl(*generation));
    return mark;
}

}  // namespace

NfTables::NfTables(std::string table) : table_(std::move(table)), socket_(NETLINK_NETFILTER, "nf_tables") {}

std::uint32_t NfTables::generation() {
    NetlinkMessage question(message(NFT_MSG_GETGEN), 0);
    question.header(nfHeader(AF_UNSPEC));
    std::optional<std::uint32_t> id;
    socket_.require(question, "ask for the ruleset's generation (is nf_tables in this kernel?)",
                    [&](const nlmsghdr& answer) {
                        const auto attributes = attributesOf<NFTA_GEN_MAX + 1>(answer, sizeof(nfgenmsg));
                        if (attributes[NFTA_GEN_ID] != nullptr) {
                            id = ntohl(valueOf<std::uint32_t>(attributes[NFTA_GEN_ID], 0));
                        }
                    });
    if (!id) throw Error(ErrorKind::Internal, "the kernel does not tell the ruleset's generation");
    return *id;
}

bool NfTables::read(TableSet set, Elements& elements) {
    NetlinkMessage question(message(NFT_MSG_GETSETELEM), NLM_F_DUMP);
    question.header(nfHeader(NFPROTO_INET));
    question.put(NFTA_SET_ELEM_LIST_TABLE, table_).put(NFTA_SET_ELEM_LIST_SET, std::string(nameOf(set)));
    const int errnum = socket_.exchange(question, [&](const nlmsghdr& answer) {
        const nlattr* const list =
            attributesOf<NFTA_SET_ELEM_LIST_MAX + 1>(answer, sizeof(nfgenmsg))[NFTA_SET_ELEM_LIST_ELEMENTS];
        if (list == nullptr) return;
        int left = nla_len(list);
        for (const auto* at = static_cast<const nlattr*>(nla_data(list)); nla_ok(at, left) != 0;
             at = nla_next(at, &left)) {
            const auto parts = attributesWithin<NFTA_SET_ELEM_MAX + 1>(at);
            elements.insert_or_assign(
                ElementKey{set, dataOf(parts[NFTA_SET_ELEM_KEY])},
                ElementEntry{dataOf(parts[NFTA_SET_ELEM_DATA]), commentOf(bytesOf(parts[NFTA_SET_ELEM_USERDATA]))});
        }
    });
    if (errnum == ENOENT) return false;
    if (errnum != 0) throw unavailable(errnum, "list '" + std::string(nameOf(set)) + "' of");
    return true;
}

std::size_t NfTables::countRules() {
    NetlinkMessage question(message(NFT_MSG_GETRULE), NLM_F_DUMP);
    question.header(nfHeader(NFPROTO_INET));
    question.put(NFTA_RULE_TABLE, table_);
    std::size_t rules = 0;
    const int errnum = socket_.exchange(question, [&](const nlmsghdr& answer) {
        if (answer.nlmsg_type == message(NFT_MSG_NEWRULE)) ++rules;
    });
    if (errnum != 0 && errnum != ENOENT) throw unavailable(errnum, "list the rules of");
    return rules;
}

NetlinkMessage NfTables::elementMessage(int type, int flags, const ElementKey& key, const ElementEntry* entry) const {
    NetlinkMessage element(message(type), NLM_F_REQUEST | flags);
    element.header(nfHeader(NFPROTO_INET));
    element.put(NFTA_SET_ELEM_LIST_TABLE, table_).put(NFTA_SET_ELEM_LIST_SET, std::string(nameOf(key.set)));
    const auto putBytes = [&](int attribute, const std::string& bytes) {
        element.put(attribute, bytes.data(), bytes.size());
    };
    element.nest(NFTA_SET_ELEM_LIST_ELEMENTS, [&] {
        element.nest(NFTA_LIST_ELEM, [&] {
            element.nest(NFTA_SET_ELEM_KEY, [&] { putBytes(NFTA_DATA_VALUE, key.bytes); });
            if (entry == nullptr) return;
            if (!entry->value.empty()) {
                element.nest(NFTA_SET_ELEM_DATA, [&] { putBytes(NFTA_DATA_VALUE, entry->value); });
            }
            if (!entry->comment.empty()) putBytes(NFTA_SET_ELEM_USERDATA, userData(entry->comment));
        });
    });
    return element;
}

int NfTables::change(const std::vector<ElementKey>& gone, const Elements& made, std::optional<std::uint32_t> at) {
    NetlinkBatch batch;
    batch.add(batchMark(NFNL_MSG_BATCH_BEGIN, at));
    for (const ElementKey& key : gone) batch.add(elementMessage(NFT_MSG_DELSETELEM, 0, key, nullptr));
    for (const auto& [key, entry] : made) {
        batch.add(elementMessage(NFT_MSG_NEWSETELEM, NLM_F_CREATE | NLM_F_EXCL, key, &entry));
    }
    batch.acknowledgeLast();
    batch.add(batchMark(NFNL_MSG_BATCH_END));
    return socket_.transact(batch);
}

Error NfTables::changeFailure(int errnum) const {
    return unavailable(errnum, "change");
}

Error NfTables::unavailable(int errnum, const std::string& what) const {
    return {ErrorKind::Unavailable, socket_.failure(errnum, what + " the packet filter table '" + table_ + "'").what()};
}

}  // namespace mergen::network
