#include "machine.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <limits>
#include <stdexcept>
#include <string_view>
#include <sys/stat.h>
#include <unistd.h>
#include <utility>

#include "serde.hpp"
#include "tap.hpp"

namespace mergen::fake {
namespace {

constexpr std::size_t kernelArgumentLimit = 2048;
constexpr std::uint64_t maxVcpus = 32;
constexpr const char* defaultArguments =
    "reboot=k panic=1 nomodule 8250.nr_uarts=0 i8042.noaux i8042.nomux i8042.dumbkbd swiotlb=noforce";

/// A refusal as the API answers it.
class Fault : public std::runtime_error {
public:
    using std::runtime_error::runtime_error;
};

[[noreturn]] void fault(const std::string& text) {
    throw Fault(text);
}

[[noreturn]] void error(const std::string& text) {
    throw std::runtime_error(text);
}

/// Runs `action`; what it refuses gets "<prefix>: " in front.
void within(const std::string& prefix, const std::function<void()>& action) {
    try {
        action();
    } catch (const std::runtime_error& refusal) {
        throw Fault(prefix + ": " + refusal.what());
    }
}

/// The whole body, as `read` reads it.
template <typename Read>
auto parse(const std::string& body, Read read) {
    try {
        JsonReader reader(body);
        auto value = read(reader);
        reader.end();
        return value;
    } catch (const JsonFault& bad) {
        throw Fault(std::string("An error occurred when deserializing the json body of a request: ") + bad.what() +
                    ".");
    }
}

std::string checkedId(const std::vector<std::string>& path) {
    if (path.size() < 2 || path[1].empty()) fault("The ID cannot be empty.");
    for (const char c : path[1]) {
        if (c != '_' && std::isalnum(static_cast<unsigned char>(c)) == 0)
            fault("API Resource IDs can only contain alphanumeric characters and underscores.");
    }
    return path[1];
}

JsonField text(const char* name, bool required, std::string& target) {
    return {name, required, [&target](JsonReader& reader) { target = reader.string(); }};
}

JsonField optionalText(const char* name, std::optional<std::string>& target) {
    return {name, false, [&target](JsonReader& reader) {
                if (!reader.null()) target = reader.string();
            }};
}

JsonField flag(const char* name, bool required, bool& target) {
    return {name, required, [&target](JsonReader& reader) { target = reader.boolean(); }};
}

/// A device of the configuration file that need not be there.
template <typename Device>
JsonField optional(const char* name, std::optional<Device>& target) {
    return {name, false, [&target](JsonReader& reader) {
                if (!reader.null()) target = Device::read(reader);
            }};
}

std::string quotedOrNull(const std::optional<std::string>& value) {
    return value ? quoted(*value) : "null";
}

std::string boolText(bool value) {
    return value ? "true" : "false";
}

bool isMac(std::string_view mac) {
    if (mac.size() != 17) return false;
    for (std::size_t i = 0; i < mac.size(); ++i) {
        if (i % 3 == 2 ? mac[i] != ':' : std::isxdigit(static_cast<unsigned char>(mac[i])) == 0) return false;
    }
    return true;
}

/// Whether a file begins as a kernel does that Firecracker loads: ELF, or a bzImage.
bool isKernel(const std::string& path) {
    const UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    char head[0x210] = {};
    const ssize_t got = file ? ::pread(file.get(), head, sizeof(head), 0) : -1;
    if (got >= 4 && std::memcmp(head,
                                "\x7f"
                                "ELF",
                                4) == 0)
        return true;
    return got >= 0x206 && std::memcmp(head + 0x202, "HdrS", 4) == 0;
}

}  // namespace

std::string osError(int errnum) {
    return std::string(std::strerror(errnum)) + " (os error " + std::to_string(errnum) + ")";
}

Reply Machine::handle(const Request& request) {
    std::vector<std::string> path;
    for (std::size_t at = request.path.find_first_not_of('/'); at < request.path.size();) {
        const std::size_t end = std::min(request.path.find('/', at), request.path.size());
        path.push_back(request.path.substr(at, end - at));
        at = end + 1;
    }
    Reply reply;
    try {
        const std::string& method = request.method;
        if (method == "GET") {
            if (request.body) fault("GET request cannot have a body.");
            return get(path);
        }
        if (method == "DELETE") {
            if (request.body) fault("Empty Delete request.");
            remove(path);
        } else if (!request.body) {
            fault("Empty " + method + " request.");
        } else if (method == "PUT") {
            put(path, *request.body, reply);
        } else {
            patch(path, *request.body);
        }
    } catch (const Fault& refusal) {
        reply.status = 400;
        reply.body = "{\"fault_message\":" + quoted(refusal.what()) + "}";
    }
    return reply;
}

void Machine::refusePostBoot() const {
    if (state_ != State::NotStarted) fault("The requested operation is not supported after starting the microVM.");
}

void Machine::refusePreBoot() const {
    if (state_ == State::NotStarted) fault("The requested operation is not supported before starting the microVM.");
}

namespace {

/// Routes that Firecracker has and that nobody here asks: only when they may be used is played.
void refuseUnplayed(const std::string& method, const std::vector<std::string>& path,
                    const std::function<void()>& refusePreBoot, const std::function<void()>& refusePostBoot) {
    const std::string first = path.empty() ? "" : path[0];
    const std::string both = path.size() > 1 ? first + "/" + path[1] : first;
    constexpr std::string_view preBoot[] = {
        "PUT logger",  "PUT metrics",    "PUT serial",      "PUT vsock",          "PUT entropy",
        "PUT balloon", "PUT cpu-config", "PUT mmds/config", "PUT hotplug/memory", "PUT snapshot/load"};
    constexpr std::string_view postBoot[] = {
        "GET balloon/hinting", "PATCH balloon/hinting", "GET hotplug/memory", "PATCH hotplug/memory",
        "PATCH pmem",          "DELETE pmem",           "PUT snapshot/create"};
    const auto has = [&](const auto& list) {
        return std::any_of(std::begin(list), std::end(list), [&](std::string_view each) {
            return each == method + " " + first || each == method + " " + both;
        });
    };
    if (has(postBoot)) refusePreBoot();
    if (has(preBoot)) refusePostBoot();
    if (has(preBoot) || has(postBoot) || first == "balloon" || first == "mmds" || first == "pmem")
        fault("the fake Firecracker does not play " + method + " /" + both);
    fault("Invalid request method and/or path: " + method + " " + first + ".");
}

}  // namespace

Reply Machine::get(const std::vector<std::string>& path) {
    const std::string first = path.empty() ? "" : path[0];
    Reply reply{200, {}, false};
    if (first.empty()) {
        const char* state = state_ == State::NotStarted ? "Not started"
                            : state_ == State::Running  ? "Running"
                                                        : "Paused";
        reply.body = "{\"id\":" + quoted(id_) + ",\"state\":" + quoted(state) +
                     ",\"vmm_version\":" + quoted(misbehaviour_.version) + ",\"app_name\":\"Firecracker\"}";
    } else if (first == "version") {
        reply.body = "{\"firecracker_version\":" + quoted(misbehaviour_.version) + "}";
    } else if (first == "machine-config") {
        reply.body = machineJson();
    } else if (first == "vm" && path.size() > 1 && path[1] == "config") {
        reply.body = configJson();
    } else if (!getDevice(path, reply)) {
        refuseUnplayed(
            "GET", path, [this] { refusePreBoot(); }, [this] { refusePostBoot(); });
    }
    return reply;
}

void Machine::put(const std::vector<std::string>& path, const std::string& body, Reply& reply) {
    const std::string first = path.empty() ? "" : path[0];
    if (first == "actions") {
        std::string action;
        parse(body, [&](JsonReader& reader) {
            reader.object("ActionBody",
                          {{"action_type", true, [&](JsonReader& value) {
                                action = value.variant({"FlushMetrics", "InstanceStart", "SendCtrlAltDel"});
                            }}});
            return 0;
        });
        if (action == "InstanceStart") {
            refusePostBoot();
            within("Start microvm error", [this] { start(); });
        } else {
            refusePreBoot();
            if (action == "SendCtrlAltDel") pressCtrlAltDel();
            if (action == "FlushMetrics") metrics_.flush();
        }
    } else if (first == "machine-config") {
        const MachineConfig config = parse(body, readMachine);
        refusePostBoot();
        within("Machine config error", [&] { setMachine(config); });
        reply.deprecated = !config.cpuTemplate.empty();
    } else if (first == "boot-source") {
        const BootSource boot = parse(body, readBoot);
        refusePostBoot();
        within("Boot source error", [&] { setBoot(boot); });
    } else if (first == "drives") {
        const std::string id = checkedId(path);
        Drive drive = parse(body, readDrive);
        if (drive.id != id) fault("The id from the path does not match the id from the body!");
        if (state_ != State::NotStarted) fault("PCI is not enabled");
        within("Drive config error", [&] { setDrive(std::move(drive)); });
    } else if (first == "network-interfaces") {
        const std::string id = checkedId(path);
        Nic nic = parse(body, readNic);
        if (nic.id != id)
            fault("The id from the path [" + id + "] does not match the id from the body [" + nic.id + "]!");
        if (state_ != State::NotStarted) fault("PCI is not enabled");
        within("Network config error", [&] { setNic(std::move(nic)); });
    } else if (!putDevice(path, body, reply)) {
        if (first == "snapshot" && path.size() < 2) fault("Missing snapshot operation type.");
        if (first == "snapshot" && path[1] != "create" && path[1] != "load")
            fault("Invalid request method and/or path: PUT /snapshot/" + path[1] + ".");
        refuseUnplayed(
            "PUT", path, [this] { refusePreBoot(); }, [this] { refusePostBoot(); });
    }
}

void Machine::patch(const std::vector<std::string>& path, const std::string& body) {
    const std::string first = path.empty() ? "" : path[0];
    if (first == "vm") {
        std::string wanted;
        parse(body, [&](JsonReader& reader) {
            reader.object("Vm", {{"state", true, [&](JsonReader& value) {
                                      wanted = value.variant({"Paused", "Resumed"});
                                  }}});
            return 0;
        });
        refusePreBoot();
        state_ = wanted == "Paused" ? State::Paused : State::Running;
        if (state_ == State::Running && std::exchange(pressed_, false)) shutDown();
    } else if (first == "machine-config") {
        MachineConfig config = machine_;
        bool any = false;
        parse(body, [&](JsonReader& reader) {
            const auto given = [&any](const char* name, const std::function<void(JsonReader&)>& read) {
                return JsonField{name, false, [&any, read](JsonReader& value) {
                                     if (value.null()) return;
                                     any = true;
                                     read(value);
                                 }};
            };
            reader.object("MachineConfigUpdate",
                          {given("vcpu_count", [&](JsonReader& value) { config.vcpus = value.integer(255, "u8"); }),
                           given("mem_size_mib",
                                 [&](JsonReader& value) {
                                     config.memory = value.integer(std::numeric_limits<std::uint64_t>::max(), "usize");
                                 }),
                           given("smt", [&](JsonReader& value) { config.smt = value.boolean(); }),
                           given("cpu_template", [&](JsonReader& value) { config.cpuTemplate = value.string(); }),
                           given("track_dirty_pages", [&](JsonReader& value) { config.track = value.boolean(); }),
                           given("huge_pages", [&](JsonReader& value) {
                               config.hugePages = value.variant({"None", "Transparent", "2M"});
                           })});
            return 0;
        });
        if (!any) fault("Empty PATCH request.");
        refusePostBoot();
        within("Machine config error", [&] { setMachine(config); });
    } else if (first == "drives") {
        const std::string id = checkedId(path);
        std::string given;
        std::optional<std::string> file;
        Limiter limit;
        parse(body, [&](JsonReader& reader) {
            reader.object("BlockDeviceUpdateConfig", {text("drive_id", true, given), optionalText("path_on_host", file),
                                                      limiterField("rate_limiter", limit)});
            return 0;
        });
        if (given != id) fault("The id from the path does not match the id from the body!");
        refusePreBoot();
        const auto found = std::find_if(drives_.begin(), drives_.end(), [&](const Drive& d) { return d.id == id; });
        const std::string prefix = "Drive config error: Unable to patch the block device: ";
        const std::string suffix = " Please verify the request arguments.";
        if (found == drives_.end()) fault(prefix + "Failed perform action on device: Device not found" + suffix);
        if (!file) {
            found->limit.update(limit);
            return;
        }
        const UniqueFd opened(::open(file->c_str(), (found->readOnly ? O_RDONLY : O_RDWR) | O_CLOEXEC));
        if (!opened) {
            fault(prefix + "Block: Virtio backend error: Error manipulating the backing file: " + osError(errno) + " " +
                  *file + suffix);
        }
        found->path = *file;
        found->limit.update(limit);
        struct stat status {};
        if (::fstat(opened.get(), &status) == 0)
            print_("fake-guest: drive " + id + ", new size " + std::to_string(status.st_size) + "\n");
    } else if (first == "network-interfaces") {
        const std::string id = checkedId(path);
        std::string given;
        Limiter receive, transmit;
        parse(body, [&](JsonReader& reader) {
            reader.object("NetworkInterfaceUpdateConfig",
                          {text("iface_id", true, given), limiterField("rx_rate_limiter", receive),
                           limiterField("tx_rate_limiter", transmit)});
            return 0;
        });
        if (given != id)
            fault("The id from the path [" + id + "] does not match the id from the body [" + given + "]!");
        refusePreBoot();
        const auto found = std::find_if(nics_.begin(), nics_.end(), [&](const Nic& nic) { return nic.id == id; });
        if (found == nics_.end()) {
            fault(
                "Network config error: Unable to update the net device: Failed perform action on device: Device not "
                "found");
        }
        found->receive.update(receive);
        found->transmit.update(transmit);
    } else if (patchDevice(path, body)) {
        return;
    } else {
        refuseUnplayed(
            "PATCH", path, [this] { refusePreBoot(); }, [this] { refusePostBoot(); });
    }
}

void Machine::remove(const std::vector<std::string>& path) {
    const std::string first = path.empty() ? "" : path[0];
    if (first != "drives" && first != "network-interfaces")
        refuseUnplayed(
            "DELETE", path, [this] { refusePreBoot(); }, [this] { refusePostBoot(); });
    checkedId(path);
    refusePreBoot();
    fault("PCI is not enabled");
}

Machine::MachineConfig Machine::readMachine(JsonReader& reader) {
    MachineConfig config;
    reader.object("MachineConfig",
                  {{"vcpu_count", true, [&](JsonReader& value) { config.vcpus = value.integer(255, "u8"); }},
                   {"mem_size_mib", true,
                    [&](JsonReader& value) {
                        config.memory = value.integer(std::numeric_limits<std::uint64_t>::max(), "usize");
                    }},
                   flag("smt", false, config.smt),
                   {"cpu_template", false,
                    [&](JsonReader& value) {
                        if (!value.null())
                            config.cpuTemplate = value.variant({"C3", "T2", "T2S", "None", "T2CL", "T2A"});
                    }},
                   flag("track_dirty_pages", false, config.track),
                   {"huge_pages", false, [&](JsonReader& value) {
                        config.hugePages = value.variant({"None", "Transparent", "2M"});
                    }}});
    return config;
}

Machine::BootSource Machine::readBoot(JsonReader& reader) {
    BootSource boot;
    reader.object("BootSourceConfig",
                  {text("kernel_image_path", true, boot.kernel), optionalText("initrd_path", boot.initrd),
                   optionalText("boot_args", boot.arguments)});
    return boot;
}

Machine::Drive Machine::readDrive(JsonReader& reader) {
    Drive drive;
    reader.object("BlockDeviceConfig", {text("drive_id", true, drive.id),
                                        optionalText("partuuid", drive.partuuid),
                                        flag("is_root_device", true, drive.root),
                                        {"cache_type", false,
                                         [&](JsonReader& value) {
                                             drive.cache = value.variant({"Unsafe", "Writeback"});
                                         }},
                                        {"is_read_only", false,
                                         [&](JsonReader& value) {
                                             if (!value.null()) drive.readOnly = value.boolean();
                                         }},
                                        optionalText("path_on_host", drive.file),
                                        limiterField("rate_limiter", drive.limit),
                                        {"io_engine", false,
                                         [&](JsonReader& value) {
                                             if (!value.null()) drive.engine = value.variant({"Async", "Sync"});
                                         }},
                                        optionalText("socket", drive.socket)});
    return drive;
}

Machine::Nic Machine::readNic(JsonReader& reader) {
    Nic nic;
    reader.object("NetworkInterfaceConfig", {text("iface_id", true, nic.id),
                                             text("host_dev_name", true, nic.device),
                                             {"guest_mac", false,
                                              [&](JsonReader& value) {
                                                  if (value.null()) return;
                                                  nic.mac = value.string();
                                                  if (!isMac(*nic.mac))
                                                      value.faultOfValue("The provided MAC address is invalid.");
                                              }},
                                             {"mtu", false,
                                              [&](JsonReader& value) {
                                                  if (!value.null()) nic.mtu = value.integer(65535, "u16");
                                              }},
                                             limiterField("rx_rate_limiter", nic.receive),
                                             limiterField("tx_rate_limiter", nic.transmit)});
    return nic;
}

void Machine::setMachine(const MachineConfig& config) {
    if (config.vcpus == 0 || config.vcpus > maxVcpus || (config.smt && config.vcpus > 1 && config.vcpus % 2 == 1)) {
        error(
            "The number of vCPUs must be greater than 0, less than 32 and must be 1 or an even number if SMT is "
            "enabled.");
    }
    if (config.memory == 0 || (config.hugePages != "None" && config.memory % 2 == 1))
        error("The memory size (MiB) is either 0, or not a multiple of the configured page size.");
    machine_ = config;
}

void Machine::setBoot(const BootSource& boot) {
    const UniqueFd kernel(::open(boot.kernel.c_str(), O_RDONLY | O_CLOEXEC));
    if (!kernel) error("The kernel file cannot be opened: " + osError(errno));
    if (boot.initrd) {
        const UniqueFd initrd(::open(boot.initrd->c_str(), O_RDONLY | O_CLOEXEC));
        if (!initrd) {
            error("The initrd file cannot be opened due to invalid path or invalid permissions. " + osError(errno));
        }
    }
    if (boot.arguments && boot.arguments->size() + 1 > kernelArgumentLimit)
        error("The kernel command line is invalid: Invalid cmdline capacity provided.");
    boot_ = boot;
    misbehaviour_.read(boot.arguments.value_or(""), "fake.");
}

void Machine::setDrive(Drive drive) {
    const auto same = std::find_if(drives_.begin(), drives_.end(), [&](const Drive& d) { return d.id == drive.id; });
    if (drive.root && !drives_.empty() && drives_.front().root && same != drives_.begin())
        error("A root block device already exists!");
    const std::string prefix = "Unable to create the virtio block device: ";
    if (!drive.file || drive.socket) error(prefix + "Invalid block config.");
    drive.path = *drive.file;
    const UniqueFd file(::open(drive.path.c_str(), (drive.readOnly ? O_RDONLY : O_RDWR) | O_CLOEXEC));
    if (!file) {
        error(prefix + "Virtio backend error: Error manipulating the backing file: " + osError(errno) + " " +
              drive.path);
    }
    if (same != drives_.end()) drives_.erase(same);
    drives_.insert(drive.root ? drives_.begin() : drives_.end(), std::move(drive));
}

void Machine::setNic(Nic nic) {
    for (const Nic& other : nics_) {
        if (nic.mac && other.mac == nic.mac && other.id != nic.id)
            error("The MAC address is already in use: " + *nic.mac);
    }
    std::erase_if(nics_, [&](const Nic& other) { return other.id == nic.id; });
    const std::string prefix = "Could not create the network device: ";
    try {
        nic.tap = openTap(nic.device);
    } catch (const std::runtime_error& refusal) {
        error(prefix + "Open tap device failed: " + refusal.what());
    }
    if (nic.mtu && *nic.mtu < 68) error(prefix + "MTU " + std::to_string(*nic.mtu) + " is out of range [68, 65535]");
    nics_.push_back(std::move(nic));
}

void Machine::setBalloon(const Balloon& balloon) {
    if (balloon.amount > machine_.memory) error("Amount of pages requested is too large.");
    balloon_ = balloon;
}

void Machine::setVsock(Vsock vsock) {
    if (vsock_) ::unlink(vsock_->path.c_str());
    vsock_.reset();
    vsock.bind();
    vsock_ = std::move(vsock);
}

void Machine::setMmdsConfig(const MmdsConfig& config) {
    std::vector<std::string> ids;
    for (const Nic& nic : nics_) ids.push_back(nic.id);
    config.check(ids);
    mmdsConfig_ = config;
}

void Machine::refuseWithoutMmds() const {
    if (state_ != State::NotStarted && !mmdsConfig_) fault("MMDS error: The MMDS data store is not initialized.");
}

bool Machine::getDevice(const std::vector<std::string>& path, Reply& reply) {
    const std::string first = path.empty() ? "" : path[0];
    if (first == "mmds") {
        refuseWithoutMmds();
        reply.body = mmds_;
        return true;
    }
    if (first != "balloon") return false;
    if (path.size() > 1 && path[1] != "statistics") return false;
    if (path.size() > 1) refusePreBoot();
    if (!balloon_) fault("Balloon config error: No balloon device found.");
    const std::string mib = std::to_string(balloon_->amount), pages = std::to_string(balloon_->amount * 256);
    reply.body = path.size() == 1 ? balloon_->json()
                                  : "{\"target_pages\":" + pages + ",\"actual_pages\":" + pages +
                                        ",\"target_mib\":" + mib + ",\"actual_mib\":" + mib + "}";
    return true;
}

bool Machine::putDevice(const std::vector<std::string>& path, const std::string& body, Reply& reply) {
    const std::string first = path.empty() ? "" : path[0];
    if (first == "vsock") {
        Vsock vsock = parse(body, Vsock::read);
        refusePostBoot();
        reply.deprecated = vsock.id.has_value();
        within("Vsock config error", [&] { setVsock(std::move(vsock)); });
    } else if (first == "entropy") {
        Entropy entropy = parse(body, Entropy::read);
        refusePostBoot();
        entropy_ = entropy;
    } else if (first == "balloon") {
        const Balloon balloon = parse(body, Balloon::read);
        refusePostBoot();
        within("Balloon config error", [&] { setBalloon(balloon); });
    } else if (first == "metrics") {
        const std::string file = parse(body, Metrics::readPath);
        refusePostBoot();
        within("Metrics error", [&] { metrics_.open(file); });
    } else if (first == "mmds" && path.size() > 1) {
        if (path[1] != "config") fault("Unrecognized PUT request path `" + path[1] + "`.");
        const MmdsConfig config = parse(body, MmdsConfig::read);
        refusePostBoot();
        reply.deprecated = config.version == "V1";
        within("MMMDS config error", [&] { setMmdsConfig(config); });
    } else if (first == "mmds") {
        parse(body, [](JsonReader& reader) {
            reader.skip();
            return 0;
        });
        refuseWithoutMmds();
        mmds_ = body;  // the real one puts its members in order
    } else {
        return false;
    }
    return true;
}

bool Machine::patchDevice(const std::vector<std::string>& path, const std::string& body) {
    const std::string first = path.empty() ? "" : path[0];
    if (first != "balloon" || (path.size() > 1 && path[1] != "statistics")) return false;
    const bool statistics = path.size() > 1;
    std::uint64_t value = 0;
    parse(body, [&](JsonReader& reader) {
        reader.object(statistics ? "BalloonUpdateStatsConfig" : "BalloonUpdateConfig",
                      {{statistics ? "stats_polling_interval_s" : "amount_mib", true, [&](JsonReader& number) {
                            value = statistics ? number.integer(65535, "u16") : number.integer(4294967295, "u32");
                        }}});
        return 0;
    });
    refusePreBoot();
    const std::string prefix = "Balloon update error: Balloon: ";
    if (!balloon_) fault("Balloon update error: Balloon: Device not found");
    if (statistics) {
        if ((value == 0) != (balloon_->interval == 0))
            fault(prefix + "Statistics cannot be enabled/disabled after activation.");
        balloon_->interval = value;
    } else {
        if (value > machine_.memory) fault(prefix + "Amount of pages requested cannot exceed memory size.");
        balloon_->amount = value;
    }
    return true;
}

void Machine::start() {
    if (!boot_) error("Cannot start microvm without kernel configuration.");
    if (!isKernel(boot_->kernel)) {
        error(
            "System configuration error: Cannot load kernel due to invalid memory configuration or invalid kernel "
            "image: Kernel Loader: failed to load bzImage kernel image: Kernel Loader: Invalid bzImage");
    }
    std::string line = boot_->arguments.value_or(defaultArguments) + " pci=off";
    if (!drives_.empty() && drives_.front().root)
        line += std::string(" root=/dev/vda ") + (drives_.front().readOnly ? "ro" : "rw");
    for (std::size_t i = 0;
         i < drives_.size() + nics_.size() + (vsock_ ? 1 : 0) + (balloon_ ? 1 : 0) + (entropy_ ? 1 : 0); ++i) {
        char device[64];
        std::snprintf(device, sizeof(device), " virtio_mmio.device=4K@0x%zx:%zu", 0xc0001000 + i * 0x1000, 5 + i);
        line += device;
    }
    if (line.size() + 1 > kernelArgumentLimit)
        error("Invalid kernel command line: Inserting string would make command line too long.");
    state_ = State::Running;
    print_("fake-guest: " + std::to_string(machine_.vcpus) + " vcpus, " + std::to_string(machine_.memory) + " MiB\n");
    for (const Drive& drive : drives_)
        print_("fake-guest: drive " + drive.id + (drive.readOnly ? ", takes no writes\n" : ", takes writes\n"));
    for (const Nic& nic : nics_) print_("fake-guest: network " + nic.id + " " + nic.mac.value_or("") + "\n");
    print_("fake-guest: cmdline " + line + "\n");
    print_("fake-guest: ready\n");
}

void Machine::pressCtrlAltDel() {
    if (state_ == State::Paused) {
        pressed_ = true;
    } else {
        shutDown();
    }
}

void Machine::shutDown() {
    if (misbehaviour_.ignoreShutdown) {
        print_("fake-guest: hears nothing\n");
        return;
    }
    print_("fake-guest: shutting down\n");
    ended_ = true;
}

void Machine::startFrom(const std::string& configuration, const std::string& metadata) {
    const std::string parsing = "Configuration for VMM from one single json failed: ";
    MachineConfig machine;
    BootSource boot;
    std::vector<Drive> drives;
    std::vector<Nic> nics;
    std::optional<Balloon> balloon;
    std::optional<Vsock> vsock;
    std::optional<MmdsConfig> mmds;
    std::optional<std::string> metrics;
    try {
        JsonReader reader(configuration);
        reader.object(
            "VmmConfig",
            {optional<Balloon>("balloon", balloon),
             optional<Vsock>("vsock", vsock),
             optional<Entropy>("entropy", entropy_),
             optional<MmdsConfig>("mmds-config", mmds),
             {"metrics", false,
              [&](JsonReader& value) {
                  if (!value.null()) metrics = Metrics::readPath(value);
              }},
             {"drives", true,
              [&](JsonReader& value) { value.array([&](JsonReader& each) { drives.push_back(readDrive(each)); }); }},
             {"boot-source", true, [&](JsonReader& value) { boot = readBoot(value); }},
             {"machine-config", false,
              [&](JsonReader& value) {
                  if (!value.null()) machine = readMachine(value);
              }},
             {"network-interfaces", false,
              [&](JsonReader& value) { value.array([&](JsonReader& each) { nics.push_back(readNic(each)); }); }}},
            /*lenient=*/true);
        reader.end();
    } catch (const JsonFault& bad) {
        error(parsing + "Invalid JSON: " + bad.what());
    }
    if (metrics) within(parsing + "Metrics error", [&] { metrics_.open(*metrics); });
    within(parsing + "VM config error", [&] { setMachine(machine); });
    within(parsing + "Boot source error", [&] { setBoot(boot); });
    for (Drive& drive : drives) within(parsing + "Block device error", [&] { setDrive(std::move(drive)); });
    for (Nic& nic : nics) within(parsing + "Network device error", [&] { setNic(std::move(nic)); });
    if (vsock) within(parsing + "Vsock device error", [&] { setVsock(std::move(*vsock)); });
    if (balloon) within(parsing + "Balloon device error", [&] { setBalloon(*balloon); });
    if (mmds) within(parsing + "MMDS config error", [&] { setMmdsConfig(*mmds); });
    if (!metadata.empty()) mmds_ = metadata;
    within("Could not Start MicroVM from one single json", [this] { start(); });
}

std::string Machine::machineJson() const {
    return "{\"vcpu_count\":" + std::to_string(machine_.vcpus) +
           ",\"mem_size_mib\":" + std::to_string(machine_.memory) + ",\"smt\":" + boolText(machine_.smt) +
           (machine_.cpuTemplate.empty() || machine_.cpuTemplate == "None"
                ? ""
                : ",\"cpu_template\":" + quoted(machine_.cpuTemplate)) +
           ",\"track_dirty_pages\":" + boolText(machine_.track) + ",\"huge_pages\":" + quoted(machine_.hugePages) + "}";
}

std::string Machine::configJson() const {
    std::string drives, nics;
    for (const Drive& drive : drives_) {
        drives += std::string(drives.empty() ? "" : ",") + "{\"drive_id\":" + quoted(drive.id) +
                  ",\"partuuid\":" + quotedOrNull(drive.partuuid) + ",\"is_root_device\":" + boolText(drive.root) +
                  ",\"cache_type\":" + quoted(drive.cache) + ",\"is_read_only\":" + boolText(drive.readOnly) +
                  ",\"path_on_host\":" + quoted(drive.path) + ",\"rate_limiter\":" + drive.limit.json() +
                  ",\"io_engine\":" + quoted(drive.engine) + ",\"socket\":null}";
    }
    for (const Nic& nic : nics_) {
        nics += std::string(nics.empty() ? "" : ",") + "{\"iface_id\":" + quoted(nic.id) +
                ",\"host_dev_name\":" + quoted(nic.device) + ",\"guest_mac\":" + quotedOrNull(nic.mac) +
                ",\"mtu\":" + (nic.mtu ? std::to_string(*nic.mtu) : "null") +
                ",\"rx_rate_limiter\":" + nic.receive.json() + ",\"tx_rate_limiter\":" + nic.transmit.json() + "}";
    }
    const BootSource boot = boot_.value_or(BootSource{});
    return "{\"balloon\":" + (balloon_ ? balloon_->json() : "null") + ",\"drives\":[" + drives +
           "],\"boot-source\":{\"kernel_image_path\":" + quoted(boot.kernel) +
           ",\"initrd_path\":" + quotedOrNull(boot.initrd) + ",\"boot_args\":" + quotedOrNull(boot.arguments) +
           "},\"cpu-config\":null,\"logger\":null,\"machine-config\":" + machineJson() +
           ",\"metrics\":null,\"mmds-config\":" + (mmdsConfig_ ? mmdsConfig_->json() : "null") +
           ",\"network-interfaces\":[" + nics + "],\"vsock\":" + (vsock_ ? vsock_->json() : "null") +
           ",\"entropy\":" + (entropy_ ? entropy_->json() : "null") + ",\"pmem\":[],\"memory-hotplug\":null}";
}

}  // namespace mergen::fake
