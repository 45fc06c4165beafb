/// Which call is what, and when it may be made.
#include <algorithm>
#include <cctype>
#include <string_view>
#include <utility>

#include "faults.hpp"
#include "machine.hpp"

namespace mergen::fake {

namespace {

std::string checkedId(const std::vector<std::string>& path) {
    if (path.size() < 2 || path[1].empty()) fault("The ID cannot be empty.");
    for (const char c : path[1]) {
        if (c != '_' && std::isalnum(static_cast<unsigned char>(c)) == 0)
            fault("API Resource IDs can only contain alphanumeric characters and underscores.");
    }
    return path[1];
}

}  // namespace

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
    constexpr std::string_view preBoot[] = {"PUT hotplug/memory", "PUT snapshot/load"};
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
    const std::string second = path.size() > 1 ? path[1] : "";
    if (first == "vm") {
        patchVm(body);
    } else if (first == "machine-config") {
        patchMachine(body);
    } else if (first == "drives") {
        patchDrive(checkedId(path), body);
    } else if (first == "network-interfaces") {
        patchNic(checkedId(path), body);
    } else if (first == "mmds") {
        patchMmds(body);
    } else if (first == "balloon" && second == "statistics") {
        patchBalloonStatistics(body);
    } else if (first == "balloon" && second != "hinting") {
        patchBalloon(body);
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

void Machine::refuseWithoutMmds() const {
    if (state_ != State::NotStarted && !mmdsConfig_) fault("MMDS error: The MMDS data store is not initialized.");
}

bool Machine::getDevice(const std::vector<std::string>& path, Reply& reply) {
    const std::string first = path.empty() ? "" : path[0];
    if (first == "mmds") {
        refuseWithoutMmds();
        reply.body = mmds_.value_or(JsonValue()).json();
        return true;
    }
    if (first != "balloon") return false;
    if (path.size() > 1 && path[1] != "statistics") return false;
    if (path.size() > 1) refusePreBoot();
    if (!balloon_ && state_ != State::NotStarted)
        fault("Internal VMM error: Failed perform action on device: Device not found");
    if (!balloon_) fault("Balloon config error: No balloon device found.");
    reply.body = path.size() == 1 ? balloon_->json() : balloon_->statistics(/*obeyed=*/!misbehaviour_.noDrivers);
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
    } else if (first == "logger") {
        Logger logger = parse(body, Logger::read);
        refusePostBoot();
        within("Logger error", [&] { logger.open(); });
        logger_ = std::move(logger);
    } else if (first == "serial") {
        Serial serial = parse(body, Serial::read);
        refusePostBoot();
        serial_ = std::move(serial);
    } else if (first == "cpu-config") {
        parse(body, CpuTemplate::read);
        refusePostBoot();
    } else if (first == "mmds" && path.size() > 1) {
        if (path[1] != "config") fault("Unrecognized PUT request path `" + path[1] + "`.");
        const MmdsConfig config = parse(body, MmdsConfig::read);
        refusePostBoot();
        reply.deprecated = config.version == "V1";
        within("MMMDS config error", [&] { setMmdsConfig(config); });
    } else if (first == "mmds") {
        JsonValue content = parse(body, JsonValue::read);
        refuseWithoutMmds();
        mmds_ = std::move(content);
    } else {
        return false;
    }
    return true;
}

}  // namespace mergen::fake
