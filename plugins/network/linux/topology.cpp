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

Error foreignLink(const std::string& name) {
    return {ErrorKind::AlreadyExists, "the link '" + name + "' is there and is not this VM's"};
}

}  // namespace mergen::network
