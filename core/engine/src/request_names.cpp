#include "request_names.hpp"

#include <algorithm>
#include <charconv>
#include <map>
#include <string_view>

#include <mergen/engine/guest_document.hpp>

namespace mergen::engine {

namespace {

const std::map<std::string, std::string, std::less<>>& plainNames() {
    static const std::map<std::string, std::string, std::less<>> names{
        {"vcpus", "vcpu"},
        {"memory", "memMiB"},
        {"bootArguments", "bootArgs"},
        {"smt", "machineConfig.smt"},
        {"hugePages", "machineConfig.hugePages"},
        {"cpuTemplate", "machineConfig.cpuTemplate"},
        {"vsock.cid", "vsock.guestCid"},
        {"balloon.amount", "balloon.amountMib"},
        {"balloon.statsInterval", "balloon.statsPollingIntervalS"},
        {"entropy.limit", "entropy.rateLimiter"},
        {"mmds.address", "mmds.ipv4Address"},
        {"mmds.imdsCompatible", "mmds.imdsCompat"},
        {"mmds.content", "mmds.data"},
    };
    return names;
}

/// Of a disk or a network card.
std::string partName(std::string_view part) {
    static const std::map<std::string, std::string, std::less<>> names{
        {".id", ".driveId"},
        {".file", ".pathOnHost"},
        {".readOnly", ".isReadOnly"},
        {".cache", ".cacheType"},
        {".engine", ".ioEngine"},
        {".limit", ".rateLimiter"},
        {".receive", ".rxRateLimiter"},
        {".transmit", ".txRateLimiter"},
    };
    const auto name = names.find(part);
    return name == names.end() ? std::string(part) : name->second;
}

/// "disks[1].limit" with "disks": 1 and ".limit".
struct Element {
    std::size_t index = 0;
    std::string part;
};
std::optional<Element> elementOf(std::string_view field, std::string_view list) {
    if (!field.starts_with(list) || field.size() <= list.size() || field[list.size()] != '[') return std::nullopt;
    field.remove_prefix(list.size() + 1);
    Element element;
    const auto [end, error] = std::from_chars(field.data(), field.data() + field.size(), element.index);
    if (error != std::errc() || end == field.data() + field.size() || *end != ']') return std::nullopt;
    element.part = std::string(end + 1, field.data() + field.size());
    return element;
}

std::string driveField(const Element& element, const VmRecord& record) {
    std::vector<std::string> ids{rootDriveId};  // as guestSpec() puts them
    for (const GivenDisk& disk : givenDisks(record.dataDisk, record.drives)) ids.push_back(disk.id);
    if (element.index >= ids.size()) return "drives";
    const std::string& id = ids[element.index];
    const auto asked = std::ranges::find(record.drives, id, &DriveRequest::id);
    if (asked == record.drives.end()) return id == rootDriveId ? "rootfs" : "dataDisk";
    return "drives[" + std::to_string(asked - record.drives.begin()) + "]" + partName(element.part);
}

std::string requestMember(const std::string& field, const VmRecord& record) {
    if (const auto name = plainNames().find(field); name != plainNames().end()) return name->second;
    if (const auto disk = elementOf(field, "disks")) return driveField(*disk, record);
    if (const auto nic = elementOf(field, "nics")) {
        if (nic->part == ".mtu") return "networkInterfaces";  // a setting's, of all cards
        const std::string part = nic->part == ".id" ? ".ifaceId" : partName(nic->part);
        return "networkInterfaces[" + std::to_string(nic->index) + "]" + part;
    }
    if (field == "disks") return "drives";
    return field == "nics" ? "networkInterfaces" : field;
}

}  // namespace

Error inRequestWords(const Error& error, const VmRecord& record) {
    return error.field().empty() ? error : error.about(requestMember(error.field(), record));
}

}  // namespace mergen::engine
