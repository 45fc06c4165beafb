#include "version.hpp"

#include <charconv>

#include <mergen/base/guest.hpp>
#include <mergen/sdk/error.hpp>

namespace mergen::vmm {

std::optional<FirecrackerVersion> FirecrackerVersion::parse(std::string_view text) {
    if (text.starts_with('v')) text.remove_prefix(1);
    FirecrackerVersion version;
    for (unsigned* part : {&version.major, &version.minor, &version.patch}) {
        if (part != &version.major) {
            if (!text.starts_with('.')) return std::nullopt;
            text.remove_prefix(1);
        }
        const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *part);
        if (error != std::errc()) return std::nullopt;
        text.remove_prefix(static_cast<std::size_t>(end - text.data()));
    }
    if (!text.empty() && text.front() != '-' && text.front() != '+') return std::nullopt;
    return version;
}

std::string FirecrackerVersion::str() const {
    return std::to_string(major) + "." + std::to_string(minor) + "." + std::to_string(patch);
}

bool hasKnownHoles(const FirecrackerVersion& version) noexcept {
    return version < FirecrackerVersion{1, 14, 4} || version == FirecrackerVersion{1, 15, 0};
}

void requireVersion(const FirecrackerVersion& running, const FirecrackerVersion& needed, const std::string& what,
                    const std::string& field) {
    if (running >= needed) return;
    const Error error(ErrorKind::NotSupported, what + " needs Firecracker >= " + std::to_string(needed.major) + "." +
                                                   std::to_string(needed.minor) + "; this is " + running.str());
    throw field.empty() ? error : error.about(field);
}

void requireFeatures(const FirecrackerVersion& version, const GuestSpec& guest) {
    requireVersion(version, oldestVersion, "Mergen", "");
    for (std::size_t i = 0; i < guest.nics.size(); ++i) {
        if (firecracker::networkInterface(guest.nics[i])->has("mtu"))
            requireVersion(version, firstWithMtu, "an MTU of a network card (the network backend's setting mtu)",
                           "nics[" + std::to_string(i) + "].mtu");
    }
    if (guest.hugePages != HugePages::None)
        requireVersion(version, firstWithHugePages, "memory in huge pages", "hugePages");
    if (guest.entropy) requireVersion(version, firstWithEntropy, "an entropy device", "entropy");
    if (guest.mmds) requireVersion(version, firstWithMmds2, "version 2 of the metadata service", "mmds");
    if (guest.mmds && guest.mmds->imdsCompatible)
        requireVersion(version, firstWithImdsCompat, "EC2's way of answering", "mmds.imdsCompatible");
}

}  // namespace mergen::vmm
