#include "documents.hpp"

#include <algorithm>
#include <charconv>
#include <set>
#include <sstream>

#include <mergen/base/guest.hpp>
#include <mergen/base/json.hpp>
#include <mergen/base/text.hpp>
#include <mergen/engine/guest_document.hpp>
#include <mergen/sdk/error.hpp>

namespace mergen::engine {

namespace {

using Poco::JSON::Array;
using Poco::JSON::Object;

/// Of meta.json. A server refuses a newer one rather than drop what it does not know.
constexpr std::int64_t metaFormat = 1;
constexpr std::string_view defaultBootArguments = "console=ttyS0 reboot=k panic=1 pci=off";
constexpr std::size_t longText = 64U << 10U;
constexpr std::int64_t maxRestartsLimit = 1'000'000;
/// In `env`; the card's number follows.
const std::string furtherAddressKey = "MGN_GUEST_IP_";

Object::Ptr stringMap(const std::map<std::string, std::string>& map) {
    Object::Ptr object = json::object();
    for (const auto& [key, value] : map) object->set(key, value);
    return object;
}

Array::Ptr portArray(const std::vector<PortBinding>& ports) {
    Array::Ptr array = new Array;
    for (const PortBinding& port : ports) {
        Object::Ptr entry = json::object();
        entry->set("guest", static_cast<int>(port.guest));
        entry->set("host", static_cast<int>(port.host));
        entry->set("protocol", std::string(toString(port.protocol)));
        array->add(entry);
    }
    return array;
}

Object::Ptr pathsObject(const VmPaths& paths) {
    Object::Ptr object = json::object();
    object->set("configDir", paths.configDir.string());
    object->set("vmConfigPath", paths.vmConfig.string());
    object->set("metaPath", paths.meta.string());
    object->set("hooksPath", paths.hooks.string());
    object->set("envPath", paths.env.string());
    object->set("runDir", paths.runDir.string());
    object->set("socketPath", paths.socket.string());
    object->set("lockPath", paths.lock.string());
    object->set("dataDir", paths.dataDir.string());
    object->set("logsDir", paths.logsDir.string());
    return object;
}

Object::Ptr endObject(const VmEnd& end) {
    Object::Ptr object = json::object();
    object->set("by", std::string(toString(end.by)));
    if (end.exit) object->set(end.exit->signalled ? "signal" : "status", end.exit->code);
    object->set("operation", end.operation);
    object->set("at", rfc3339(end.at));
    object->set("detail", end.detail);
    return object;
}

Array::Ptr furtherArray(const std::vector<FurtherNic>& further) {
    Array::Ptr array = new Array;
    for (std::size_t i = 0; i < further.size(); ++i) {
        Object::Ptr entry = json::object();
        entry->set("ifaceId", "eth" + std::to_string(i + 1));
        entry->set("guestIP", further[i].guest.str());
        entry->set("mac", further[i].mac.str());
        entry->set("tapName", further[i].tap.str());
        array->add(entry);
    }
    return array;
}

std::string renderMeta(const EngineConfig& config, const VmRecord& vm) {
    Object::Ptr meta = json::object();
    meta->set("format", metaFormat);
    meta->set("id", vm.id.str());
    meta->set("uuid", vm.uuid.str());
    meta->set("name", vm.name);
    meta->set("createdAt", rfc3339(vm.createdAt));
    meta->set("state", std::string(toString(vm.state)));
    meta->set("failure", vm.failure);
    if (!vm.operation.empty()) {
        Object::Ptr operation = json::object();
        operation->set("name", vm.operation);
        operation->set("id", vm.operationId);
        operation->set("since", rfc3339(vm.operationSince));
        meta->set("operation", operation);
    }
    meta->set("vmm", vm.vmm);
    meta->set("rootfs", vm.rootfs.string());
    meta->set("kernel", vm.kernel.string());
    if (vm.initrd) meta->set("initrd", vm.initrd->string());
    if (vm.dataDisk) meta->set("dataDisk", vm.dataDisk->string());
    if (!vm.diskOwners.empty()) {
        Object::Ptr owners = json::object();
        for (const auto& [drive, disk] : vm.diskOwners) {
            Object::Ptr owner = json::object();
            owner->set("uid", disk.uid);
            owner->set("gid", disk.gid);
            owner->set("mode", disk.mode);
            owner->set("inode", std::to_string(disk.inode));  // may need all 64 bits, which a JSON number has not
            owners->set(drive, owner);
        }
        meta->set("diskOwners", owners);
    }
    meta->set("vcpu", vm.vcpus);
    meta->set("memMiB", vm.memory.count);
    if (!vm.drives.empty()) meta->set("drives", drivesDocument(vm.drives));
    if (!vm.nics.empty()) meta->set("networkInterfaces", nicsDocument(vm.nics));
    meta->set("machineConfig", machineDocument(vm.options));
    if (vm.options.vsock) meta->set("vsock", vsockDocument(*vm.options.vsock));
    if (vm.options.balloon) meta->set("balloon", balloonDocument(*vm.options.balloon));
    if (vm.options.entropy) meta->set("entropy", entropyDocument(*vm.options.entropy));
    if (vm.options.mmds) meta->set("mmds", mmdsDocument(*vm.options.mmds, /*content=*/true));
    meta->set("metrics", vm.options.metrics);
    meta->set("ports", portArray(vm.ports));
    meta->set("httpPort", static_cast<int>(vm.httpPort));
    meta->set("autoStart", vm.autoStart);
    meta->set("restartPolicy", std::string(toString(vm.restartPolicy)));
    meta->set("maxRestarts", vm.maxRestarts);
    meta->set("onUnresponsive", std::string(toString(vm.onUnresponsive)));
    if (vm.bootArguments) meta->set("bootArgs", *vm.bootArguments);
    meta->set("extraEnv", stringMap(vm.extraEnv));
    meta->set("network", vm.network.str());
    meta->set("guestIP", vm.guest.str());
    meta->set("mac", vm.mac.str());
    meta->set("tapName", vm.tap);
    meta->set("netns", vm.netns);
    if (!vm.further.empty()) meta->set("furtherInterfaces", furtherArray(vm.further));
    meta->set("uid", vm.credentials.uid);
    meta->set("gid", vm.credentials.gid);
    meta->set("bootId", vm.bootId);
    if (vm.lastExit) {
        Object::Ptr exit = json::object();
        exit->set("signalled", vm.lastExit->signalled);
        exit->set("code", vm.lastExit->code);
        exit->set("at", rfc3339(vm.lastExit->at));
        meta->set("lastExit", exit);
    }
    if (vm.lastEnd) meta->set("lastEnd", endObject(*vm.lastEnd));
    meta->set("restarts", vm.restarts);
    if (vm.restartsWithdrawn) meta->set("restartsWithdrawn", true);
    meta->set("metadata", vm.metadata.empty() ? json::object() : json::parseObject(vm.metadata));
    meta->set("tags", stringMap(vm.tags));
    meta->set("paths", pathsObject(pathsOf(config, vm.id, vm.uuid)));
    if (!vm.hooks.empty()) meta->set("hooks", json::parseObject(vm.hooks));
    return json::render(*meta, 2);
}

/// For `EnvironmentFile=` of systemd and for a POSIX shell: in single quotes nothing has a meaning but the quote.
std::string inSingleQuotes(std::string_view value) {
    std::string text = "'";
    for (const char c : value) {
        if (c == '\'') {
            text += "'\\''";
        } else {
            text += c;
        }
    }
    return text + "'";
}

std::string renderEnv(const EngineConfig& config, const VmRecord& vm) {
    const VmPaths paths = pathsOf(config, vm.id, vm.uuid);
    std::map<std::string, std::string> env = vm.extraEnv;  // its keys are never MGN_*: the API refuses those (W8)
    env["MGN_VM_ID"] = vm.id.str();
    env["MGN_CONFIG_DIR"] = paths.configDir.string();
    env["MGN_VM_JSON"] = paths.vmConfig.string();
    env["MGN_META_JSON"] = paths.meta.string();
    env["MGN_HOOKS_JSON"] = paths.hooks.string();
    env["MGN_RUN_DIR"] = paths.runDir.string();
    env["MGN_SOCKET_PATH"] = paths.socket.string();
    env["MGN_TAP_NAME"] = vm.tap;
    env["MGN_NETNS"] = vm.netns;
    env["MGN_GUEST_IP"] = vm.guest.str();
    for (std::size_t i = 0; i < vm.further.size(); ++i) {
        const std::string number = std::to_string(i + 1);
        env["MGN_TAP_NAME_" + number] = vm.further[i].tap.str();
        env[furtherAddressKey + number] = vm.further[i].guest.str();
    }
    env["MGN_DATA_DIR"] = paths.dataDir.string();
    env["MGN_LOG_DIR"] = paths.logsDir.string();
    if (vm.httpPort > 0) env["MGN_HTTP_PORT"] = std::to_string(vm.httpPort);
    for (const PortBinding& port : vm.ports) {
        env["MGN_PUBLISH_" + std::to_string(port.guest)] =
            std::to_string(port.host) + "/" + std::string(toString(port.protocol));
    }
    std::string text;
    for (const auto& [key, value] : env) text += key + "=" + inSingleQuotes(value) + "\n";
    return text;
}

}  // namespace

namespace {

VmEnd readEnd(json::Reader& reader) {
    VmEnd end;
    const std::string by = reader.requiredString("by", 20);
    const auto known = parseEndedBy(by);
    if (!known) throw Error(ErrorKind::InvalidArgument, reader.pathOf("by") + ": '" + printable(by) + "' is not known");
    end.by = *known;
    end.operation = reader.string("operation", 40).value_or("");
    end.at = parseRfc3339(reader.requiredString("at", 40));
    end.detail = reader.string("detail", longText).value_or("");
    if (const auto signal = reader.integer("signal", 0, 255)) {
        end.exit = ExitStatus{true, static_cast<int>(*signal), end.at};
    } else if (const auto status = reader.integer("status", 0, 255)) {
        end.exit = ExitStatus{false, static_cast<int>(*status), end.at};
    }
    return end;
}

/// `furtherInterfaces`, one entry for each card that was asked for beside the first. Old records have none.
std::vector<FurtherNic> readFurther(json::Reader& meta, const VmRecord& vm) {
    std::vector<FurtherNic> further;
    std::set<Ipv4Address> addresses{vm.guest};
    meta.objects("furtherInterfaces", maxNics, [&](json::Reader& entry) {
        const FurtherNic nic{.tap = IfName::parse(entry.requiredString("tapName", 15)),
                             .mac = MacAddress::parse(entry.requiredString("mac", 17)),
                             .guest = Ipv4Address::parse(entry.requiredString("guestIP", 15))};
        if (!vm.network.contains(nic.guest)) {
            throw Error(ErrorKind::InvalidArgument,
                        entry.pathOf("guestIP") + ": " + nic.guest.str() + " is not in " + vm.network.str());
        }
        if (!addresses.insert(nic.guest).second) {
            throw Error(ErrorKind::InvalidArgument,
                        entry.pathOf("guestIP") + ": " + nic.guest.str() + " is that of two network cards");
        }
        static_cast<void>(entry.string("ifaceId", 32));  // its place says it
        further.push_back(nic);
    });
    if (further.size() + 1 != cardsAskedFor(vm)) {
        throw Error(ErrorKind::InvalidArgument, "furtherInterfaces: " + std::to_string(further.size()) +
                                                    " do not fit the " + std::to_string(cardsAskedFor(vm)) +
                                                    " network cards of networkInterfaces");
    }
    return further;
}

/// The number in an `env` key of a further card's address; nothing if it is another key.
std::optional<std::size_t> furtherNumberIn(std::string_view key) {
    if (!key.starts_with(furtherAddressKey)) return std::nullopt;
    key.remove_prefix(furtherAddressKey.size());
    std::size_t number = 0;
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), number);
    if (error != std::errc() || end != key.data() + key.size() || number == 0 || number >= maxNics) return std::nullopt;
    return number;
}

}  // namespace

std::size_t cardsAskedFor(const VmRecord& record) noexcept {
    return std::max<std::size_t>(record.nics.size(), 1);
}

FurtherNic furtherNic(const Uuid& vm, std::size_t number, Ipv4Address guest) {
    return {.tap = IfName::parse("tap" + std::to_string(number) + "-" + vm.short8()),
            .mac = MacAddress::of(vm, static_cast<std::uint8_t>(number)),
            .guest = guest};
}

std::optional<Uuid> uuidOf(const RecordId& id) noexcept {
    try {
        return Uuid::parse(id.str());
    } catch (const Error&) {
        return std::nullopt;
    }
}

void salvage(const Record& documents, VmRecord& record) {
    const auto env = documents.documents.find("env");
    if (env == documents.documents.end()) return;
    constexpr std::string_view publish = "MGN_PUBLISH_";
    for (const std::string& line : split(env->second, '\n')) {
        const std::size_t equals = line.find("='");
        if (equals == std::string::npos || !line.ends_with('\'') || line.size() < equals + 3) continue;
        const std::string name = line.substr(0, equals);
        const std::string value = line.substr(equals + 2, line.size() - equals - 3);
        try {
            if (name == "MGN_GUEST_IP") record.guest = Ipv4Address::parse(value);
            if (const auto number = furtherNumberIn(name))
                record.further.push_back(furtherNic(record.uuid, *number, Ipv4Address::parse(value)));
        } catch (const Error&) {
            continue;  // as damaged as the rest
        }
        if (!name.starts_with(publish)) continue;
        const std::size_t slash = value.find('/');
        unsigned host = 0;
        const auto parsed = std::from_chars(value.data(), value.data() + std::min(slash, value.size()), host);
        if (slash == std::string::npos || parsed.ec != std::errc() || host < 1 || host > 65535) continue;
        const Protocol protocol = value.substr(slash) == "/udp" ? Protocol::Udp : Protocol::Tcp;
        record.ports.push_back(PortBinding{static_cast<std::uint16_t>(host), protocol, 0});
    }
}

VmPaths pathsOf(const EngineConfig& config, const RecordId& id, const Uuid& uuid) {
    VmPaths paths;
    paths.configDir = config.configRoot / id.str();
    paths.vmConfig = paths.configDir / "vm.json";
    paths.meta = paths.configDir / "meta.json";
    paths.hooks = paths.configDir / "hooks.json";
    paths.env = paths.configDir / "env";
    // By the internal identity: a chosen id may be 63 letters long, and a socket's path ends at 107 bytes (unix(7)).
    paths.runDir = config.runRoot / uuid.str();
    paths.socket = paths.runDir / "mergen.socket";
    paths.lock = config.runRoot / (id.str() + ".lock");
    paths.dataDir = config.dataRoot / id.str();
    paths.logsDir = paths.dataDir / "logs";
    return paths;
}

Ipv4Address gatewayOf(const VmRecord& record) {
    return record.network.host(1);
}

std::string bootArguments(const EngineConfig& config, const VmRecord& record) {
    std::istringstream words(record.bootArguments.value_or(std::string(defaultBootArguments)));
    std::string line;
    std::set<std::string> given;  // what stands before the first '='
    for (std::string word; words >> word;) {
        if (const std::size_t equals = word.find('='); equals != std::string::npos)
            given.insert(word.substr(0, equals));
        line += (line.empty() ? "" : " ") + word;
    }
    const auto add = [&](const std::string& name, const std::string& value) {
        if (!given.contains(name)) line += (line.empty() ? "" : " ") + name + "=" + value;
    };
    std::string first =
        record.guest.str() + "::" + gatewayOf(record).str() + ":" + record.network.netmask().str() + "::eth0:off";
    for (const Ipv4Address& server : config.guestSettings.dns) first += ":" + server.str();
    add("ip", first);
    for (std::size_t i = 0; i < record.further.size(); ++i) {
        add("mergen.ip" + std::to_string(i + 1),
            record.further[i].guest.str() + "/" + std::to_string(record.network.prefix()));
    }
    return line;
}

NetworkSpec networkSpec(const EngineConfig& config, const VmRecord& record) {
    return NetworkSpec{.owner = OwnerTag{config.instance, record.uuid},
                       .netns = record.netns,
                       .tap = IfName::parse(record.tap),
                       .mac = record.mac,
                       .guest = record.guest,
                       .gateway = gatewayOf(record),
                       .network = record.network,
                       .tapOwner = record.credentials.uid,
                       .ports = record.ports,
                       .further = record.further};
}

namespace {

/// All network cards in their order, with what was asked of them.
std::vector<NicSpec> nicsOf(const EngineConfig& config, const VmRecord& record) {
    std::vector<NicSpec> nics;
    const auto add = [&](const IfName& tap, const MacAddress& mac) {
        const std::size_t number = nics.size();
        const NicRequest asked = number < record.nics.size() ? record.nics[number] : NicRequest{};
        nics.push_back(NicSpec{.id = "eth" + std::to_string(number),
                               .tap = tap,
                               .mac = mac,
                               .mtu = config.guestSettings.mtu,
                               .receive = asked.receive,
                               .transmit = asked.transmit});
    };
    add(IfName::parse(record.tap), record.mac);
    for (const FurtherNic& nic : record.further) add(nic.tap, nic.mac);
    return nics;
}

std::uint64_t inodeOf(json::Reader& owner) {
    const std::string text = owner.string("inode", 20).value_or("0");
    std::uint64_t inode = 0;
    const auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), inode);
    if (failure != std::errc() || end != text.data() + text.size())
        throw Error(ErrorKind::InvalidArgument, owner.pathOf("inode") + ": '" + printable(text) + "' is no number");
    return inode;
}

DiskOwner diskOwnerOf(const Object& object, const std::string& name) {
    json::Reader reader(object, name);
    return DiskOwner{static_cast<std::uint32_t>(reader.requiredInteger("uid", 0, 0xfffffffe)),
                     static_cast<std::uint32_t>(reader.requiredInteger("gid", 0, 0xfffffffe)),
                     static_cast<std::uint32_t>(reader.requiredInteger("mode", 0, 07777)), inodeOf(reader)};
}

/// The disk of that id, with what was asked of it.
DiskSpec diskOf(const VmRecord& record, const std::string& id, const std::filesystem::path& file) {
    DiskSpec disk{.id = id, .file = file};
    const auto asked = std::ranges::find(record.drives, id, &DriveRequest::id);
    if (asked == record.drives.end()) return disk;
    disk.readOnly = asked->readOnly;
    disk.cache = asked->cache;
    disk.engine = asked->engine;
    disk.limit = asked->limit;
    return disk;
}

}  // namespace

std::vector<GivenDisk> givenDisks(const std::optional<std::filesystem::path>& dataDisk,
                                  const std::vector<DriveRequest>& drives) {
    std::vector<GivenDisk> disks;
    if (dataDisk) disks.push_back({dataDriveId, *dataDisk, "dataDisk", true});
    for (std::size_t i = 0; i < drives.size(); ++i) {
        const DriveRequest& drive = drives[i];
        if (drive.id == rootDriveId || drive.id == dataDriveId) continue;
        disks.push_back({drive.id, drive.path, "drives[" + std::to_string(i) + "].pathOnHost", !drive.readOnly});
    }
    return disks;
}

std::filesystem::path driveCopy(const VmPaths& paths, const std::string& id) {
    return paths.dataDir / drivesFolder / id;
}

GuestSpec guestSpec(const EngineConfig& config, const VmRecord& record, bool tap) {
    const VmPaths paths = pathsOf(config, record.id, record.uuid);
    GuestSpec guest;
    guest.vcpus = record.vcpus;
    guest.memory = record.memory;
    guest.kernel = paths.dataDir / "kernel";
    if (record.initrd) guest.initrd = paths.dataDir / "initrd";
    guest.bootArguments = bootArguments(config, record);
    guest.smt = record.options.smt;
    guest.hugePages = record.options.hugePages;
    guest.cpuTemplate = record.options.cpuTemplate;
    guest.disks.push_back(diskOf(record, rootDriveId, paths.dataDir / "rootfs.ext4"));
    guest.disks.back().root = true;
    for (const GivenDisk& disk : givenDisks(record.dataDisk, record.drives))
        guest.disks.push_back(diskOf(record, disk.id, disk.borrowed ? disk.path : driveCopy(paths, disk.id)));
    if (tap) guest.nics = nicsOf(config, record);
    guest.vsock = record.options.vsock;
    guest.balloon = record.options.balloon;
    guest.entropy = record.options.entropy;
    guest.mmds = record.options.mmds;
    guest.metrics = record.options.metrics;
    return guest;
}

VmmPlace vmmPlace(const EngineConfig& config, const VmRecord& record) {
    const VmPaths paths = pathsOf(config, record.id, record.uuid);
    return VmmPlace{OwnerTag{config.instance, record.uuid}, paths.runDir, paths.socket, record.credentials};
}

std::string vmConfigDocument(const EngineConfig& config, const VmRecord& record, bool tap) {
    return json::render(
        *firecracker::configuration(guestSpec(config, record, tap),
                                    firecracker::devicePaths(pathsOf(config, record.id, record.uuid).runDir)),
        2);
}

Record toDocuments(const EngineConfig& config, const VmRecord& record) {
    Record documents{record.id, {}};
    documents.documents["meta.json"] = renderMeta(config, record);
    documents.documents["vm.json"] = vmConfigDocument(config, record, /*tap=*/true);
    documents.documents["env"] = renderEnv(config, record);
    if (!record.hooks.empty()) documents.documents["hooks.json"] = json::render(*json::parseObject(record.hooks), 2);
    return documents;
}

VmRecord fromDocuments(const Record& documents) {
    const auto text = documents.documents.find("meta.json");
    if (text == documents.documents.end()) throw Error(ErrorKind::InvalidArgument, "there is no meta.json");
    const Object::Ptr object = json::parseObject(text->second);
    json::Reader meta(*object, "");
    if (const auto format = meta.requiredInteger("format", 1, 1'000'000); format > metaFormat) {
        throw Error(ErrorKind::InvalidArgument, "meta.json has format " + std::to_string(format) +
                                                    ", written by a newer Mergen; this one reads up to " +
                                                    std::to_string(metaFormat));
    }
    VmRecord vm(RecordId::parse(meta.requiredString("id", 63)), Uuid::parse(meta.requiredString("uuid", 36)));
    vm.name = meta.string("name", 63).value_or("");
    if (vm.id != documents.id) {
        throw Error(ErrorKind::InvalidArgument, "meta.json is that of '" + vm.id.str() + "'");
    }
    vm.createdAt = parseRfc3339(meta.requiredString("createdAt", 40));
    const std::string state = meta.requiredString("state", 20);
    const auto known = parseVmState(state);
    if (!known || *known == VmState::Corrupt) {
        throw Error(ErrorKind::InvalidArgument, "state: '" + printable(state) + "' is not known");
    }
    vm.state = *known;
    vm.failure = meta.string("failure", longText).value_or("");
    if (const auto operation = meta.object("operation")) {
        json::Reader reader(*operation, "operation");
        vm.operation = reader.requiredString("name", 40);
        vm.operationId = reader.requiredString("id", 40);
        vm.operationSince = parseRfc3339(reader.requiredString("since", 40));
    }
    vm.vmm = meta.requiredString("vmm", 64);
    vm.rootfs = meta.requiredString("rootfs", 4096);
    vm.kernel = meta.requiredString("kernel", 4096);
    if (auto initrd = meta.string("initrd", 4096)) vm.initrd = *initrd;
    if (auto disk = meta.string("dataDisk", 4096)) vm.dataDisk = *disk;
    if (const auto owner = meta.object("dataDiskOwner"))  // of a server that knew one such disk
        vm.diskOwners[dataDriveId] = diskOwnerOf(*owner, "dataDiskOwner");
    if (const auto owners = meta.object("diskOwners")) {
        for (const std::string& drive : owners->getNames()) {
            const Object::Ptr owner = owners->getObject(drive);
            if (owner.isNull()) throw Error(ErrorKind::InvalidArgument, "diskOwners." + drive + " is no object");
            vm.diskOwners[drive] = diskOwnerOf(*owner, "diskOwners." + drive);
        }
    }
    vm.vcpus = static_cast<unsigned>(meta.requiredInteger("vcpu", 1, 1024));
    vm.memory = MiB{static_cast<std::uint64_t>(meta.requiredInteger("memMiB", 1, 1 << 30))};
    vm.drives = readDrives(meta);
    vm.nics = readNics(meta);
    if (const auto machine = meta.object("machineConfig")) {
        json::Reader reader(*machine, "machineConfig");
        readMachine(reader, vm.options);
    }
    readDevices(meta, vm.options);
    meta.objects("ports", 65536, [&](json::Reader& port) {
        PortBinding binding;
        binding.guest = static_cast<std::uint16_t>(port.requiredInteger("guest", 1, 65535));
        binding.host = static_cast<std::uint16_t>(port.requiredInteger("host", 1, 65535));
        const std::string protocol = port.requiredString("protocol", 3);
        if (protocol != "tcp" && protocol != "udp") {
            throw Error(ErrorKind::InvalidArgument, port.pathOf("protocol") + ": neither tcp nor udp");
        }
        binding.protocol = protocol == "tcp" ? Protocol::Tcp : Protocol::Udp;
        vm.ports.push_back(binding);
    });
    std::ranges::sort(vm.ports);
    vm.httpPort = static_cast<std::uint16_t>(meta.integer("httpPort", 0, 65535).value_or(0));
    vm.autoStart = meta.boolean("autoStart").value_or(false);
    const std::string policy = meta.string("restartPolicy", 20).value_or("no");
    const auto knownPolicy = parseRestartPolicy(policy);
    if (!knownPolicy) {
        throw Error(ErrorKind::InvalidArgument, "restartPolicy: '" + printable(policy) + "' is not known");
    }
    vm.restartPolicy = *knownPolicy;
    vm.maxRestarts = static_cast<unsigned>(meta.integer("maxRestarts", 0, maxRestartsLimit).value_or(0));
    const std::string answer = meta.string("onUnresponsive", 20).value_or("none");
    const auto knownAnswer = parseOnUnresponsive(answer);
    if (!knownAnswer) {
        throw Error(ErrorKind::InvalidArgument, "onUnresponsive: '" + printable(answer) + "' is not known");
    }
    vm.onUnresponsive = *knownAnswer;
    vm.bootArguments = meta.string("bootArgs", longText);
    vm.extraEnv = meta.stringMap("extraEnv", 1000, longText);
    vm.tags = meta.stringMap("tags", 1000, longText);
    vm.network = Ipv4Network::parse(meta.requiredString("network", 18));
    vm.guest = Ipv4Address::parse(meta.requiredString("guestIP", 15));
    if (!vm.network.contains(vm.guest)) {
        throw Error(ErrorKind::InvalidArgument, "guestIP: " + vm.guest.str() + " is not in " + vm.network.str());
    }
    vm.mac = MacAddress::parse(meta.requiredString("mac", 17));
    vm.tap = IfName::parse(meta.requiredString("tapName", 15)).str();
    vm.netns = IfName::parse(meta.requiredString("netns", 15)).str();
    vm.further = readFurther(meta, vm);
    vm.credentials.uid = static_cast<std::uint32_t>(meta.requiredInteger("uid", 0, 0xfffffffe));
    vm.credentials.gid = static_cast<std::uint32_t>(meta.requiredInteger("gid", 0, 0xfffffffe));
    vm.bootId = meta.string("bootId", 64).value_or("");
    if (const auto exit = meta.object("lastExit")) {
        json::Reader reader(*exit, "lastExit");
        ExitStatus status;
        status.signalled = reader.boolean("signalled").value_or(false);
        status.code = static_cast<int>(reader.requiredInteger("code", 0, 255));
        status.at = parseRfc3339(reader.requiredString("at", 40));
        vm.lastExit = status;
    }
    if (const auto end = meta.object("lastEnd")) {
        json::Reader reader(*end, "lastEnd");
        vm.lastEnd = readEnd(reader);
    }
    vm.restarts = static_cast<unsigned>(meta.integer("restarts", 0, 0xffffffff).value_or(0));
    vm.restartsWithdrawn = meta.boolean("restartsWithdrawn").value_or(false);
    if (const auto metadata = meta.object("metadata"); metadata && metadata->size() > 0) {
        vm.metadata = json::render(*metadata);
    }
    if (const auto hooks = meta.object("hooks")) vm.hooks = json::render(*hooks);
    return vm;
}

}  // namespace mergen::engine
