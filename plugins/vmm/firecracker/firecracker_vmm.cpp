#include "firecracker_vmm.hpp"

#include <algorithm>
#include <string_view>
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

#include "api_client.hpp"
#include "command_line.hpp"
#include "kernel_image.hpp"
#include "kernel_import.hpp"

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

[[noreturn]] void cannot(std::string_view what) {
    throw Error(ErrorKind::FailedPrecondition, "cannot " + std::string(what) + " a guest that is not started");
}

/// What this version cannot give a guest, before a call that it would refuse in words of its own.
void requireFeatures(const FirecrackerVersion& version, const GuestSpec& guest) {
    requireVersion(version, oldestVersion, "Mergen", "");
    checkKernel(guest.kernel, KernelUse::Loaded, version);
    for (std::size_t i = 0; i < guest.nics.size(); ++i) {
        if (firecracker::networkInterface(guest.nics[i])->has("mtu"))
            requireVersion(version, firstWithMtu, "an MTU of a network interface",
                           "nics[" + std::to_string(i) + "].mtu");
    }
}

}  // namespace

const mergen_key FirecrackerVmm::keys[] = {
    {"binary", MERGEN_KEY_PATH, "firecracker",
     "Firecracker's program: an absolute path, or a bare name that is looked for in /usr/local/sbin, /usr/local/bin, "
     "/usr/sbin, /usr/bin, /sbin and /bin. Nobody but root and the server's user may be able to change it."},
    {"kvm_device", MERGEN_KEY_PATH, "/dev/kvm", "KVM's device, an absolute path; its group is given to VMs."},
    {"probe", MERGEN_KEY_BOOLEAN, "true",
     "Whether KVM is tried out with a trial guest, once per boot of the host. false: it is taken to run guests."},
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
    host_ = &host;
}

void FirecrackerVmm::start() {
    std::string found = "none";
    version_.reset();
    try {
        const std::filesystem::path path = program();
        version_ = askVersion(path);
        found = path.string();
    } catch (const Error& error) {
        found = error.what();
    }
    if (probe_) {
        kvm_ = findKvm({.program = host_->paths().libexec / "mergen-kvm-probe",
                        .device = kvmDevice_,
                        .memory = host_->paths().runRoot / "kvm"});
    } else {
        kvm_ = findDeviceAccess(kvmDevice_);
        kvm_.usable = true;
        kvm_.reason = "not tried out, as the settings say";
    }
    tun_ = findDeviceAccess(tunDevice_);
    host_->log().info("vmm.firecracker.started",
                      {{"program", found}, {"version", version_ ? version_->str() : "unknown"}, {"kvm", kvm_.reason}});
}

std::filesystem::path FirecrackerVmm::program() const {
    if (version_) requireVersion(*version_, oldestVersion, "Mergen", "");
    return trustedProgram(programSetting_);
}

std::optional<FirecrackerVersion> FirecrackerVmm::askVersion(const std::filesystem::path& program) const {
    constexpr std::string_view name = "Firecracker ";
    const RunResult result = run(SpawnOptions{.arguments = {program.string(), "--version"}, .environment = {}}, 5s);
    const std::string_view line = std::string_view(result.output).substr(0, result.output.find('\n'));
    if (result.timedOut || result.status != 0 || !line.starts_with(name)) return std::nullopt;
    return FirecrackerVersion::parse(trim(line.substr(name.size())));
}

Health FirecrackerVmm::health() const {
    std::string detail;
    try {
        detail = program().string();
    } catch (const Error& error) {
        return {.ok = false, .detail = error.what()};
    }
    if (version_) detail += " " + version_->str();
    if (!tun_.usable) detail += "; guests get no network card: " + tunDevice_.string() + ": " + tun_.reason;
    const std::string kvm = kvmDevice_.string() + ": " + kvm_.reason;
    if (kvm_.usable) return {.ok = true, .detail = detail + " (" + kvm + ")"};
    // Whether guests come up on a KVM that emulates is the operator's to try, who asked for this VMM.
    const bool opens = findDeviceAccess(kvmDevice_).usable;
    return {.ok = opens, .detail = detail + (opens ? "; guests may not come up: " : " runs no guests: ") + kvm};
}

VmmFitness FirecrackerVmm::fitness() const {
    try {
        static_cast<void>(program());
    } catch (const Error& error) {
        return {.fit = false, .reason = error.what()};
    }
    if (kvm_.usable && !tun_.usable) return {.fit = false, .reason = tunDevice_.string() + ": " + tun_.reason};
    return {.fit = kvm_.usable, .reason = kvmDevice_.string() + ": " + kvm_.reason};
}

std::string FirecrackerVmm::exitMeaning(const ExitStatus& exit) const {
    return vmm::exitMeaning(exit);
}

void FirecrackerVmm::check(const GuestSpec& guest) const {
    checkGuest(guest);
    checkKernel(guest.kernel, KernelUse::Given, version_);
}

void FirecrackerVmm::importKernel(const std::filesystem::path& kernel) const {
    importKernelImage(kernel, version_);
}

LaunchPlan FirecrackerVmm::plan(const GuestSpec& guest, const VmmPlace& place) const {
    checkKernel(guest.kernel, KernelUse::Loaded, version_);
    const std::filesystem::path path = [&] {
        try {
            return program();
        } catch (const Error& error) {
            throw Error(ErrorKind::FailedPrecondition,
                        std::string(error.what()) + "; set `binary` of [vmm.firecracker]");
        }
    }();
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

void FirecrackerVmm::boot(const VmmPlace& place, const GuestSpec& guest, std::chrono::milliseconds timeout,
                          const std::function<bool()>& alive) {
    const SteadyTime deadline = after(timeout);
    try {
        awaitSocket(place.controlSocket, "Firecracker", deadline, alive, [&] {
            auto api = ApiClient::tryConnect(place.controlSocket, place.credentials.uid, deadline, callPatience);
            if (!api) return false;
            switch (api->state()) {
                case GuestState::NotStarted:
                    configureGuest(*api, place, guest);
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

void FirecrackerVmm::configureGuest(ApiClient& api, const VmmPlace& place, const GuestSpec& guest) {
    requireFeatures(api.version(), guest);
    writeFileAtomically(configurationFile(place), json::render(*firecracker::configuration(guest), 2),
                        configurationMode, place.credentials);
    api.put("/machine-config", *firecracker::machineConfig(guest));
    api.put("/boot-source", *firecracker::bootSource(guest));
    for (const DiskSpec& disk : rootFirst(guest.disks)) api.put("/drives/" + disk.id, *firecracker::drive(disk));
    for (const NicSpec& nic : guest.nics) api.put("/network-interfaces/" + nic.id, *firecracker::networkInterface(nic));
}

GuestState FirecrackerVmm::query(const VmmPlace& place, std::chrono::milliseconds timeout) const {
    return connectTo(place, timeout).state();
}

void FirecrackerVmm::requestStop(const VmmPlace& place, std::chrono::milliseconds timeout) {
    ApiClient api = connectTo(place, timeout);
    const GuestState state = api.state();
    if (state == GuestState::NotStarted) cannot("ask");
    if (state == GuestState::Paused) wake(api);
    api.put("/actions", *single("action_type", "SendCtrlAltDel"));
}

void FirecrackerVmm::pause(const VmmPlace& place, std::chrono::milliseconds timeout) {
    ApiClient api = connectTo(place, timeout);
    const GuestState state = api.state();
    if (state == GuestState::NotStarted) cannot("pause");
    if (state == GuestState::Running) api.patch("/vm", *single("state", "Paused"));
}

void FirecrackerVmm::resume(const VmmPlace& place, std::chrono::milliseconds timeout) {
    ApiClient api = connectTo(place, timeout);
    const GuestState state = api.state();
    if (state == GuestState::NotStarted) cannot("resume");
    if (state == GuestState::Paused) wake(api);
}

void FirecrackerVmm::cleanUp(const VmmPlace& place) {
    MERGEN_FAILPOINT("vmm.firecracker.clean_up");
    removeTree(place.controlSocket);
    removeTree(configurationFile(place));
}

}  // namespace mergen::vmm
