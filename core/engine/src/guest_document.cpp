#include <algorithm>
#include <array>
#include <limits>
#include <set>
#include <string_view>

#include <mergen/base/text.hpp>
#include <mergen/engine/guest_document.hpp>
#include <mergen/sdk/error.hpp>

namespace mergen::engine {

namespace {

using Poco::JSON::Array;
using Poco::JSON::Object;

constexpr std::size_t maxPath = 4096;  // PATH_MAX of limits.h
constexpr std::size_t maxIdBytes = 32;
constexpr std::size_t maxWordBytes = 128;
/// What json::Reader and Poco hold; Firecracker's numbers are 64 bits without a sign.
constexpr std::int64_t maxTokens = std::numeric_limits<std::int64_t>::max();
/// Firecracker counts time in nanoseconds of 64 bits and refuses what does not fit.
constexpr std::int64_t maxRefillTime = std::int64_t{24} * 60 * 60 * 1000;
constexpr std::array cpuTemplates{"None", "C3", "T2", "T2S", "T2CL", "T2A", "V1N1"};

[[noreturn]] void refuse(const std::string& field, const std::string& text) {
    throw Error(ErrorKind::InvalidArgument, field + ": " + text).about(field);
}

std::string inQuotes(std::string_view text) {
    return "\"" + printable(text, 80) + "\"";
}

/// One of `words`, or `otherwise` if the member is absent.
template <typename Words>
std::string wordOf(json::Reader& reader, const std::string& name, const Words& words, const char* otherwise) {
    const std::string text = reader.string(name, maxWordBytes).value_or(otherwise);
    std::string list;
    for (const char* word : words) {
        if (text == word) return text;
        list += (list.empty() ? "" : ", ") + std::string(word);
    }
    refuse(reader.pathOf(name), inQuotes(text) + " is none of " + list);
}

std::string idOf(json::Reader& reader, const std::string& name) {
    std::string id = reader.requiredString(name, maxPath);
    const bool good = id.size() <= maxIdBytes && std::ranges::all_of(id, [](char c) {
                          return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
                      });
    if (!good) refuse(reader.pathOf(name), inQuotes(id) + " is not 1 to 32 of A-Z, a-z, 0-9, '_'");
    return id;
}

std::string pathOf(json::Reader& reader, const std::string& name) {
    std::string path = reader.string(name, maxPath).value_or("");
    if (path.empty()) {
        if (reader.has(name)) refuse(reader.pathOf(name), "\"\" is not an absolute path");
        return path;
    }
    if (path.front() != '/') refuse(reader.pathOf(name), inQuotes(path) + " is not an absolute path");
    const auto control = [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; };
    if (std::ranges::any_of(path, control)) refuse(reader.pathOf(name), inQuotes(path) + " has a control character");
    return path;
}

/// Refuses a member of Firecracker's that a caller does not choose here.
void refuseGiven(json::Reader& reader, const std::string& name) {
    if (reader.has(name)) refuse(reader.pathOf(name), "is Mergen's to give; leave it out");
}

std::optional<TokenBucket> bucketOf(json::Reader& limiter, const std::string& name) {
    const Object::Ptr object = limiter.object(name);
    if (object.isNull()) return std::nullopt;
    json::Reader reader(*object, limiter.pathOf(name));
    TokenBucket bucket;
    bucket.size = static_cast<std::uint64_t>(reader.requiredInteger("size", 0, maxTokens));
    bucket.oneTimeBurst = static_cast<std::uint64_t>(reader.integer("oneTimeBurst", 0, maxTokens).value_or(0));
    bucket.refillTime = std::chrono::milliseconds(reader.requiredInteger("refillTime", 0, maxRefillTime));
    reader.finish();
    if (bucket.size > 0 && bucket.refillTime.count() == 0) {
        refuse(reader.pathOf("refillTime"), "0 is no time within which a bucket of " + std::to_string(bucket.size) +
                                                " fills; 1 ms or more is needed");
    }
    if (bucket.size == 0) return std::nullopt;  // as Firecracker: no limit
    return bucket;
}

Object::Ptr bucketDocument(const TokenBucket& bucket) {
    Object::Ptr object = json::object();
    object->set("size", Poco::UInt64{bucket.size});
    object->set("oneTimeBurst", Poco::UInt64{bucket.oneTimeBurst});
    object->set("refillTime", Poco::Int64{bucket.refillTime.count()});
    return object;
}

void setLimiter(Object::Ptr object, const std::string& name, const RateLimiter& limit) {
    if (limit == RateLimiter{}) return;
    Object::Ptr limiter = json::object();
    if (limit.bandwidth) limiter->set("bandwidth", bucketDocument(*limit.bandwidth));
    if (limit.operations) limiter->set("ops", bucketDocument(*limit.operations));
    object->set(name, limiter);
}

DriveRequest driveOf(json::Reader& reader) {
    DriveRequest drive;
    drive.id = idOf(reader, "driveId");
    const bool root = drive.id == rootDriveId;
    if (reader.boolean("isRootDevice").value_or(root) != root) {
        refuse(reader.pathOf("isRootDevice"),
               root ? "the drive \"rootfs\" is the root device" : "the root device is the drive \"rootfs\"");
    }
    drive.path = pathOf(reader, "pathOnHost");
    if (drive.path.empty() && !root && drive.id != dataDriveId)
        reader.refuseMissing("pathOnHost", "the absolute path of a raw image");
    drive.readOnly = reader.boolean("isReadOnly").value_or(false);
    // What a guest believes to be on a medium must be there, unless somebody wants it otherwise.
    const std::string cache = wordOf(reader, "cacheType", std::array{"Writeback", "Unsafe"}, "Writeback");
    drive.cache = cache == "Unsafe" ? DiskCache::Unsafe : DiskCache::Writeback;
    const std::string engine = wordOf(reader, "ioEngine", std::array{"Sync", "Async"}, "Sync");
    drive.engine = engine == "Async" ? IoEngine::Async : IoEngine::Sync;
    drive.limit = readRateLimiter(reader, "rateLimiter").value_or(RateLimiter{});
    return drive;
}

BalloonSpec balloonOf(json::Reader& reader) {
    BalloonSpec balloon;
    balloon.amount = MiB{static_cast<std::uint64_t>(reader.integer("amountMib", 0, 1048576).value_or(0))};
    balloon.deflateOnOom = reader.boolean("deflateOnOom").value_or(false);
    balloon.statsInterval = std::chrono::seconds(reader.integer("statsPollingIntervalS", 0, 65535).value_or(0));
    reader.finish();
    return balloon;
}

MmdsSpec mmdsOf(json::Reader& reader) {
    MmdsSpec mmds;
    if (const auto text = reader.string("ipv4Address", maxWordBytes)) {
        const std::string field = reader.pathOf("ipv4Address");
        try {
            mmds.address = Ipv4Address::parse(*text);
        } catch (const Error& error) {
            throw error.within(field).about(field);
        }
        // RFC 3927, section 2.1: the first and the last 256 addresses are reserved.
        if (mmds.address < Ipv4Address(0xa9fe0100) || mmds.address > Ipv4Address(0xa9fefeff))
            refuse(field, inQuotes(*text) + " is not within 169.254.1.0 to 169.254.254.255");
    }
    mmds.imdsCompatible = reader.boolean("imdsCompat").value_or(false);
    mmds.content = readMmdsContent(reader).value_or("{}");
    reader.finish();
    return mmds;
}

}  // namespace

std::optional<RateLimiter> readRateLimiter(json::Reader& reader, const std::string& name) {
    const Object::Ptr object = reader.object(name);
    if (object.isNull()) return std::nullopt;
    json::Reader limiter(*object, reader.pathOf(name));
    RateLimiter limit;
    limit.bandwidth = bucketOf(limiter, "bandwidth");
    limit.operations = bucketOf(limiter, "ops");
    limiter.finish();
    return limit;
}

std::optional<std::string> readMmdsContent(json::Reader& mmds) {
    const Object::Ptr data = mmds.object("data");
    if (data.isNull()) return std::nullopt;
    std::string text = json::render(*data);
    if (text.size() > maxMmdsBytes) {
        refuse(mmds.pathOf("data"), "has " + std::to_string(text.size()) + " bytes as JSON; at most " +
                                        std::to_string(maxMmdsBytes) + " are taken");
    }
    return text;
}

std::vector<DriveRequest> readDrives(json::Reader& body) {
    std::vector<DriveRequest> drives;
    std::set<std::string> ids;
    body.objects("drives", maxDrives, [&](json::Reader& item) {
        drives.push_back(driveOf(item));
        if (!ids.insert(drives.back().id).second)
            refuse(item.pathOf("driveId"), inQuotes(drives.back().id) + " is the id of two drives");
    });
    return drives;
}

std::vector<NicRequest> readNics(json::Reader& body) {
    std::vector<NicRequest> nics;
    body.objects("networkInterfaces", maxNics, [&](json::Reader& item) {
        NicRequest nic;
        nic.id = idOf(item, "ifaceId");
        const std::string expected = "eth" + std::to_string(nics.size());
        if (nic.id != expected) {
            refuse(item.pathOf("ifaceId"),
                   inQuotes(nic.id) + " is not \"" + expected + "\": they are counted in their order");
        }
        refuseGiven(item, "guestMac");
        refuseGiven(item, "hostDevName");
        nic.receive = readRateLimiter(item, "rxRateLimiter").value_or(RateLimiter{});
        nic.transmit = readRateLimiter(item, "txRateLimiter").value_or(RateLimiter{});
        nics.push_back(std::move(nic));
    });
    return nics;
}

void readMachine(json::Reader& machine, GuestOptions& options) {
    options.smt = machine.boolean("smt").value_or(false);
    const std::string pages = wordOf(machine, "hugePages", std::array{"None", "2M"}, "None");
    options.hugePages = pages == "2M" ? HugePages::TwoMiB : HugePages::None;
    options.cpuTemplate = wordOf(machine, "cpuTemplate", cpuTemplates, "None");
    if (options.cpuTemplate == "None") options.cpuTemplate.clear();
}

void readDevices(json::Reader& body, GuestOptions& options) {
    if (const Object::Ptr vsock = body.object("vsock")) {
        json::Reader reader(*vsock, "vsock");
        refuseGiven(reader, "udsPath");
        options.vsock = VsockSpec{static_cast<std::uint32_t>(reader.integer("guestCid", 3, 0xfffffffe).value_or(3))};
        reader.finish();
    }
    if (const Object::Ptr balloon = body.object("balloon")) {
        json::Reader reader(*balloon, "balloon");
        options.balloon = balloonOf(reader);
    }
    if (const Object::Ptr entropy = body.object("entropy")) {
        json::Reader reader(*entropy, "entropy");
        options.entropy = EntropySpec{readRateLimiter(reader, "rateLimiter").value_or(RateLimiter{})};
        reader.finish();
    }
    if (const Object::Ptr mmds = body.object("mmds")) {
        json::Reader reader(*mmds, "mmds");
        options.mmds = mmdsOf(reader);
    }
    options.metrics = body.boolean("metrics").value_or(false);
}

Array::Ptr drivesDocument(const std::vector<DriveRequest>& drives) {
    Array::Ptr array = new Array;
    for (const DriveRequest& drive : drives) {
        Object::Ptr entry = json::object();
        entry->set("driveId", drive.id);
        if (!drive.path.empty()) entry->set("pathOnHost", drive.path.string());
        entry->set("isRootDevice", drive.id == rootDriveId);
        entry->set("isReadOnly", drive.readOnly);
        entry->set("cacheType", std::string(drive.cache == DiskCache::Unsafe ? "Unsafe" : "Writeback"));
        entry->set("ioEngine", std::string(drive.engine == IoEngine::Async ? "Async" : "Sync"));
        setLimiter(entry, "rateLimiter", drive.limit);
        array->add(entry);
    }
    return array;
}

Array::Ptr nicsDocument(const std::vector<NicRequest>& nics) {
    Array::Ptr array = new Array;
    for (const NicRequest& nic : nics) {
        Object::Ptr entry = json::object();
        entry->set("ifaceId", nic.id);
        setLimiter(entry, "rxRateLimiter", nic.receive);
        setLimiter(entry, "txRateLimiter", nic.transmit);
        array->add(entry);
    }
    return array;
}

std::string hugePagesWord(const GuestOptions& options) {
    return options.hugePages == HugePages::TwoMiB ? "2M" : "None";
}

std::string cpuTemplateWord(const GuestOptions& options) {
    return options.cpuTemplate.empty() ? "None" : options.cpuTemplate;
}

Object::Ptr machineDocument(const GuestOptions& options) {
    Object::Ptr object = json::object();
    object->set("smt", options.smt);
    object->set("hugePages", hugePagesWord(options));
    object->set("cpuTemplate", cpuTemplateWord(options));
    return object;
}

Object::Ptr vsockDocument(const VsockSpec& vsock) {
    Object::Ptr object = json::object();
    object->set("guestCid", vsock.cid);
    return object;
}

Object::Ptr balloonDocument(const BalloonSpec& balloon) {
    Object::Ptr object = json::object();
    object->set("amountMib", Poco::UInt64{balloon.amount.count});
    object->set("deflateOnOom", balloon.deflateOnOom);
    object->set("statsPollingIntervalS", Poco::Int64{balloon.statsInterval.count()});
    return object;
}

Object::Ptr entropyDocument(const EntropySpec& entropy) {
    Object::Ptr object = json::object();
    setLimiter(object, "rateLimiter", entropy.limit);
    return object;
}

Object::Ptr mmdsDocument(const MmdsSpec& mmds, bool content) {
    Object::Ptr object = json::object();
    object->set("ipv4Address", mmds.address.str());
    object->set("imdsCompat", mmds.imdsCompatible);
    if (content) object->set("data", json::parseObject(mmds.content));
    return object;
}

}  // namespace mergen::engine
