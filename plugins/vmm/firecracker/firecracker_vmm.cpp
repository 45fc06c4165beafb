#include "firecracker_vmm.hpp"

#include <algorithm>
#include <cerrno>
#include <string_view>
#include <sys/resource.h>
#include <unistd.h>
#include <utility>
#include <vector>

#include <mergen/base/file.hpp>
#include <mergen/base/guest.hpp>
#include <mergen/base/json.hpp>
#include <mergen/base/process.hpp>
#include <mergen/base/text.hpp>
#include <mergen/base/trust.hpp>
#include <mergen/base/unix_socket.hpp>
#include <mergen/sdk/error.hpp>
#include <mergen/sdk/failpoint.hpp>

#include "adjustments.hpp"
#include "api_client.hpp"
#include "cached_import.hpp"
#include "command_line.hpp"
#include "cpu_template.hpp"
#include "huge_pages.hpp"
#include "kernel_image.hpp"
#include "metrics_pipe.hpp"

namespace mergen::vmm {
namespace {

using namespace std::chrono_literals;

/// Of one call during boot. The longest of them maps the guest's memory and loads its kernel.
constexpr std::chrono::milliseconds callPatience = 20s;

/// Its configuration names files of the host's; nobody but the VM's user has a use for it.
constexpr mode_t configurationMode = 0400;

SteadyTime after(std::chrono::milliseconds timeout) {
    return std::chrono::steady_clock::now() + timeout;
}

ApiClient connectTo(const VmmPlace& place, std::chrono::milliseconds timeout) {
    return ApiClient::connect(place.controlSocket, place.credentials.uid, after(timeout), timeout);
}

Poco::JSON::Object::Ptr single(const char* name, const char* value) {
    Poco::JSON::Object::Ptr object = json::object();
    object->set(name, std::string(value));
    return object;
}

void wake(ApiClient& api) {
    api.patch("/vm", *single("state", "Resumed"));
}

/// `socket`, and what lies beside it as `socket`_<port>.
void removeSockets(const std::filesystem::path& socket) {
    const std::string name = socket.filename().string();
    std::error_code none;  // no folder, nothing to remove
    std::vector<std::filesystem::path> found;
    for (const auto& entry : std::filesystem::directory_iterator(socket.parent_path(), none)) {
        const std::string each = entry.path().filename().string();
        if (each == name || each.starts_with(name + "_")) found.push_back(entry.path());
    }
    for (const std::filesystem::path& each : found) removeTree(each);
}

[[noreturn]] void cannot(std::string_view what) {
    throw Error(ErrorKind::FailedPrecondition, "cannot " + std::string(what) + " a guest that is not started");
}

}  // namespace

const mergen_key FirecrackerVmm::keys[] = {
    {"binary", MERGEN_KEY_PATH, "firecracker",
     "Firecracker's program: an absolute path, or a bare name that is looked for in /usr/local/sbin, /usr/local/bin, "
     "/usr/sbin, /usr/bin, /sbin and /bin. Nobody but root and the server's user may be able to change it."},
    {"kvm_device", MERGEN_KEY_PATH, "/dev/kvm", "KVM's device, an absolute path; its group is given to VMs."},
    {"probe", MERGEN_KEY_BOOLEAN, "true",
     "Whether KVM is tried out with a trial guest, once per boot of the host. false: where VMs can open it, it is "
     "taken to run guests."},
    {"jailer", MERGEN_KEY_STRING, "auto",
     "The jailer that starts Firecracker: auto (the one beside Firecracker or in those folders, if the server is "
     "root), off, an absolute path, or a bare name. It must be of Firecracker's release."},
    {"allow_vulnerable", MERGEN_KEY_BOOLEAN, "false",
     "Whether releases of Firecracker and its jailer with known ways out (before 1.14.4, and 1.15.0) are used, "
     "or that do not say which they are."},
    {"cgroup", MERGEN_KEY_STRING, "auto",
     "auto: a jailed VM has control groups that limit its memory and tasks, where the host has such. off: none."},
    {"memory_overhead", MERGEN_KEY_SIZE, "64MiB",
     "What a jailed Firecracker may use beside its guest's memory before the control group's limit is reached."},
    {"file_size_limit", MERGEN_KEY_SIZE, "0",
     "The size of the largest file that a jailed Firecracker may write, no less than the largest disk. 0: no limit."},
    {"kernel_cache", MERGEN_KEY_SIZE, "1GiB",
     "The most bytes of unpacked kernels that are kept in the data root for the next VM, 32 kernels at most; those "
     "used least recently go first, also where fewer bytes than this would be left free, and all for a create that "
     "finds no room. 0: none."},
    {nullptr, MERGEN_KEY_STRING, nullptr, nullptr},
};

void FirecrackerVmm::configure(Host& host) {
    const Settings& settings = host.settings();
    programSetting_ = settings.path("binary");
    if (programSetting_.empty() || (programSetting_.has_parent_path() && !programSetting_.is_absolute())) {
        throw Error(ErrorKind::InvalidArgument, "binary = " + printable(programSetting_.string()) +
                                                    ": must be an absolute path or the bare name of a program")
            .about("binary");
    }
    kvmDevice_ = settings.path("kvm_device");
    if (!kvmDevice_.is_absolute()) {
        throw Error(ErrorKind::InvalidArgument,
                    "kvm_device = " + printable(kvmDevice_.string()) + ": must be an absolute path")
            .about("kvm_device");
    }
    probe_ = settings.boolean("probe");
    jailerWish_ = {settings.text("jailer"), settings.boolean("allow_vulnerable")};
    checkJailerSetting(jailerWish_.jailer);
    const std::string& cgroup = settings.text("cgroup");
    if (cgroup != "auto" && cgroup != "off") {
        throw Error(ErrorKind::InvalidArgument, "cgroup = " + printable(cgroup) + ": must be auto or off")
            .about("cgroup");
    }
    cgroupWanted_ = cgroup == "auto";
    memoryOverhead_ = Bytes{settings.bytes("memory_overhead")};
    fileSizeLimit_ = Bytes{settings.bytes("file_size_limit")};
    kernelCacheSize_ = Bytes{settings.bytes("kernel_cache")};
    host_ = &host;
}

void FirecrackerVmm::start() {
    std::string found = "none";
    version_.reset();
    jailing_.reset();
    jails_ = std::make_unique<JailYard>(host_->paths().dataRoot);
    kernelCache_ = std::make_unique<KernelCache>(host_->paths().dataRoot, KernelCacheLimits{kernelCacheSize_.count});
    try {
        kernelCache_->sweep();
    } catch (const Error& error) {
        host_->log().warning("vmm.firecracker.kernel_cache.not_swept", {{"error", error.what()}});
    }
    constexpr std::size_t mountInfoLimit = 16U << 20U;
    cgroups_ = std::make_unique<CgroupTree>(
        readCgroupLayout(readFile("/proc/self/mountinfo", mountInfoLimit).value_or(""), "/"), host_->instance());
    try {
        const std::filesystem::path path = trustedProgram(programSetting_);
        version_ = askVersion(path, "Firecracker");
        requireRelease(version_);
        found = path.string();
        jailing_ = jailing(path);
        found += ", " + jailing_->reason;
    } catch (const Error& error) {
        found = error.what();
    }
    kvm_ = findDeviceAccess(kvmDevice_);
    kvmTrial_.reset();
    if (probe_) {
        kvmTrial_ = tryKvm({.program = host_->paths().libexec / "mergen-kvm-probe",
                            .device = kvmDevice_,
                            .memory = host_->paths().runRoot / "kvm"});
    }
    tun_ = findDeviceAccess(tunDevice_);
    cpuVendor_ = readCpuVendor(root_);
    host_->log().info("vmm.firecracker.started", {{"program", found},
                                                  {"version", version_ ? version_->str() : "unknown"},
                                                  {"kvm", kvmOf(jailing_ && jailing_->jailer).reason}});
}

void FirecrackerVmm::requireRelease(const std::optional<FirecrackerVersion>& version) const {
    if (version) requireVersion(*version, oldestVersion, "Mergen", "");
    if (jailerWish_.allowVulnerable || (version && !hasKnownHoles(*version))) return;
    const std::string advice = ": use 1.14.4, 1.15.1 or newer, or set allow_vulnerable = true";
    throw Error(
        ErrorKind::NotSupported,
        version ? "Firecracker " + version->str() + " has known holes (CVE-2026-5747)" + advice
                : programSetting_.string() + " does not say which Firecracker it is, as `--version` should" + advice);
}

std::filesystem::path FirecrackerVmm::program() const {
    std::filesystem::path path = trustedProgram(programSetting_);
    requireRelease(version_ ? version_ : askVersion(path, "Firecracker"));
    return path;
}

Jailing FirecrackerVmm::jailing(const std::filesystem::path& program) const {
    if (jailing_) return *jailing_;
    return findJailer(jailerWish_, program, version_ ? version_ : askVersion(program, "Firecracker"));
}

std::pair<std::filesystem::path, Jailing> FirecrackerVmm::programToStart() const {
    const char* setting = "binary";
    try {
        std::filesystem::path path = program();
        setting = "jailer";
        Jailing how = jailing(path);
        return {std::move(path), std::move(how)};
    } catch (const Error& error) {
        throw Error(ErrorKind::FailedPrecondition,
                    std::string(error.what()) + "; see `" + setting + "` of [vmm.firecracker]");
    }
}

FirecrackerVmm::Seen FirecrackerVmm::seen(const VmmPlace& place, const GuestSpec& guest) const {
    if (jails_->find(place.owner.vm).empty()) return {false, guest, devicePaths(place)};
    return {true, seenFromJail(guest), {.vsock = jailed::vsock, .metrics = jailed::metrics}};
}

void FirecrackerVmm::writeConfiguration(const VmmPlace& place, const Seen& seen) const {
    const std::string text = json::render(*firecracker::configuration(seen.guest, seen.paths), 2);
    const auto& mmds = seen.guest.mmds;
    if (seen.jailed) {
        jails_->write(place.owner.vm, jailed::configuration, text, place.credentials);
        if (mmds) jails_->write(place.owner.vm, jailed::metadata, mmds->content, place.credentials);
        return;
    }
    writeFileAtomically(configurationFile(place), text, configurationMode, place.credentials);
    if (mmds) writeFileAtomically(metadataFile(place), mmds->content, configurationMode, place.credentials);
}

DeviceFinding FirecrackerVmm::kvmOpens(bool isJailed) const {
    return isJailed ? findDevice(kvmDevice_) : findDeviceAccess(kvmDevice_);
}

DeviceFinding FirecrackerVmm::kvmOf(bool isJailed) const {
    // As it was found at the start, save that a jailer makes a device of the VM's own user where there is one.
    if (!isJailed && !kvm_.usable) return kvm_;
    if (kvmTrial_) return *kvmTrial_;
    DeviceFinding kvm = isJailed ? kvmOpens(isJailed) : kvm_;
    if (kvm.usable) kvm.reason = "not tried out, as the settings say";
    return kvm;
}

Health FirecrackerVmm::health() const {
    std::string detail;
    bool isJailed = false;
    try {
        const std::filesystem::path path = program();
        const Jailing how = jailing(path);
        isJailed = how.jailer.has_value();
        detail = path.string() + (version_ ? " " + version_->str() : "") + ", " + how.reason;
    } catch (const Error& error) {
        return {.ok = false, .detail = error.what()};
    }
    if (isJailed) detail += ", " + (cgroupWanted_ ? cgroups_->layout().reason : std::string("cgroup = off"));
    if (!tun_.usable && !isJailed)
        detail += "; guests get no network card: " + tunDevice_.string() + ": " + tun_.reason;
    const DeviceFinding found = kvmOf(isJailed);
    const std::string kvm = kvmDevice_.string() + ": " + found.reason;
    if (found.usable) return {.ok = true, .detail = detail + " (" + kvm + ")"};
    // Whether guests come up on a KVM that emulates is the operator's to try, who asked for this VMM.
    const bool opens = kvmOpens(isJailed).usable;
    return {.ok = opens, .detail = detail + (opens ? "; guests may not come up: " : "; it runs no guests: ") + kvm};
}

VmmFitness FirecrackerVmm::fitness() const {
    bool isJailed = false;
    try {
        isJailed = jailing(program()).jailer.has_value();
    } catch (const Error& error) {
        return {.fit = false, .reason = error.what()};
    }
    const DeviceFinding kvm = kvmOf(isJailed);
    if (kvm.usable && !tun_.usable && !isJailed)
        return {.fit = false, .reason = tunDevice_.string() + ": " + tun_.reason};
    return {.fit = kvm.usable, .reason = kvmDevice_.string() + ": " + kvm.reason};
}

std::string FirecrackerVmm::exitMeaning(const ExitStatus& exit) const {
    return vmm::exitMeaning(exit);
}

void FirecrackerVmm::check(const GuestSpec& guest) const {
    checkGuest(guest);
    if (version_) requireFeatures(*version_, guest);
    requireTemplateOfVendor(guest, cpuVendor_);
    requireHugePages(guest, root_);
    checkKernel(guest.kernel, KernelUse::Given, version_);
}

void FirecrackerVmm::checkStart(const GuestSpec& guest) const {
    requireTemplateOfVendor(guest, cpuVendor_);
    requireFreeHugePages(guest, root_);
}

void FirecrackerVmm::importKernel(const std::filesystem::path& kernel) const {
    importKernelThrough(*kernelCache_, unpackTurns_, kernel, version_, host_->log());
}

bool FirecrackerVmm::giveUpRoom() {
    return kernelCache_->drop();
}

LaunchPlan FirecrackerVmm::plan(const GuestSpec& guest, const VmmPlace& place) const {
    checkKernel(guest.kernel, KernelUse::Loaded, version_);
    const auto [path, how] = programToStart();
    if (how.jailer) return planJailed(guest, place, *how.jailer, path);
    std::vector<std::uint32_t> groups;
    if (kvm_.group) groups.push_back(*kvm_.group);
    if (!guest.nics.empty()) {
        // Where VMs run as our own user, its rights are what counts, and Firecracker says if they do not do.
        if (!tun_.usable && place.credentials.uid != ::geteuid()) {
            throw Error(ErrorKind::FailedPrecondition, "Firecracker's guests get no network card on this host: " +
                                                           tunDevice_.string() + ": " + tun_.reason);
        }
        if (tun_.group && tun_.group != kvm_.group) groups.push_back(*tun_.group);
    }
    return commandLine(guest, place, path, std::move(groups));
}

LaunchPlan FirecrackerVmm::planJailed(const GuestSpec& guest, const VmmPlace& place,
                                      const std::filesystem::path& jailer, const std::filesystem::path& path) const {
    JailOrder order{.jailer = jailer,
                    .program = path,
                    .base = jails_->base(),
                    .root = jails_->rootOf(path.filename().string(), place.owner.vm),
                    .cgroupVersion = 0,
                    .parentCgroup = cgroups_->parent(),
                    .cgroups = {},
                    .fileSize = fileSizeLimit_};
    if (cgroupWanted_) {
        // Firecracker's own threads are three and one for each processor; the rest is room.
        constexpr unsigned ownTasks = 32;
        const Bytes memory{(guest.memory.count << 20U) + memoryOverhead_.count};
        order.cgroupVersion = cgroups_->layout().version;
        order.cgroups = cgroupWords(cgroups_->layout(), {memory, guest.vcpus + ownTasks});
    }
    // A root without CAP_SYS_RESOURCE cannot raise its limit.
    rlimit ours{};
    if (::getrlimit(RLIMIT_NOFILE, &ours) != 0) throw Error::fromErrno(errno, "cannot read the limit of open files");
    order.openFiles = std::min<std::uint64_t>(order.openFiles, ours.rlim_max);
    return jailedCommandLine(guest, place, order);
}

void FirecrackerVmm::prepare(const GuestSpec& guest, const VmmPlace& place) {
    checkGuest(guest);
    const auto [path, how] = programToStart();
    removeJail(place.owner.vm);
    if (!how.jailer) return;
    const std::string name = path.filename().string();
    jails_->make(name, guest, place);
    findRoomFor(path);
    if (cgroupWanted_) cgroups_->make(place.owner.vm);
    MERGEN_FAILPOINT("vmm.firecracker.prepare.cgroup");
    // Short where the jail's own path is not (unix(7)); a jailed Firecracker does not see the folder that it lies in.
    removeTree(place.controlSocket);
    const std::filesystem::path socket =
        jails_->rootOf(name, place.owner.vm) / std::filesystem::path(jailed::socket).relative_path();
    if (::symlink(socket.c_str(), place.controlSocket.c_str()) != 0)
        throw Error::fromErrno(errno, "cannot make the link " + place.controlSocket.string());
    MERGEN_FAILPOINT("vmm.firecracker.prepare.socket");
}

void FirecrackerVmm::findRoomFor(const std::filesystem::path& program) {
    std::error_code error;
    const std::uint64_t size = std::filesystem::file_size(program, error);
    if (error) throw Error::fromErrno(error.value(), "cannot inspect " + program.string());
    if (jails_->freeBytes() >= size) return;
    static_cast<void>(giveUpRoom());
    const std::uint64_t free = jails_->freeBytes();
    if (free >= size) return;
    constexpr std::uint64_t kibi = 1U << 10U;
    throw Error::fromErrno(ENOSPC, "a jail needs " + std::to_string(size / kibi + 1) + " KiB for a copy of " +
                                       program.string() + ", and at " + jails_->base().string() + " " +
                                       std::to_string(free / kibi) + " KiB are free");
}

void FirecrackerVmm::boot(const VmmPlace& place, const GuestSpec& guest, std::chrono::milliseconds timeout,
                          const std::function<bool()>& alive) {
    const SteadyTime deadline = after(timeout);
    const std::filesystem::path root = jails_->find(place.owner.vm);
    // Its folder is watched: where the link points to.
    const std::filesystem::path socket =
        root.empty() ? place.controlSocket : root / std::filesystem::path(jailed::socket).relative_path();
    try {
        awaitSocket(watches_, socket, "Firecracker", deadline, alive, [&] {
            auto api = ApiClient::tryConnect(place.controlSocket, place.credentials.uid, deadline, callPatience);
            if (!api) return false;
            const ApiClient::Instance instance = api->instance();
            switch (instance.state) {
                case GuestState::NotStarted:
                    configureGuest(*api, instance.version, place, guest);
                    MERGEN_FAILPOINT("vmm.firecracker.boot.before_start");
                    api->put("/actions", *single("action_type", "InstanceStart"));
                    MERGEN_FAILPOINT("vmm.firecracker.boot.after_start");
                    break;
                case GuestState::Paused:
                    wake(*api);
                    break;
                case GuestState::Running:
                case GuestState::Ended:
                    break;
            }
            return true;
        });
    } catch (const Error& error) {
        throw error.within("booting a guest");
    }
}

void FirecrackerVmm::configureGuest(ApiClient& api, const std::string& told, const VmmPlace& place,
                                    const GuestSpec& asked) {
    const auto version = FirecrackerVersion::parse(told);
    if (!version) throw Error(ErrorKind::Unavailable, "GET /: its version is '" + printable(told) + "', which is none");
    requireFeatures(*version, asked);
    checkKernel(asked.kernel, KernelUse::Loaded, *version);
    const Seen seenHere = seen(place, asked);
    writeConfiguration(place, seenHere);
    const auto& [jailed, guest, paths] = seenHere;
    if (guest.metrics) {
        if (!jailed) makeMetricsPipe(paths.metrics, place.credentials);  // a jail has it already
        api.put("/metrics", *firecracker::metrics(paths));
    }
    api.put("/machine-config", *firecracker::machineConfig(guest));
    api.put("/boot-source", *firecracker::bootSource(guest));
    for (const DiskSpec& disk : rootFirst(guest.disks)) api.put("/drives/" + disk.id, *firecracker::drive(disk));
    for (const NicSpec& nic : guest.nics) api.put("/network-interfaces/" + nic.id, *firecracker::networkInterface(nic));
    if (guest.vsock) api.put("/vsock", *firecracker::vsock(*guest.vsock, paths));
    if (guest.balloon) api.put("/balloon", *firecracker::balloon(*guest.balloon));
    if (guest.entropy) api.put("/entropy", *firecracker::entropy(*guest.entropy));
    if (guest.mmds) {
        api.put("/mmds/config", *firecracker::mmdsConfig(guest));
        api.put("/mmds", *json::parseObject(guest.mmds->content));
    }
}

void FirecrackerVmm::adjust(const VmmPlace& place, const GuestSpec& guest, std::chrono::milliseconds timeout) {
    ApiClient api = connectTo(place, timeout);
    if (api.instance().state == GuestState::NotStarted) cannot("change");
    const Poco::JSON::Object::Ptr present = api.get("/vm/config");
    MERGEN_FAILPOINT("vmm.firecracker.adjust.before");
    const Seen wanted = seen(place, guest);
    for (const Adjustment& change : adjustments(*present, wanted.guest)) api.patch(change.path, *change.body);
    // Put anew in any case: no guest is interrupted by that.
    if (guest.mmds) api.put("/mmds", *json::parseObject(guest.mmds->content));
    writeConfiguration(place, wanted);  // what a restart without the server begins with
}

std::string FirecrackerVmm::metrics(const VmmPlace& place, std::chrono::milliseconds timeout) {
    const SteadyTime deadline = after(timeout);
    const auto ofJail = jails_->files(place.owner.vm);
    MetricsPipe pipe(ofJail ? inFolder(*ofJail, jailed::metrics) : devicePaths(place).metrics);
    pipe.empty();
    ApiClient api = connectTo(place, timeout);
    if (api.instance().state == GuestState::NotStarted) cannot("measure");
    api.put("/actions", *single("action_type", "FlushMetrics"));
    return pipe.line(deadline);
}

std::filesystem::path FirecrackerVmm::vsockPath(const VmmPlace& place) const {
    const std::filesystem::path root = jails_->find(place.owner.vm);
    return root.empty() ? devicePaths(place).vsock : root / std::filesystem::path(jailed::vsock).relative_path();
}

GuestState FirecrackerVmm::query(const VmmPlace& place, std::chrono::milliseconds timeout) const {
    return connectTo(place, timeout).instance().state;
}

void FirecrackerVmm::requestStop(const VmmPlace& place, std::chrono::milliseconds timeout) {
    ApiClient api = connectTo(place, timeout);
    const GuestState state = api.instance().state;
    if (state == GuestState::NotStarted) cannot("ask");
    if (state == GuestState::Paused) wake(api);
    api.put("/actions", *single("action_type", "SendCtrlAltDel"));
}

void FirecrackerVmm::pause(const VmmPlace& place, std::chrono::milliseconds timeout) {
    ApiClient api = connectTo(place, timeout);
    const GuestState state = api.instance().state;
    if (state == GuestState::NotStarted) cannot("pause");
    if (state == GuestState::Running) api.patch("/vm", *single("state", "Paused"));
}

void FirecrackerVmm::resume(const VmmPlace& place, std::chrono::milliseconds timeout) {
    ApiClient api = connectTo(place, timeout);
    const GuestState state = api.instance().state;
    if (state == GuestState::NotStarted) cannot("resume");
    if (state == GuestState::Paused) wake(api);
}

void FirecrackerVmm::cleanUp(const VmmPlace& place) {
    MERGEN_FAILPOINT("vmm.firecracker.clean_up");
    removeTree(place.controlSocket);
    removeTree(configurationFile(place));
    removeTree(metadataFile(place));
    const firecracker::DevicePaths paths = devicePaths(place);
    removeTree(paths.metrics);
    // With those that host programs made for ports on which they hear the guest.
    removeSockets(paths.vsock);
    MERGEN_FAILPOINT("vmm.firecracker.clean_up.files");
    removeJail(place.owner.vm);
}

void FirecrackerVmm::removeJail(const Uuid& vm) const {
    jails_->remove(vm);
    MERGEN_FAILPOINT("vmm.firecracker.clean_up.jail");
    cgroups_->remove(vm);
}

std::vector<Uuid> FirecrackerVmm::list() const {
    std::vector<Uuid> vms = jails_->list();
    const std::vector<Uuid> grouped = cgroups_->list();
    vms.insert(vms.end(), grouped.begin(), grouped.end());
    std::ranges::sort(vms);
    const auto twice = std::ranges::unique(vms);
    vms.erase(twice.begin(), twice.end());
    return vms;
}

void FirecrackerVmm::removeStray(const Uuid& vm) {
    removeJail(vm);
}

}  // namespace mergen::vmm
