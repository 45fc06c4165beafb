#pragma once

#include <compare>
#include <optional>
#include <string>
#include <string_view>

#include <mergen/sdk/vmm.hpp>

namespace mergen::vmm {

/// A release of Firecracker's. What comes after the third number ("-dev") is left out: it has what that release has.
struct FirecrackerVersion {
    unsigned major = 0, minor = 0, patch = 0;
    auto operator<=>(const FirecrackerVersion&) const = default;

    /// "1.17.0", "v1.17.0-dev", or nothing if it is no version.
    [[nodiscard]] static std::optional<FirecrackerVersion> parse(std::string_view text);
    [[nodiscard]] std::string str() const;
};

/// The first with the API that is spoken here.
inline constexpr FirecrackerVersion oldestVersion{1, 0, 0};
/// Version 2 of the metadata service.
inline constexpr FirecrackerVersion firstWithMmds2{1, 1, 0};
/// PUT /entropy.
inline constexpr FirecrackerVersion firstWithEntropy{1, 4, 0};
/// "huge_pages" of the machine.
inline constexpr FirecrackerVersion firstWithHugePages{1, 7, 0};
/// "imds_compat" of the metadata service.
inline constexpr FirecrackerVersion firstWithImdsCompat{1, 13, 0};
/// "mtu" of a network interface.
inline constexpr FirecrackerVersion firstWithMtu{1, 16, 0};
/// Kernels in the form of a bzImage, as distributions install them.
inline constexpr FirecrackerVersion firstWithBzImage{1, 17, 0};

/// Whether a way out of this release's machine or jail is public: CVE-2026-5747 of Firecracker and CVE-2026-1386 of its
/// jailer are closed in 1.14.4 and 1.15.1, and what is older than 1.14 gets no repairs.
[[nodiscard]] bool hasKnownHoles(const FirecrackerVersion& version) noexcept;

/// Throws NotSupported, about `field` unless that is empty: "<what> needs Firecracker >= 1.16; this is 1.15.1".
void requireVersion(const FirecrackerVersion& running, const FirecrackerVersion& needed, const std::string& what,
                    const std::string& field);

/// Throws NotSupported about the GuestSpec member that this version cannot give a guest.
void requireFeatures(const FirecrackerVersion& version, const GuestSpec& guest);

}  // namespace mergen::vmm
