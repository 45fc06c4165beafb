#include <algorithm>
#include <filesystem>
#include <set>
#include <string_view>
#include <vector>

#include <Poco/JSON/Array.h>

#include <mergen/base/guest.hpp>
#include <mergen/base/json.hpp>
#include <mergen/base/text.hpp>
#include <mergen/sdk/error.hpp>

namespace mergen {

namespace {

[[noreturn]] void refuse(const std::string& field, const std::string& text) {
    throw Error(ErrorKind::InvalidArgument, text).about(field);
}

void checkId(const std::string& field, std::string_view id) {
    const bool good = !id.empty() && std::all_of(id.begin(), id.end(), [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
    });
    if (!good) refuse(field, "'" + printable(id) + "' is not made of a-z, A-Z, 0-9 and _ alone");
}

void checkPath(const std::string& field, const std::filesystem::path& path) {
    const std::string& text = path.native();
    if (!path.is_absolute()) refuse(field, "'" + printable(text) + "' is no absolute path");
    if (text.find('\0') != std::string::npos) refuse(field, "'" + printable(text) + "' has a NUL byte in it");
}

void checkDisks(const std::vector<DiskSpec>& disks, const GuestLimits& limits) {
    if (disks.size() > limits.maxDisks)
        refuse("disks", "a guest has at most " + std::to_string(limits.maxDisks) + " disks");
    std::set<std::string> ids;
    for (std::size_t i = 0; i < disks.size(); ++i) {
        const std::string field = "disks[" + std::to_string(i) + "]";
        const DiskSpec& disk = disks[i];
        checkId(field + ".id", disk.id);
        if (!ids.insert(disk.id).second) refuse(field + ".id", "two disks have the id '" + disk.id + "'");
        checkPath(field + ".file", disk.file);
    }
    const auto roots = std::count_if(disks.begin(), disks.end(), [](const DiskSpec& disk) { return disk.root; });
    if (roots != 1) refuse("disks", "a guest has exactly one root disk, not " + std::to_string(roots));
}

void checkNics(const std::vector<NicSpec>& nics, const GuestLimits& limits) {
    if (nics.size() > limits.maxNics)
        refuse("nics", "a guest has at most " + std::to_string(limits.maxNics) + " network interfaces");
    std::set<std::string> ids;
    for (std::size_t i = 0; i < nics.size(); ++i) {
        const std::string field = "nics[" + std::to_string(i) + "].id";
        checkId(field, nics[i].id);
        if (!ids.insert(nics[i].id).second) refuse(field, "two network interfaces have the id '" + nics[i].id + "'");
    }
}

}  // namespace

void checkGuestShape(const GuestSpec& guest, const GuestLimits& limits) {
    if (guest.vcpus < 1 || guest.vcpus > limits.maxVcpus) {
        refuse("vcpus", "a guest has 1 to " + std::to_string(limits.maxVcpus) + " processors, not " +
                            std::to_string(guest.vcpus));
    }
    if (guest.memory < limits.minMemory || guest.memory > limits.maxMemory) {
        refuse("memory", "a guest has " + std::to_string(limits.minMemory.count) + " to " +
                             std::to_string(limits.maxMemory.count) + " MiB of memory, not " +
                             std::to_string(guest.memory.count));
    }
    checkPath("kernel", guest.kernel);
    if (guest.initrd) checkPath("initrd", *guest.initrd);
    checkDisks(guest.disks, limits);
    checkNics(guest.nics, limits);
}

void forEachBootArgument(const GuestSpec& guest,
                         const std::function<void(const std::string& word, bool ofKernel)>& each) {
    bool ofKernel = true;
    for (const std::string& word : split(guest.bootArguments, ' ')) {
        if (word.empty()) continue;
        if (!std::all_of(word.begin(), word.end(), [](char c) { return c > ' ' && c <= '~'; }))
            refuse("bootArguments", "'" + printable(word) + "' has characters that are not printable ASCII");
        if (word == "--") ofKernel = false;
        if (ofKernel && word.starts_with("root="))
            refuse("bootArguments", "'" + printable(word) + "': the VMM says what the root disk is called");
        each(word, ofKernel);
    }
}

std::vector<DiskSpec> rootFirst(std::vector<DiskSpec> disks) {
    std::stable_partition(disks.begin(), disks.end(), [](const DiskSpec& disk) { return disk.root; });
    return disks;
}

namespace firecracker {

using Poco::JSON::Array;
using Poco::JSON::Object;

namespace {

Object::Ptr bucket(const TokenBucket& tokens) {
    Object::Ptr object = json::object();
    object->set("size", Poco::UInt64{tokens.size});
    if (tokens.oneTimeBurst > 0) object->set("one_time_burst", Poco::UInt64{tokens.oneTimeBurst});
    object->set("refill_time", Poco::Int64{tokens.refillTime.count()});
    return object;
}

void setLimiter(Object::Ptr object, const std::string& name, const RateLimiter& limit) {
    if (limit.bandwidth || limit.operations) object->set(name, rateLimiter(limit));
}

}  // namespace

Object::Ptr rateLimiter(const RateLimiter& limit) {
    Object::Ptr object = json::object();
    if (limit.bandwidth) object->set("bandwidth", bucket(*limit.bandwidth));
    if (limit.operations) object->set("ops", bucket(*limit.operations));
    return object;
}

Object::Ptr balloon(const BalloonSpec& balloon) {
    Object::Ptr object = json::object();
    object->set("amount_mib", Poco::UInt64{balloon.amount.count});
    object->set("deflate_on_oom", balloon.deflateOnOom);
    object->set("stats_polling_interval_s", Poco::Int64{balloon.statsInterval.count()});
    return object;
}

Object::Ptr entropy(const EntropySpec& entropy) {
    Object::Ptr object = json::object();
    setLimiter(object, "rate_limiter", entropy.limit);
    return object;
}

Object::Ptr mmdsConfig(const GuestSpec& guest) {
    Array::Ptr interfaces = new Array;
    if (!guest.nics.empty()) interfaces->add(guest.nics.front().id);
    Object::Ptr object = json::object();
    object->set("version", std::string("V2"));
    object->set("network_interfaces", interfaces);
    object->set("ipv4_address", guest.mmds->address.str());
    if (guest.mmds->imdsCompatible) object->set("imds_compat", true);
    return object;
}

DevicePaths devicePaths(const std::filesystem::path& runDirectory) {
    return {.vsock = runDirectory / "vsock.sock", .metrics = runDirectory / "metrics.fifo"};
}

Object::Ptr vsock(const VsockSpec& vsock, const DevicePaths& paths) {
    Object::Ptr object = json::object();
    object->set("guest_cid", vsock.cid);
    object->set("uds_path", paths.vsock.string());
    return object;
}

Object::Ptr metrics(const DevicePaths& paths) {
    Object::Ptr object = json::object();
    object->set("metrics_path", paths.metrics.string());
    return object;
}

Object::Ptr machineConfig(const GuestSpec& guest) {
    Object::Ptr machine = json::object();
    machine->set("vcpu_count", guest.vcpus);
    machine->set("mem_size_mib", guest.memory.count);
    machine->set("smt", guest.smt);
    if (!guest.cpuTemplate.empty()) machine->set("cpu_template", guest.cpuTemplate);
    if (guest.hugePages == HugePages::TwoMiB) machine->set("huge_pages", std::string("2M"));
    return machine;
}

Object::Ptr bootSource(const GuestSpec& guest) {
    Object::Ptr boot = json::object();
    boot->set("kernel_image_path", guest.kernel.string());
    if (guest.initrd) boot->set("initrd_path", guest.initrd->string());
    boot->set("boot_args", guest.bootArguments);
    return boot;
}

Object::Ptr drive(const DiskSpec& disk) {
    Object::Ptr drive = json::object();
    drive->set("drive_id", disk.id);
    drive->set("path_on_host", disk.file.string());
    drive->set("is_root_device", disk.root);
    drive->set("is_read_only", disk.readOnly);
    if (!disk.readOnly && disk.cache == DiskCache::Writeback) drive->set("cache_type", "Writeback");
    if (disk.engine == IoEngine::Async) drive->set("io_engine", std::string("Async"));
    setLimiter(drive, "rate_limiter", disk.limit);
    return drive;
}

Object::Ptr networkInterface(const NicSpec& nic) {
    Object::Ptr interface = json::object();
    interface->set("iface_id", nic.id);
    interface->set("guest_mac", nic.mac.str());
    interface->set("host_dev_name", nic.tap.str());
    if (nic.mtu != 0 && nic.mtu != usualMtu) interface->set("mtu", nic.mtu);
    setLimiter(interface, "rx_rate_limiter", nic.receive);
    setLimiter(interface, "tx_rate_limiter", nic.transmit);
    return interface;
}

Object::Ptr configuration(const GuestSpec& guest, const DevicePaths& paths) {
    Array::Ptr drives = new Array;
    for (const DiskSpec& disk : rootFirst(guest.disks)) drives->add(drive(disk));
    Array::Ptr interfaces = new Array;
    for (const NicSpec& nic : guest.nics) interfaces->add(networkInterface(nic));
    Object::Ptr whole = json::object();
    whole->set("boot-source", bootSource(guest));
    whole->set("drives", drives);
    whole->set("machine-config", machineConfig(guest));
    whole->set("network-interfaces", interfaces);
    if (guest.vsock) whole->set("vsock", vsock(*guest.vsock, paths));
    if (guest.balloon) whole->set("balloon", balloon(*guest.balloon));
    if (guest.entropy) whole->set("entropy", entropy(*guest.entropy));
    if (guest.mmds && !guest.nics.empty()) whole->set("mmds-config", mmdsConfig(guest));
    if (guest.metrics) whole->set("metrics", metrics(paths));
    return whole;
}

}  // namespace firecracker

}  // namespace mergen
