#include "devices.hpp"

#include <algorithm>
#include <arpa/inet.h>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <limits>
#include <stdexcept>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "faults.hpp"
#include "fields.hpp"

namespace mergen::fake {
namespace {

constexpr std::uint64_t max32 = std::numeric_limits<std::uint32_t>::max();
constexpr std::uint64_t max16 = std::numeric_limits<std::uint16_t>::max();

std::string bucketJson(const std::optional<Limiter::Bucket>& bucket) {
    if (!bucket) return "null";
    return "{\"size\":" + std::to_string(bucket->size) +
           ",\"one_time_burst\":" + (bucket->burst.value_or(0) > 0 ? std::to_string(*bucket->burst) : "null") +
           ",\"refill_time\":" + std::to_string(bucket->refill) + "}";
}

/// Of a bucket that limits nothing there is none.
std::optional<Limiter::Bucket> limiting(const std::optional<Limiter::Bucket>& bucket) {
    return bucket && bucket->size > 0 && bucket->refill > 0 ? bucket : std::nullopt;
}

std::optional<std::uint32_t> parsedAddress(const std::string& text) {
    in_addr address{};
    if (::inet_pton(AF_INET, text.c_str(), &address) != 1) return std::nullopt;
    return ntohl(address.s_addr);
}

const char* boolText(bool value) {
    return value ? "true" : "false";
}

}  // namespace

std::string Limiter::json() const {
    const auto bytes = limiting(bandwidth);
    const auto count = limiting(operations);
    if (!bytes && !count) return "null";
    return "{\"bandwidth\":" + bucketJson(bytes) + ",\"ops\":" + bucketJson(count) + "}";
}

void Limiter::update(const Limiter& given) {
    if (given.bandwidth) bandwidth = given.bandwidth;
    if (given.operations) operations = given.operations;
}

JsonField bucketField(const char* name, std::optional<Limiter::Bucket>& target) {
    return {name, false, [&target](JsonReader& reader) {
                if (reader.null()) return;
                Limiter::Bucket bucket;
                reader.object("TokenBucketConfig",
                              {number("size", true, bucket.size, anyNumber, "u64"),
                               {"one_time_burst", false,
                                [&](JsonReader& value) {
                                    if (!value.null()) bucket.burst = value.integer(anyNumber, "u64");
                                }},
                               number("refill_time", true, bucket.refill, anyNumber, "u64")},
                              /*lenient=*/true);
                target = bucket;
            }};
}

JsonField limiterField(const char* name, Limiter& target) {
    return {name, false, [&target](JsonReader& reader) {
                if (reader.null()) return;
                reader.object("RateLimiterConfig",
                              {bucketField("bandwidth", target.bandwidth), bucketField("ops", target.operations)});
            }};
}

Balloon Balloon::read(JsonReader& reader) {
    Balloon balloon;
    reader.object(
        "BalloonDeviceConfig",
        {number("amount_mib", true, balloon.amount, max32, "u32"), flag("deflate_on_oom", true, balloon.deflate),
         number("stats_polling_interval_s", false, balloon.interval, max16, "u16"),
         flag("free_page_hinting", false, balloon.hinting), flag("free_page_reporting", false, balloon.reporting)});
    return balloon;
}

std::string Balloon::json() const {
    return "{\"amount_mib\":" + std::to_string(amount) + ",\"deflate_on_oom\":" + boolText(deflate) +
           ",\"stats_polling_interval_s\":" + std::to_string(interval) + ",\"free_page_hinting\":" + boolText(hinting) +
           ",\"free_page_reporting\":" + boolText(reporting) + "}";
}

std::string Balloon::statistics(bool obeyed) const {
    constexpr std::uint64_t pagesPerMib = 256;
    const std::uint64_t given = obeyed ? amount : 0;
    return "{\"target_pages\":" + std::to_string(amount * pagesPerMib) +
           ",\"actual_pages\":" + std::to_string(given * pagesPerMib) + ",\"target_mib\":" + std::to_string(amount) +
           ",\"actual_mib\":" + std::to_string(given) + "}";
}

Vsock Vsock::read(JsonReader& reader) {
    Vsock vsock;
    reader.object("VsockDeviceConfig", {{"vsock_id", false,
                                         [&](JsonReader& value) {
                                             if (!value.null()) vsock.id = value.string();
                                         }},
                                        number("guest_cid", true, vsock.cid, max32, "u32"),
                                        {"uds_path", true, [&](JsonReader& value) { vsock.path = value.string(); }}});
    return vsock;
}

void Vsock::bind() {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    const std::string prefix = "Cannot create backend for vsock device: Error binding to the host-side Unix socket: ";
    if (path.size() >= sizeof(address.sun_path)) throw std::runtime_error(prefix + "path must be shorter than SUN_LEN");
    std::memcpy(address.sun_path, path.c_str(), path.size());
    socket.reset(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0 ||
        ::listen(socket.get(), 8) != 0) {
        throw std::runtime_error(prefix + osError(errno));
    }
}

std::string Vsock::json() const {
    return "{\"guest_cid\":" + std::to_string(cid) + ",\"uds_path\":" + quoted(path) + "}";
}

Entropy Entropy::read(JsonReader& reader) {
    Entropy entropy;
    reader.object("EntropyDeviceConfig", {limiterField("rate_limiter", entropy.limit)});
    return entropy;
}

std::string Entropy::json() const {
    return "{\"rate_limiter\":" + limit.json() + "}";
}

MmdsConfig MmdsConfig::read(JsonReader& reader) {
    MmdsConfig config;
    reader.object("MmdsConfig",
                  {{"version", false,
                    [&](JsonReader& value) {
                        config.version = value.variant({"V1", "V2"});
                    }},
                   {"network_interfaces", true,
                    [&](JsonReader& value) {
                        value.array([&](JsonReader& each) { config.interfaces.push_back(each.string()); });
                    }},
                   {"ipv4_address", false,
                    [&](JsonReader& value) {
                        if (value.null()) return;
                        config.address = value.string();
                        if (!parsedAddress(*config.address)) value.faultInValue("invalid IPv4 address syntax");
                    }},
                   flag("imds_compat", false, config.imdsCompatible)});
    return config;
}

void MmdsConfig::check(const std::vector<std::string>& known) const {
    if (interfaces.empty())
        throw std::runtime_error("The list of network interface IDs that allow forwarding MMDS requests is empty.");
    if (address) {
        const std::uint32_t value = parsedAddress(*address).value_or(0);
        if (value < 0xa9fe0100 || value > 0xa9fefeff)
            throw std::runtime_error("The MMDS IPv4 address is not link local.");
    }
    for (const std::string& id : interfaces) {
        if (std::ranges::find(known, id) != known.end()) continue;
        throw std::runtime_error(
            "The list of network interface IDs provided contains at least one ID that does not correspond to any "
            "existing network interface.");
    }
}

std::string MmdsConfig::json() const {
    std::string list;
    for (const std::string& id : interfaces) list += (list.empty() ? "" : ",") + quoted(id);
    return "{\"version\":" + quoted(version) + ",\"network_interfaces\":[" + list +
           "],\"ipv4_address\":" + quoted(address.value_or("169.254.169.254")) +
           ",\"imds_compat\":" + boolText(imdsCompatible) + "}";
}

CpuTemplate CpuTemplate::read(JsonReader& reader) {
    const auto capability = [](JsonReader& value) {
        const std::string word = value.string();
        const std::size_t digits = word.starts_with('!') ? 1 : 0;
        if (word.size() == digits || word.find_first_not_of("0123456789", digits) != std::string::npos) {
            value.faultOfValue("Failed to parse string [" + word +
                               "] as a kvm capability - can not convert to numeric: invalid digit found in string");
        }
    };
    const auto passed = [](JsonReader& value) { value.skip(); };
    const auto list = [](const char* name, const std::function<void(JsonReader&)>& each) {
        return JsonField{name, false, [each](JsonReader& value) { value.array(each); }};
    };
    reader.object("CustomCpuTemplate", {list("kvm_capabilities", capability), list("cpuid_modifiers", passed),
                                        list("msr_modifiers", passed)});
    return {};
}

}  // namespace mergen::fake
