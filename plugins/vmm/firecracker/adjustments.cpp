#include "adjustments.hpp"

#include <limits>
#include <optional>

#include <Poco/JSON/Array.h>

#include <mergen/base/guest.hpp>
#include <mergen/base/json.hpp>
#include <mergen/sdk/error.hpp>

namespace mergen::vmm {
namespace {

using Poco::JSON::Object;

constexpr std::int64_t anyNumber = std::numeric_limits<std::int64_t>::max();
constexpr std::size_t maxPath = 4096;
constexpr std::size_t maxElements = 64;

std::optional<TokenBucket> bucketOf(json::Reader& limiter, const std::string& name) {
    const Object::Ptr object = limiter.object(name);
    if (object.isNull()) return std::nullopt;
    json::Reader reader(*object, limiter.pathOf(name));
    const TokenBucket bucket{static_cast<std::uint64_t>(reader.requiredInteger("size", 0, anyNumber)),
                             static_cast<std::uint64_t>(reader.integer("one_time_burst", 0, anyNumber).value_or(0)),
                             std::chrono::milliseconds(reader.requiredInteger("refill_time", 0, anyNumber))};
    if (bucket.size == 0) return std::nullopt;
    return bucket;
}

RateLimiter limiterOf(json::Reader& device, const std::string& name) {
    const Object::Ptr object = device.object(name);
    if (object.isNull()) return {};
    json::Reader reader(*object, device.pathOf(name));
    return {.bandwidth = bucketOf(reader, "bandwidth"), .operations = bucketOf(reader, "ops")};
}

/// Only the buckets that differ: an absent one stays as it is, and its tokens with it.
void setDifference(Object::Ptr body, const std::string& name, const RateLimiter& present, const RateLimiter& wanted) {
    RateLimiter change;
    if (present.bandwidth != wanted.bandwidth) change.bandwidth = wanted.bandwidth.value_or(TokenBucket{});
    if (present.operations != wanted.operations) change.operations = wanted.operations.value_or(TokenBucket{});
    if (change != RateLimiter{}) body->set(name, firecracker::rateLimiter(change));
}

/// Calls `each` with the reader of every element that has a counterpart in `wanted`.
template <typename Spec>
void forEachDevice(json::Reader& whole, const std::string& list, const std::string& idName,
                   const std::vector<Spec>& wanted, const std::function<void(json::Reader&, const Spec&)>& each) {
    whole.objects(list, maxElements, [&](json::Reader& device) {
        const std::string id = device.requiredString(idName, maxPath);
        for (const Spec& spec : wanted) {
            if (spec.id == id) each(device, spec);
        }
        device.passOver();
    });
}

std::vector<Adjustment> compare(const Object& present, const GuestSpec& wanted) {
    std::vector<Adjustment> changes;
    const auto add = [&](const std::string& path, const char* idName, const std::string& id, Object::Ptr body) {
        if (body->size() == 0) return;
        body->set(idName, id);
        changes.push_back({path + id, body});
    };
    json::Reader whole(present, "");
    forEachDevice<DiskSpec>(whole, "drives", "drive_id", wanted.disks, [&](json::Reader& drive, const DiskSpec& disk) {
        Object::Ptr body = json::object();
        // The same path again makes it look at the file again (docs/api_requests/patch-block.md of Firecracker).
        if (disk.reread || drive.string("path_on_host", maxPath) != disk.file.string())
            body->set("path_on_host", disk.file.string());
        setDifference(body, "rate_limiter", limiterOf(drive, "rate_limiter"), disk.limit);
        add("/drives/", "drive_id", disk.id, body);
    });
    forEachDevice<NicSpec>(whole, "network-interfaces", "iface_id", wanted.nics,
                           [&](json::Reader& card, const NicSpec& nic) {
                               Object::Ptr body = json::object();
                               setDifference(body, "rx_rate_limiter", limiterOf(card, "rx_rate_limiter"), nic.receive);
                               setDifference(body, "tx_rate_limiter", limiterOf(card, "tx_rate_limiter"), nic.transmit);
                               add("/network-interfaces/", "iface_id", nic.id, body);
                           });
    const Object::Ptr balloon = whole.object("balloon");
    if (!wanted.balloon || balloon.isNull()) return changes;
    json::Reader reader(*balloon, "balloon");
    const auto change = [&](const char* path, const char* member, std::uint64_t value) {
        if (static_cast<std::uint64_t>(reader.requiredInteger(member, 0, anyNumber)) == value) return;
        Object::Ptr body = json::object();
        body->set(member, Poco::UInt64{value});
        changes.push_back({path, body});
    };
    change("/balloon/statistics", "stats_polling_interval_s",
           static_cast<std::uint64_t>(wanted.balloon->statsInterval.count()));
    change("/balloon", "amount_mib", wanted.balloon->amount.count);
    return changes;
}

}  // namespace

std::vector<Adjustment> adjustments(const Object& present, const GuestSpec& wanted) {
    try {
        return compare(present, wanted);
    } catch (const Error& error) {
        throw Error(ErrorKind::Unavailable, std::string("GET /vm/config: its answer cannot be read: ") + error.what());
    }
}

}  // namespace mergen::vmm
