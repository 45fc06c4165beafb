#pragma once

#include <optional>
#include <string>
#include <vector>

#include <Poco/JSON/Array.h>
#include <Poco/JSON/Object.h>

#include <mergen/base/json.hpp>
#include <mergen/engine/vm.hpp>

/// What a guest has, as JSON: in requests, in records and in views the members are the same, named after Firecracker's.
/// Reading throws Error(InvalidArgument) about the member, with its value and the rule.
namespace mergen::engine {

inline constexpr std::size_t maxDrives = 8;
inline constexpr std::size_t maxNics = 4;
/// Of the metadata service's content as text: it travels to Firecracker in one request, whose body has at most 51200.
inline constexpr std::size_t maxMmdsBytes = 48U << 10U;

/// The ids of the disks that `rootfs` and `dataDisk` name.
inline constexpr const char* rootDriveId = "rootfs";
inline constexpr const char* dataDriveId = "data";

/// `drives`. A path of the root drive or of "data" is left in the entry; the caller says what it means.
[[nodiscard]] std::vector<DriveRequest> readDrives(json::Reader& body);
/// `networkInterfaces`. Ids are "eth0", "eth1", ... in their order.
[[nodiscard]] std::vector<NicRequest> readNics(json::Reader& body);
/// `smt`, `hugePages` and `cpuTemplate` of `machineConfig`.
void readMachine(json::Reader& machine, GuestOptions& options);
/// `vsock`, `balloon`, `entropy`, `mmds` and `metrics`.
void readDevices(json::Reader& body, GuestOptions& options);

/// A limit as the member `name`; nothing if it is absent.
[[nodiscard]] std::optional<RateLimiter> readRateLimiter(json::Reader& reader, const std::string& name);
/// `data` of `mmds`, as text; nothing if it is absent.
[[nodiscard]] std::optional<std::string> readMmdsContent(json::Reader& mmds);
/// The same members again.
[[nodiscard]] Poco::JSON::Array::Ptr drivesDocument(const std::vector<DriveRequest>& drives);
[[nodiscard]] Poco::JSON::Array::Ptr nicsDocument(const std::vector<NicRequest>& nics);
[[nodiscard]] Poco::JSON::Object::Ptr machineDocument(const GuestOptions& options);
[[nodiscard]] Poco::JSON::Object::Ptr vsockDocument(const VsockSpec& vsock);
[[nodiscard]] Poco::JSON::Object::Ptr balloonDocument(const BalloonSpec& balloon);
[[nodiscard]] Poco::JSON::Object::Ptr entropyDocument(const EntropySpec& entropy);
/// With `data` only if `content`: what a guest is told may be secret.
[[nodiscard]] Poco::JSON::Object::Ptr mmdsDocument(const MmdsSpec& mmds, bool content);

}  // namespace mergen::engine
