#pragma once

#include <cstddef>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include <Poco/JSON/Object.h>

#include <mergen/sdk/types.hpp>
#include <mergen/sdk/vmm.hpp>

/// What VMMs have in common: the shape of a guest that each of them asks for, and Firecracker's configuration file,
/// which every VM's record has whatever VMM runs it.
namespace mergen {

/// What a VMM can give a guest at most.
struct GuestLimits {
    unsigned maxVcpus = 1;
    MiB minMemory, maxMemory;
    std::size_t maxDisks = 1, maxNics = 1;
};

/// Throws InvalidArgument about the GuestSpec member that breaks a rule: numbers out of the limits, ids that are not
/// [A-Za-z0-9_]+ or occur twice, not exactly one root disk, paths that are not absolute. Looks at no file.
void checkGuestShape(const GuestSpec& guest, const GuestLimits& limits);

/// Calls `each` with every word of the guest's kernel arguments and whether it is the kernel's (what follows " -- " is
/// init's). Throws InvalidArgument about "bootArguments" for what is not printable ASCII, and for "root=", which the
/// VMM says itself.
void forEachBootArgument(const GuestSpec& guest,
                         const std::function<void(const std::string& word, bool ofKernel)>& each);

/// The disks with the root disk in front, the others in their order.
[[nodiscard]] std::vector<DiskSpec> rootFirst(std::vector<DiskSpec> disks);

/// The bodies of Firecracker's API (its swagger/firecracker.yaml), which are also the parts of its configuration file.
namespace firecracker {

/// Bytes that a guest's network card carries if nobody says otherwise: then "mtu" is left out, which versions before
/// 1.16 do not know.
inline constexpr unsigned usualMtu = 1500;

[[nodiscard]] Poco::JSON::Object::Ptr machineConfig(const GuestSpec& guest);
[[nodiscard]] Poco::JSON::Object::Ptr bootSource(const GuestSpec& guest);
/// Writable disks get "Writeback" unless they ask for "Unsafe", Firecracker's default: there a guest's flush does
/// nothing, and what it believes to be on the disk is lost with the host's power.
[[nodiscard]] Poco::JSON::Object::Ptr drive(const DiskSpec& disk);
[[nodiscard]] Poco::JSON::Object::Ptr networkInterface(const NicSpec& nic);

/// Absent buckets are left out.
[[nodiscard]] Poco::JSON::Object::Ptr rateLimiter(const RateLimiter& limit);
[[nodiscard]] Poco::JSON::Object::Ptr balloon(const BalloonSpec& balloon);
[[nodiscard]] Poco::JSON::Object::Ptr entropy(const EntropySpec& entropy);
/// Of version 2, over the guest's first network card.
[[nodiscard]] Poco::JSON::Object::Ptr mmdsConfig(const GuestSpec& guest);

/// Where Firecracker finds what a guest's devices need on the host, as it sees it.
struct DevicePaths {
    std::filesystem::path vsock;    ///< the unix socket that Firecracker makes
    std::filesystem::path metrics;  ///< the pipe into which it writes
};
/// The usual ones below a VM's run directory.
[[nodiscard]] DevicePaths devicePaths(const std::filesystem::path& runDirectory);
[[nodiscard]] Poco::JSON::Object::Ptr vsock(const VsockSpec& vsock, const DevicePaths& paths);
[[nodiscard]] Poco::JSON::Object::Ptr metrics(const DevicePaths& paths);

/// All of that as `firecracker --config-file` reads it; the metadata service's content is not in it (`--metadata`). The
/// root disk comes first, as it is /dev/vda.
[[nodiscard]] Poco::JSON::Object::Ptr configuration(const GuestSpec& guest, const DevicePaths& paths);

}  // namespace firecracker

}  // namespace mergen
