#include "topology.hpp"

namespace mergen::network {

namespace {

MacAddress macOf(const OwnerTag& owner, std::string text) {
    const auto& id = owner.vm.bytes();
    constexpr char digits[] = "0123456789abcdef";
    for (std::size_t i = 0; i < 5; ++i) {
        text += ':';
        text += digits[id[i] >> 4U];
        text += digits[id[i] & 0xfU];
    }
    return MacAddress::parse(text);
}

}  // namespace

// Locally administered, unicast.
MacAddress hostMac(const OwnerTag& owner) {
    return macOf(owner, "06");
}
MacAddress innerMac(const OwnerTag& owner) {
    return macOf(owner, "0a");
}

std::vector<Card> cardsOf(const NetworkSpec& spec) {
    std::vector<Card> cards{{spec.tap, spec.mac, spec.guest}};
    cards.insert(cards.end(), spec.further.begin(), spec.further.end());
    return cards;
}

Error foreignLink(const std::string& name) {
    return {ErrorKind::AlreadyExists, "the link '" + name + "' is there and is not this VM's"};
}

}  // namespace mergen::network
