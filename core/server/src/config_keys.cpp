#include <algorithm>
#include <limits>
#include <type_traits>

#include <mergen/base/text.hpp>
#include <mergen/sdk/error.hpp>
#include <mergen/sdk/plugin.hpp>
#include <mergen/server/config.hpp>

// The table of the server's keys. Each row names a member of ServerConfig; type, bounds and the words for both follow.
namespace mergen::server {

namespace fs = std::filesystem;
using std::chrono::milliseconds;
using namespace std::chrono_literals;

namespace {

constexpr std::uint64_t kib = 1U << 10U;
constexpr std::uint64_t mib = 1U << 20U;
constexpr std::uint64_t gib = 1U << 30U;

Error refusal(const std::string& value, const std::string& rule) {
    return {ErrorKind::InvalidArgument, "'" + printable(value) + "' " + rule};
}

/// The SDK's reader of one value, so that a duration is written alike in the server's sections and in a plugin's.
Settings readAs(mergen_key_type type, const std::string& value) {
    Settings::check(type, value);
    const mergen_key keys[] = {{"value", type, nullptr, ""}, {nullptr, MERGEN_KEY_STRING, nullptr, nullptr}};
    return {keys, {{"value", value}}};
}

/// In the largest unit that keeps it whole.
std::string write(milliseconds value) {
    if (value == 0ms) return "0ms";
    if (value % 1h == 0ms) return std::to_string(value / 1h) + "h";
    if (value % 1min == 0ms) return std::to_string(value / 1min) + "m";
    if (value % 1s == 0ms) return std::to_string(value / 1s) + "s";
    return std::to_string(value.count()) + "ms";
}

std::string write(Bytes value) {
    if (value.count == 0) return "0";
    if (value.count % gib == 0) return std::to_string(value.count / gib) + "GiB";
    if (value.count % mib == 0) return std::to_string(value.count / mib) + "MiB";
    if (value.count % kib == 0) return std::to_string(value.count / kib) + "KiB";
    return std::to_string(value.count);
}

std::string write(std::int64_t value) {
    return std::to_string(value);
}

std::string bounds(const auto& least, const auto& most) {
    return write(least) + " to " + write(most);
}

void requireWithin(const std::string& value, const auto& number, const auto& least, const auto& most) {
    if (number < least || number > most) throw refusal(value, "is out of range: " + bounds(least, most));
}

struct Row {
    const char* section;
    const char* key;
    const char* defaultValue;
    const char* sentence;
    KeyTraits traits{};
};

// In each of these, `member` is a generic lambda that gives the member of a ServerConfig, constant or not.

ConfigKey integer(const Row& row, std::int64_t least, std::int64_t most, auto member) {
    return {row.section,
            row.key,
            "integer",
            row.defaultValue,
            std::string(row.sentence) + " (" + bounds(least, most) + ")",
            [=](ServerConfig& config, const std::string& value) {
                const std::int64_t number = readAs(MERGEN_KEY_INTEGER, value).integer("value");
                requireWithin(value, number, least, most);
                auto& target = member(config);
                target = static_cast<std::remove_reference_t<decltype(target)>>(number);
            },
            [=](const ServerConfig& config) { return std::to_string(member(config)); },
            row.traits};
}

/// `never`: 0 is allowed below `least`.
ConfigKey duration(const Row& row, milliseconds least, milliseconds most, auto member, bool never = false) {
    const std::string rule = (never ? "0, or " : "") + bounds(least, most);
    return {row.section,
            row.key,
            "duration",
            row.defaultValue,
            std::string(row.sentence) + " (" + rule + ")",
            [=](ServerConfig& config, const std::string& value) {
                const milliseconds time = readAs(MERGEN_KEY_DURATION, value).duration("value");
                const bool within = (time >= least && time <= most) || (never && time == 0ms);
                if (!within) throw refusal(value, "is out of range: " + rule);
                member(config) = time;
            },
            [=](const ServerConfig& config) { return write(member(config)); },
            row.traits};
}

ConfigKey size(const Row& row, Bytes least, Bytes most, auto member) {
    return {row.section,
            row.key,
            "size",
            row.defaultValue,
            std::string(row.sentence) + " (" + bounds(least, most) + ")",
            [=](ServerConfig& config, const std::string& value) {
                const Bytes bytes{readAs(MERGEN_KEY_SIZE, value).bytes("value")};
                requireWithin(value, bytes, least, most);
                member(config) = bytes;
            },
            [=](const ServerConfig& config) { return write(member(config)); },
            row.traits};
}

ConfigKey boolean(const Row& row, auto member) {
    return {row.section,
            row.key,
            "boolean",
            row.defaultValue,
            row.sentence,
            [=](ServerConfig& config, const std::string& value) {
                member(config) = readAs(MERGEN_KEY_BOOLEAN, value).boolean("value");
            },
            [=](const ServerConfig& config) { return std::string(member(config) ? "true" : "false"); },
            row.traits};
}

fs::path readPath(const std::string& value) {
    const fs::path path(value);
    if (!path.is_absolute()) throw refusal(value, "is not an absolute path");
    if (std::ranges::find(path, fs::path("..")) != path.end()) throw refusal(value, "holds '..'");
    if (value.size() > 4095) throw refusal(value, "is longer than 4095 bytes");  // PATH_MAX
    fs::path normal = path.lexically_normal();
    if (!normal.has_filename()) normal = normal.parent_path();  // a '/' at its end
    return normal;
}

/// A path; where the default is empty, an empty value is taken too.
ConfigKey path(const Row& row, auto member) {
    const bool mayBeEmpty = *row.defaultValue == '\0';
    return {row.section,
            row.key,
            "path",
            row.defaultValue,
            row.sentence,
            [=](ServerConfig& config, const std::string& value) {
                member(config) = mayBeEmpty && value.empty() ? fs::path() : readPath(value);
            },
            [=](const ServerConfig& config) { return member(config).string(); },
            row.traits};
}

ConfigKey paths(const Row& row, auto member) {
    return {row.section,
            row.key,
            "paths",
            row.defaultValue,
            row.sentence,
            [=](ServerConfig& config, const std::string& value) {
                member(config).clear();
                if (value.empty()) return;
                for (const std::string& piece : split(value, ',')) {
                    member(config).push_back(readPath(std::string(trim(piece))));
                }
            },
            [=](const ServerConfig& config) {
                std::string text;
                for (const fs::path& each : member(config)) text += (text.empty() ? "" : ", ") + each.string();
                return text;
            },
            row.traits};
}

std::string readName(const std::string& value) {
    const bool good =
        !value.empty() && value.size() <= 32 && value.front() >= 'a' && value.front() <= 'z' &&
        std::ranges::all_of(value, [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-'; });
    if (!good) throw refusal(value, "is no name of a plugin: 1 to 32 lower-case letters, digits and '-'");
    return value;
}

ConfigKey name(const Row& row, auto member) {
    return {row.section,
            row.key,
            "name",
            row.defaultValue,
            row.sentence,
            [=](ServerConfig& config, const std::string& value) { member(config) = readName(value); },
            [=](const ServerConfig& config) { return member(config); },
            row.traits};
}

ConfigKey names(const Row& row, auto member) {
    return {row.section,
            row.key,
            "names",
            row.defaultValue,
            row.sentence,
            [=](ServerConfig& config, const std::string& value) {
                member(config).clear();
                for (const std::string& piece : split(value, ',')) {
                    std::string each = readName(std::string(trim(piece)));
                    if (std::ranges::find(member(config), each) != member(config).end()) {
                        throw refusal(value, "names '" + each + "' twice");
                    }
                    member(config).push_back(std::move(each));
                }
            },
            [=](const ServerConfig& config) {
                std::string text;
                for (const std::string& each : member(config)) text += (text.empty() ? "" : ", ") + each;
                return text;
            },
            row.traits};
}

/// A value that `parse` makes of its text and `print` turns back.
ConfigKey custom(const Row& row, const char* type, auto parse, auto print, auto member) {
    return {row.section,
            row.key,
            type,
            row.defaultValue,
            row.sentence,
            [=](ServerConfig& config, const std::string& value) { member(config) = parse(value); },
            [=](const ServerConfig& config) { return std::string(print(member(config))); },
            row.traits};
}

Profile readProfile(const std::string& value) {
    for (const Profile profile : {Profile::MergenFire, Profile::Mergen}) {
        if (value == toString(profile)) return profile;
    }
    throw refusal(value, "is not mergen-fire or mergen");
}

LogLevel readLogLevel(const std::string& value) {
    if (const auto level = parseLogLevel(value)) return *level;
    throw refusal(value, "is not debug, info, warn or error");
}

LogFormat readLogFormat(const std::string& value) {
    if (const auto format = parseLogFormat(value)) return *format;
    throw refusal(value, "is not json, text or console");
}

Ipv4Network readGuestNetwork(const std::string& value) {
    const Ipv4Network network = Ipv4Network::parse(value);
    // "This host", loopback, link-local, multicast and reserved (RFC 6890): no guest can have such an address.
    const std::uint32_t first = network.base().value() >> 24U;
    const bool linkLocal = Ipv4Network::parse("169.254.0.0/16").contains(network.base()) ||
                           network.contains(Ipv4Address::parse("169.254.0.0"));
    if (first == 0 || first == 127 || first >= 224 || linkLocal)
        throw refusal(value, "has no addresses that a guest can have");
    return network;
}

std::string readUnitPrefix(const std::string& value) {
    const bool good = !value.empty() && value.size() <= 32 && std::ranges::all_of(value, [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
    });
    if (!good) throw refusal(value, "is no beginning of a unit's name: 1 to 32 letters, digits, '-' and '_'");
    return value;
}

/// See ServerConfig::socketPath(); no path that readPath() takes is "auto".
fs::path readSocket(const std::string& value) {
    return value.empty() || value == "auto" ? fs::path(value) : readPath(value);
}

std::string readGroup(const std::string& value) {
    const bool good = value.size() <= 32 && !value.starts_with('-') && std::ranges::all_of(value, [](char c) {
                          return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                                 c == '-' || c == '_' || c == '.';
                      });
    if (!good) throw refusal(value, "is no name or number of a group");
    return value;
}

// Writes the generic lambda of a member.
#define MERGEN_MEMBER(path) [](auto& config) -> auto& { return config.path; }

std::vector<ConfigKey> makeKeys() {
    constexpr std::int64_t lastPort = std::numeric_limits<std::uint16_t>::max();
    // uid_t -1 means "no change" to the kernel, so the highest uid is one less.
    constexpr std::int64_t lastUid = std::numeric_limits<std::uint32_t>::max() - 1;
    return {
        custom(
            {"server", "profile", "mergen-fire",
             "Whose defaults hold: mergen-fire (those of this file), or mergen: see 'Under mergen' at the keys that "
             "differ"},
            "profile", readProfile, [](Profile profile) { return toString(profile); }, MERGEN_MEMBER(server.profile)),
        custom(
            {"server",
             "listen",
             "127.0.0.1:8080",
             "Address and port of the REST API: ADDRESS:PORT, [IPV6]:PORT, localhost:PORT or :PORT, the last two on "
             "loopback; *:PORT on every IPv4 address of the host, [::]:PORT on every address. Other hosts are served "
             "only with token_file, or with insecure. Port 0: the kernel chooses one; see port_file. Empty: the socket "
             "only",
             {.oldVariable = "MGR_HTTP_ADDR"}},
            "address", parseListen, [](const ListenAddress& address) { return toString(address); },
            MERGEN_MEMBER(server.listen)),
        path(
            {"server", "port_file", "",
             "File into which the port that is listened on is written, atomically, once the server is ready, and which "
             "is removed at its end. Empty: none"},
            MERGEN_MEMBER(server.portFile)),
        integer({"server", "threads", "16", "Threads that answer requests, and so the requests answered at one time"},
                2, 256, MERGEN_MEMBER(server.threads)),
        integer({"server", "max_queued", "128", "Whole requests that may wait for a thread; more are refused"}, 64,
                4096, MERGEN_MEMBER(server.maxQueued)),
        size({"server", "max_body", "1MiB", "Largest body of a request, in bytes; a larger one is answered with 413"},
             Bytes{kib}, Bytes{16 * mib}, MERGEN_MEMBER(server.maxBody)),
        duration({"server",
                  "read_timeout",
                  "10s",
                  "How long a request may take to arrive whole, and its reply to be taken",
                  {.oldVariable = "MGR_COMMAND_TIMEOUT_SECONDS"}},
                 1s, 5min, MERGEN_MEMBER(server.readTimeout)),
        duration(
            {"server",
             "drain_timeout",
             "30s",
             "How long SIGTERM waits for requests and operations in progress. What is not done by then is left to the "
             "next start, which finishes or undoes it; VMs run on in any case",
             {.oldVariable = "MGR_SHUTDOWN_TIMEOUT_SECONDS", .mergenDefault = "15s", .reloadable = true}},
            100ms, 1h, MERGEN_MEMBER(server.drainTimeout)),
        custom(
            {"server", "socket", "auto",
             "Unix socket beside it, of mode 0660: whoever its group has may do anything, without a token. At most 107 "
             "bytes. auto: <run_root>/mergend.sock. Empty: none"},
            "path", readSocket, [](const fs::path& socket) { return socket.string(); }, MERGEN_MEMBER(server.socket)),
        custom(
            {"server", "socket_group", "",
             "Group that may use the socket, by name or number. Empty: the server's own, which is root's if root "
             "started it"},
            "group", readGroup, [](const std::string& group) { return group; }, MERGEN_MEMBER(server.socketGroup)),
        path({"server", "token_file", "",
              "File with the hashes of the tokens of which every request over TCP then needs one, as Authorization: "
              "Bearer TOKEN; 'mergend --new-token NAME' prints a token and its line. Mode 0600 or 0640, read again on "
              "SIGHUP. Empty: loopback needs no token, and other addresses are refused"},
             MERGEN_MEMBER(server.tokenFile)),
        boolean({"server", "insecure", "false",
                 "Serve an address that other hosts reach without any token: whoever reaches it can do anything"},
                MERGEN_MEMBER(server.insecure)),

        custom(
            {"log",
             "level",
             "info",
             "The least level that is written: debug, info, warn or error",
             {.oldVariable = "MGR_LOG_LEVEL", .reloadable = true}},
            "level", readLogLevel, [](LogLevel level) { return toString(level); }, MERGEN_MEMBER(log.level)),
        custom(
            {"log",
             "format",
             "json",
             "json: one object a line; text: [LEVEL] TIME event key=value; console: the same with the level in colour "
             "on a terminal, unless NO_COLOR is set. To standard error",
             {.oldVariable = "MGR_LOG_FORMAT", .mergenDefault = "console", .reloadable = true}},
            "format", readLogFormat, [](LogFormat format) { return toString(format); }, MERGEN_MEMBER(log.format)),

        path({"paths",
              "config_root",
              "/etc/firecracker/vm.d",
              "Folder of the VMs' records",
              {.oldVariable = "MGR_CONFIG_ROOT", .mergenDefault = "/etc/mergen/vm.d", .belowStateDir = "vm.d"}},
             MERGEN_MEMBER(paths.configRoot)),
        path({"paths",
              "data_root",
              "/var/lib/firecracker",
              "Folder of the VMs' disks and logs. One mergend works on one data root: a second one is refused",
              {.oldVariable = "MGR_DATA_ROOT", .mergenDefault = "/var/lib/mergen", .belowStateDir = "data"}},
             MERGEN_MEMBER(paths.dataRoot)),
        path({"paths",
              "run_root",
              "/run/firecracker",
              "Folder of sockets and other things that end with a reboot; on tmpfs. At most 56 bytes long, so that the "
              "sockets below it keep within the kernel's 107",
              {.oldVariable = "MGR_RUN_ROOT", .mergenDefault = "/run/mergen", .belowStateDir = "run"}},
             MERGEN_MEMBER(paths.runRoot)),
        path({"paths",
              "global_hooks_dir",
              "/etc/firecracker/hooks.d",
              "Folder of the hooks of all VMs. Nothing runs them yet: what lies there is only said at the start",
              {.oldVariable = "MGR_GLOBAL_HOOKS_DIR", .mergenDefault = "/etc/mergen/hooks.d"}},
             MERGEN_MEMBER(paths.globalHooksDir)),
        paths({"paths", "image_roots", "",
               "Folders, with commas between them, below which rootfs, kernel, initrd and data disks of new VMs may "
               "lie; they are opened without following links or crossing mounts (name a mount below a folder here, "
               "too). Empty: <data_root>/images"},
              MERGEN_MEMBER(paths.imageRoots)),
        path({"paths", "plugin_dir", "",
              "Folder of the plugins; every *.so in it is looked at. Only root or the server's own user may be able to "
              "write there. Empty: ../lib/mergen/plugins, seen from mergend"},
             MERGEN_MEMBER(paths.pluginDir)),
        path({"paths", "libexec_dir", "",
              "Folder of Mergen's helper programs (mergen-vm, mergen-preflight). Empty: ../libexec/mergen, seen from "
              "mergend, or mergend's own folder if there is none"},
             MERGEN_MEMBER(paths.libexecDir)),

        custom(
            {"network",
             "guest_cidr",
             "172.30.0.0/24",
             "Network of the guests' addresses, /8 to /30. Host number 1 is the gateway, the first guest gets 2; a /24 "
             "has room for 253 guests",
             {.oldVariable = "MGR_GUEST_CIDR"}},
            "network", readGuestNetwork, [](const Ipv4Network& network) { return network.str(); },
            MERGEN_MEMBER(network.guestCidr)),
        integer({"network",
                 "port_start",
                 "20000",
                 "First host port that a VM gets which asks for port 0",
                 {.oldVariable = "MGR_PORT_START"}},
                1, lastPort, MERGEN_MEMBER(network.portStart)),
        integer({"network", "port_end", "40000", "Last such port, port_start or more", {.oldVariable = "MGR_PORT_END"}},
                1, lastPort, MERGEN_MEMBER(network.portEnd)),

        integer({"vm",
                 "max_vms",
                 "10000",
                 "VMs that may exist, stopped ones included; more are refused",
                 {.reloadable = true}},
                1, 100'000, MERGEN_MEMBER(vm.maxVms)),
        integer(
            {"vm", "uid_start", "1900000000",
             "First of the uids, and gids of the same number, of which each VM's VMM gets one of its own. Nothing else "
             "on the host may use them. Only if the server runs as root"},
            1000, lastUid, MERGEN_MEMBER(vm.uidStart)),
        integer({"vm", "uid_count", "65536", "How many uids from uid_start on"}, 1, 1'000'000'000,
                MERGEN_MEMBER(vm.uidCount)),
        duration({"vm",
                  "start_timeout",
                  "1m",
                  "From the launch of a VMM until it says that the guest runs",
                  {.reloadable = true}},
                 1s, 1h, MERGEN_MEMBER(vm.startTimeout)),
        duration(
            {"vm", "stop_grace", "10s", "From the guest's Ctrl-Alt-Del to SIGTERM for its VMM", {.reloadable = true}},
            0ms, 1h, MERGEN_MEMBER(vm.stopGrace)),
        duration(
            {"vm", "kill_grace", "2s", "From SIGTERM to SIGKILL, and from SIGKILL to giving up", {.reloadable = true}},
            100ms, 10min, MERGEN_MEMBER(vm.killGrace)),
        duration({"vm", "control_timeout", "5s", "One question to a VMM over its socket", {.reloadable = true}}, 100ms,
                 10min, MERGEN_MEMBER(vm.controlTimeout)),
        duration({"vm",
                  "probe_interval",
                  "10s",
                  "How often each running VM's VMM is asked whether it still answers; 0s: never",
                  {.reloadable = true}},
                 100ms, 24h, MERGEN_MEMBER(vm.probeInterval), /*never=*/true),
        duration({"vm", "probe_timeout", "2s", "How long that answer may take", {.reloadable = true}}, 10ms, 1min,
                 MERGEN_MEMBER(vm.probeTimeout)),
        integer({"vm",
                 "probe_failures",
                 "3",
                 "After so many such questions in a row without an answer the VM is unresponsive",
                 {.reloadable = true}},
                1, 1000, MERGEN_MEMBER(vm.probeFailures)),
        size({"vm",
              "console_limit",
              "1MiB",
              "The newest bytes of each VM's console that are kept",
              {.reloadable = true}},
             Bytes{4 * kib}, Bytes{gib}, MERGEN_MEMBER(vm.consoleLimit)),
        integer({"vm", "events_per_vm", "256", "The newest events of each VM's timeline that are kept"}, 16, 100'000,
                MERGEN_MEMBER(vm.eventsPerVm)),
        custom(
            {"vm",
             "unit_prefix",
             "fc",
             "Beginning of the unit's name, PREFIX@ID.service, in replies",
             {.oldVariable = "MGR_UNIT_PREFIX", .mergenDefault = "mergen"}},
            "name", readUnitPrefix, [](const std::string& prefix) { return prefix; }, MERGEN_MEMBER(vm.unitPrefix)),

        name({"backends", "storage", "files", "Plugin that keeps the records"}, MERGEN_MEMBER(backends.storage)),
        name({"backends", "supervisor", "process", "Plugin that keeps VMM processes"},
             MERGEN_MEMBER(backends.supervisor)),
        name({"backends", "network", "linux", "Plugin that connects guests"}, MERGEN_MEMBER(backends.network)),
        names({"backends", "vmm", "auto",
               "Plugins that run microVMs, with commas between them; new VMs are made with the first. auto: "
               "firecracker where its program is and a trial guest shows that KVM runs guests, else qemu"},
              MERGEN_MEMBER(backends.vmms)),
        duration({"backends", "preflight_timeout", "10s", "How long the trial load of one plugin may take"}, 100ms,
                 10min, MERGEN_MEMBER(backends.preflightTimeout)),
    };
}

#undef MERGEN_MEMBER

}  // namespace

std::string_view toString(Profile profile) noexcept {
    return profile == Profile::Mergen ? "mergen" : "mergen-fire";
}

std::string ConfigKey::variable() const {
    return variableFor(section, key);
}

std::string ConfigKey::explanation() const {
    std::string text = sentence + ".";
    if (traits.mergenDefault != nullptr) text += std::string(" Under mergen: ") + traits.mergenDefault + ".";
    if (traits.oldVariable != nullptr) {
        const bool seconds = std::string_view(traits.oldVariable).ends_with("_SECONDS");
        text += std::string(" Also taken from ") + traits.oldVariable + (seconds ? ", in seconds." : ".");
    }
    if (traits.belowStateDir != nullptr) text += std::string(" Also MERGEN_STATE_DIR/") + traits.belowStateDir + ".";
    if (traits.reloadable) text += " SIGHUP reloads it.";
    return text;
}

std::span<const ConfigKey> configKeys() {
    static const std::vector<ConfigKey> keys = makeKeys();
    return keys;
}

}  // namespace mergen::server
