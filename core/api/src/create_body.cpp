#include "create_body.hpp"

#include <algorithm>
#include <array>
#include <set>
#include <string>
#include <tuple>

#include <mergen/base/json.hpp>
#include <mergen/base/text.hpp>
#include <mergen/engine/guest_document.hpp>
#include <mergen/sdk/error.hpp>

namespace mergen::api {

namespace {

using engine::CreateRequest;
using engine::PortRequest;

constexpr std::size_t maxPath = 4096;  // PATH_MAX of limits.h
constexpr std::size_t maxPorts = 64;
constexpr std::size_t maxMembers = 128;    // of tags and extraEnv
constexpr std::size_t maxNameBytes = 128;  // of a tag or a variable
constexpr std::size_t maxTagBytes = 1024;
constexpr std::size_t maxValueBytes = 4096;      // of a variable
constexpr std::size_t maxBootBytes = 1500;       // the kernel takes 2048 on x86, and the engine adds to them
constexpr std::size_t maxDocument = 64U << 10U;  // of metadata and hooks as text
constexpr std::size_t maxHooks = 32;             // of one event
constexpr std::int64_t maxRestarts = 1'000'000;
constexpr std::int64_t maxVcpus = 32;
constexpr std::int64_t minMemory = 128, maxMemory = 1048576;  // MiB

/// Less than json::Limits allows: the record made of a body has members of its own, and must be read back.
constexpr json::Limits limits{.bytes = 1U << 20U, .depth = 24, .members = 4096, .stringBytes = maxDocument};

constexpr std::array members{
    "id",          "name",           "rootfs",        "kernel",     "initrd",   "dataDisk",
    "vcpu",        "memMiB",         "ports",         "httpPort",   "metadata", "autoStart",
    "bootArgs",    "extraEnv",       "tags",          "hooks",      "vmm",      "restartPolicy",
    "maxRestarts", "onUnresponsive", "machineConfig", "bootSource", "drives",   "networkInterfaces",
    "vsock",       "balloon",        "entropy",       "mmds",       "metrics"};

[[noreturn]] void refuse(const std::string& field, const std::string& text) {
    throw Error(ErrorKind::InvalidArgument, field + ": " + text).about(field);
}

std::string inQuotes(std::string_view text) {
    return "\"" + printable(text, 80) + "\"";
}

bool isControl(char c) noexcept {
    return static_cast<unsigned char>(c) < 0x20 || c == 0x7f;
}
bool isDigit(char c) noexcept {
    return c >= '0' && c <= '9';
}
bool isLetter(char c) noexcept {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

std::filesystem::path hostPath(const std::string& field, const std::string& text) {
    if (text.front() != '/') refuse(field, inQuotes(text) + " is not an absolute path");
    // Legal in a path, but the VM's environment file and many logs are lines.
    if (std::ranges::any_of(text, isControl)) refuse(field, inQuotes(text) + " has a control character");
    return text;
}

std::optional<RecordId> idOf(json::Reader& body) {
    const std::optional<std::string> text = body.string("id", maxPath);
    if (!text) return std::nullopt;
    try {
        return RecordId::parse(*text);
    } catch (const Error& error) {
        throw error.within("id").about("id");
    }
}

std::string nameOf(json::Reader& body) {
    const std::optional<std::string> name = body.string("name", maxPath);
    if (!name) return {};
    const bool good = !name->empty() && name->size() <= 63 && std::ranges::all_of(*name, [](char c) {
        return isLetter(c) || isDigit(c) || c == '.' || c == '_' || c == ' ' || c == '-';
    });
    if (!good) refuse("name", inQuotes(*name) + " is not 1 to 63 of A-Z, a-z, 0-9, '.', '_', ' ', '-'");
    return *name;
}

Protocol protocolOf(json::Reader& port) {
    const std::string text = port.string("protocol", maxNameBytes).value_or("tcp");
    if (text == toString(Protocol::Tcp)) return Protocol::Tcp;
    if (text == toString(Protocol::Udp)) return Protocol::Udp;
    refuse(port.pathOf("protocol"), inQuotes(text) + " is neither tcp nor udp");
}

std::vector<PortRequest> portsOf(json::Reader& body) {
    std::vector<PortRequest> ports;
    std::set<std::tuple<std::uint16_t, Protocol>> hosts;                 // a host port leads to one guest port
    std::set<std::tuple<std::uint16_t, std::uint16_t, Protocol>> whole;  // and asking for the same twice is a slip
    body.objects("ports", maxPorts, [&](json::Reader& item) {
        PortRequest port;
        port.guest = static_cast<std::uint16_t>(item.requiredInteger("guest", 1, 65535));
        port.host = static_cast<std::uint16_t>(item.integer("host", 0, 65535).value_or(0));
        port.protocol = protocolOf(item);
        const std::string protocol(toString(port.protocol));
        if (port.host != 0 && !hosts.emplace(port.host, port.protocol).second) {
            refuse(item.pathOf("host"),
                   "host port " + std::to_string(port.host) + "/" + protocol + " is asked for twice");
        }
        if (!whole.emplace(port.host, port.guest, port.protocol).second) {
            refuse(item.pathOf("guest"), "guest port " + std::to_string(port.guest) + "/" + protocol +
                                             " is asked for twice with any host port");
        }
        ports.push_back(port);
    });
    return ports;
}

/// A map of strings, bounded as a whole too: all of a record must fit into what is read back (json::Limits).
std::map<std::string, std::string> stringMapOf(json::Reader& body, const std::string& field, std::size_t maxBytes) {
    std::map<std::string, std::string> map = body.stringMap(field, maxMembers, maxBytes);
    std::size_t total = 0;
    for (const auto& [name, value] : map) total += name.size() + value.size();
    if (total > maxDocument) {
        refuse(field, "has " + std::to_string(total) + " bytes of names and values; at most " +
                          std::to_string(maxDocument) + " are taken");
    }
    return map;
}

std::map<std::string, std::string> tagsOf(json::Reader& body) {
    std::map<std::string, std::string> tags = stringMapOf(body, "tags", maxTagBytes);
    for (const auto& [name, value] : tags) {
        const std::string field = "tags." + printable(name, 80);
        if (name.empty() || name.size() > maxNameBytes || std::ranges::any_of(name, isControl)) {
            refuse(field, inQuotes(name) + " is not 1 to " + std::to_string(maxNameBytes) +
                              " bytes without control characters");
        }
        if (std::ranges::any_of(value, isControl)) refuse(field, inQuotes(value) + " has a control character");
    }
    return tags;
}

/// The environment file is read by shells and by systemd, as root: names are names, and Mergen's own are not to be
/// replaced.
std::map<std::string, std::string> environmentOf(json::Reader& body) {
    std::map<std::string, std::string> variables = stringMapOf(body, "extraEnv", maxValueBytes);
    for (const auto& [name, value] : variables) {
        const std::string field = "extraEnv." + printable(name, 80);
        const bool good = !name.empty() && name.size() <= maxNameBytes && !isDigit(name.front()) &&
                          std::ranges::all_of(name, [](char c) { return isLetter(c) || isDigit(c) || c == '_'; });
        if (!good)
            refuse(field, inQuotes(name) + " is no name of a variable: [A-Za-z_][A-Za-z0-9_]*, at most 128 bytes");
        if (name.starts_with("MGN_")) refuse(field, inQuotes(name) + " begins with MGN_, which is Mergen's own");
        if (value.find_first_of("\r\n") != std::string::npos) refuse(field, inQuotes(value) + " has a line break");
    }
    return variables;
}

RestartPolicy restartPolicyOf(json::Reader& body) {
    const std::string text = body.string("restartPolicy", maxNameBytes).value_or("no");
    const auto policy = parseRestartPolicy(text);
    if (!policy) refuse("restartPolicy", inQuotes(text) + " is none of no, on-failure, always");
    return *policy;
}

unsigned maxRestartsOf(json::Reader& body, RestartPolicy policy) {
    const auto number = body.integer("maxRestarts", 0, maxRestarts);
    if (number && policy == RestartPolicy::No) refuse("maxRestarts", "has no meaning without a restartPolicy");
    return static_cast<unsigned>(number.value_or(0));
}

engine::OnUnresponsive onUnresponsiveOf(json::Reader& body) {
    const std::string text = body.string("onUnresponsive", maxNameBytes).value_or("none");
    const auto policy = engine::parseOnUnresponsive(text);
    if (!policy) refuse("onUnresponsive", inQuotes(text) + " is none of none, restart, stop");
    return *policy;
}

std::optional<std::string> bootArgumentsOf(json::Reader& body, const std::string& name) {
    const std::optional<std::string> text = body.string(name, maxBootBytes);
    if (!text || text->empty()) return std::nullopt;
    if (!std::ranges::all_of(*text, [](char c) { return c >= 0x20 && c < 0x7f; })) {
        refuse(body.pathOf(name), inQuotes(*text) + " is not printable ASCII");
    }
    return text;
}

std::optional<std::filesystem::path> pathMember(json::Reader& body, const std::string& name) {
    if (!body.has(name)) return std::nullopt;
    return hostPath(body.pathOf(name), body.requiredString(name, maxPath));
}

/// What is said by the short member or by Firecracker's, or by both alike.
template <typename Value>
std::optional<Value> eitherOf(const std::string& shortName, const std::optional<Value>& shortValue,
                              const std::string& longName, const std::optional<Value>& longValue) {
    if (shortValue && longValue && *shortValue != *longValue)
        refuse(longName, "says something else than " + shortName + "; give one of them");
    return shortValue ? shortValue : longValue;
}

/// A member of the request that has one name of Mergen's and one of Firecracker's, each absent or read.
struct Machine {
    std::optional<std::int64_t> vcpus, memory;
};

Machine machineOf(json::Reader& body, engine::GuestOptions& options) {
    Machine machine{body.integer("vcpu", 1, maxVcpus), body.integer("memMiB", minMemory, maxMemory)};
    const Poco::JSON::Object::Ptr object = body.object("machineConfig");
    if (object.isNull()) return machine;
    json::Reader reader(*object, "machineConfig");
    machine.vcpus =
        eitherOf("vcpu", machine.vcpus, reader.pathOf("vcpuCount"), reader.integer("vcpuCount", 1, maxVcpus));
    machine.memory = eitherOf("memMiB", machine.memory, reader.pathOf("memSizeMib"),
                              reader.integer("memSizeMib", minMemory, maxMemory));
    readMachine(reader, options);
    reader.finish();
    return machine;
}

struct Boot {
    std::optional<std::filesystem::path> kernel, initrd;
    std::optional<std::string> arguments;
};

Boot bootOf(json::Reader& body) {
    Boot boot{pathMember(body, "kernel"), pathMember(body, "initrd"), bootArgumentsOf(body, "bootArgs")};
    const Poco::JSON::Object::Ptr object = body.object("bootSource");
    if (!object.isNull()) {
        json::Reader reader(*object, "bootSource");
        boot.kernel =
            eitherOf("kernel", boot.kernel, reader.pathOf("kernelImagePath"), pathMember(reader, "kernelImagePath"));
        boot.initrd = eitherOf("initrd", boot.initrd, reader.pathOf("initrdPath"), pathMember(reader, "initrdPath"));
        boot.arguments =
            eitherOf("bootArgs", boot.arguments, reader.pathOf("bootArgs"), bootArgumentsOf(reader, "bootArgs"));
        reader.finish();
    }
    if (!boot.kernel) static_cast<void>(body.requiredString("kernel", maxPath));
    return boot;
}

/// The drives with the root disk and the data disk, which have members of their own.
void readDisks(json::Reader& body, CreateRequest& request) {
    std::optional<std::filesystem::path> root = pathMember(body, "rootfs");
    request.dataDisk = pathMember(body, "dataDisk");
    request.drives = engine::readDrives(body);
    for (std::size_t i = 0; i < request.drives.size(); ++i) {
        engine::DriveRequest& drive = request.drives[i];
        const std::string field = "drives[" + std::to_string(i) + "].pathOnHost";
        std::optional<std::filesystem::path> given;
        if (!drive.path.empty()) given = drive.path;
        if (drive.id == engine::rootDriveId) {
            root = eitherOf("rootfs", root, field, given);
        } else if (drive.id == engine::dataDriveId) {
            request.dataDisk = eitherOf("dataDisk", request.dataDisk, field, given);
            if (!request.dataDisk) refuse(field, "missing, and there is no dataDisk either");
        } else {
            continue;
        }
        drive.path.clear();
    }
    if (!root) static_cast<void>(body.requiredString("rootfs", maxPath));
    request.rootfs = *root;
}

void checkOptions(const CreateRequest& request) {
    const engine::GuestOptions& options = request.options;
    if (options.balloon && options.balloon->amount > request.memory) {
        refuse("balloon.amountMib", std::to_string(options.balloon->amount.count) + " is more than the " +
                                        std::to_string(request.memory.count) + " MiB of memory that the guest has");
    }
    if (options.smt && request.vcpus > 1 && request.vcpus % 2 == 1) {
        refuse("machineConfig.smt",
               "true needs 1 or an even number of processors, not " + std::to_string(request.vcpus));
    }
    if (options.hugePages == HugePages::TwoMiB && request.memory.count % 2 == 1) {
        refuse("machineConfig.hugePages",
               "\"2M\" needs an even number of MiB of memory, not " + std::to_string(request.memory.count));
    }
}

/// A JSON object kept as text; empty if there is none or nothing in it.
std::string documentOf(const std::string& field, const Poco::JSON::Object::Ptr& object) {
    if (object.isNull() || object->size() == 0) return {};
    std::string text = json::render(*object);
    if (text.size() > maxDocument) {
        refuse(field, "has " + std::to_string(text.size()) + " bytes as JSON; at most " + std::to_string(maxDocument) +
                          " are taken");
    }
    return text;
}

/// Hooks are kept as they are; what stands in one is checked by the plugin that runs it. Here only their shape.
std::string hooksOf(json::Reader& body) {
    const Poco::JSON::Object::Ptr object = body.object("hooks");
    if (object.isNull()) return {};
    json::Reader events(*object, "hooks");
    for (const char* event : {"onCreate", "onDelete", "onStart", "onStop"}) {
        if (!events.has(event)) continue;
        const Poco::JSON::Array::Ptr hooks = object->getArray(event);
        if (hooks.isNull()) refuse(events.pathOf(event), "is not an array of hooks");
        if (hooks->size() > maxHooks) {
            refuse(events.pathOf(event), "has " + std::to_string(hooks->size()) + " hooks; at most " +
                                             std::to_string(maxHooks) + " are taken");
        }
        for (unsigned i = 0; i < hooks->size(); ++i) {
            if (hooks->getObject(i).isNull()) {
                refuse(events.pathOf(event) + "[" + std::to_string(i) + "]", "is not an object");
            }
        }
    }
    events.finish();
    return documentOf("hooks", object);
}

}  // namespace

CreateRequest parseCreateBody(std::string_view text) {
    const Poco::JSON::Object::Ptr object = json::parseObject(text, limits);
    json::Reader body(*object, "");
    // Unknown members first: for a mistyped "kernal" that says more than "kernel: missing".
    for (const char* name : members) static_cast<void>(body.has(name));
    body.finish();

    CreateRequest request;
    request.id = idOf(body);
    request.name = nameOf(body);
    readDisks(body, request);
    Boot boot = bootOf(body);
    request.kernel = *boot.kernel;
    request.initrd = std::move(boot.initrd);
    request.bootArguments = std::move(boot.arguments);
    const Machine machine = machineOf(body, request.options);
    request.vcpus = static_cast<unsigned>(machine.vcpus.value_or(1));
    request.memory = MiB{static_cast<std::uint64_t>(machine.memory.value_or(512))};
    request.nics = engine::readNics(body);
    engine::readDevices(body, request.options);
    checkOptions(request);
    request.ports = portsOf(body);
    request.httpPort = static_cast<std::uint16_t>(body.integer("httpPort", 0, 65535).value_or(0));
    request.metadata = documentOf("metadata", body.object("metadata"));
    request.autoStart = body.boolean("autoStart").value_or(false);
    request.restartPolicy = restartPolicyOf(body);
    request.maxRestarts = maxRestartsOf(body, request.restartPolicy);
    request.onUnresponsive = onUnresponsiveOf(body);
    request.extraEnv = environmentOf(body);
    request.tags = tagsOf(body);
    request.hooks = hooksOf(body);
    request.vmm = body.string("vmm", maxNameBytes).value_or("");
    return request;
}

}  // namespace mergen::api
