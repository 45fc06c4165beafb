#include "qemu_vmm.hpp"

#include <algorithm>
#include <initializer_list>
#include <optional>
#include <string_view>
#include <unistd.h>
#include <utility>

#include <Poco/JSON/Array.h>

#include <mergen/base/file.hpp>
#include <mergen/base/json.hpp>
#include <mergen/base/kvm.hpp>
#include <mergen/base/text.hpp>
#include <mergen/base/unix_socket.hpp>
#include <mergen/sdk/error.hpp>
#include <mergen/sdk/failpoint.hpp>

#include "qmp_client.hpp"

namespace mergen::vmm {
namespace {

using namespace std::chrono_literals;

SteadyTime after(std::chrono::milliseconds timeout) {
    return std::chrono::steady_clock::now() + timeout;
}

const std::string& oneOf(const Settings& settings, std::string_view key,
                         std::initializer_list<std::string_view> words) {
    const std::string& value = settings.text(key);
    if (std::find(words.begin(), words.end(), value) != words.end()) return value;
    std::string choice;
    for (const std::string_view word : words) choice += (choice.empty() ? "" : ", ") + std::string(word);
    throw Error(ErrorKind::InvalidArgument, std::string(key) + " = " + printable(value) + ": must be one of " + choice)
        .about(std::string(key));
}

std::filesystem::path absolutePath(const Settings& settings, std::string_view key) {
    std::filesystem::path path = settings.path(key);
    if (path.is_absolute()) return path;
    throw Error(ErrorKind::InvalidArgument,
                std::string(key) + " = " + printable(path.string()) + ": must be an absolute path")
        .about(std::string(key));
}

/// QEMU's RunState (qapi/run-state.json) as the guest's.
std::optional<GuestState> guestState(std::string_view status) {
    using enum GuestState;
    static constexpr std::pair<std::string_view, GuestState> states[] = {
        {"prelaunch", NotStarted}, {"inmigrate", NotStarted}, {"running", Running},       {"paused", Paused},
        {"suspended", Paused},     {"io-error", Paused},      {"debug", Paused},          {"watchdog", Paused},
        {"save-vm", Paused},       {"restore-vm", Paused},    {"finish-migrate", Paused}, {"postmigrate", Paused},
        {"shutdown", Ended},       {"guest-panicked", Ended}, {"internal-error", Ended},
    };
    const auto* found =
        std::find_if(std::begin(states), std::end(states), [&](const auto& s) { return s.first == status; });
    if (found == std::end(states)) return std::nullopt;
    return found->second;
}

GuestState queryState(QmpClient& qmp) {
    const std::string status = qmp.queryStatus();
    const auto state = guestState(status);
    if (!state)
        throw Error(ErrorKind::Unavailable,
                    "QEMU says that its guest is '" + printable(status) + "', which is unknown");
    return *state;
}

/// Nothing if nobody listens. A QEMU that an earlier release of the server started has the control socket only.
std::optional<QmpClient> tryConnectTo(const VmmPlace& place, SteadyTime deadline) {
    auto qmp = QmpClient::tryConnect(serverSocket(place), place.credentials.uid, deadline);
    return qmp ? std::move(qmp) : QmpClient::tryConnect(place.controlSocket, place.credentials.uid, deadline);
}

QmpClient connectTo(const VmmPlace& place, SteadyTime deadline) {
    auto qmp = tryConnectTo(place, deadline);
    return qmp ? std::move(*qmp) : QmpClient::connect(place.controlSocket, place.credentials.uid, deadline);
}

[[noreturn]] void cannot(std::string_view what, GuestState state) {
    throw Error(ErrorKind::FailedPrecondition,
                "cannot " + std::string(what) + " a guest that is " + std::string(toString(state)));
}

}  // namespace

const mergen_key QemuVmm::keys[] = {
    {"binary", MERGEN_KEY_PATH, "/usr/bin/qemu-system-x86_64", "QEMU's program for x86-64 machines, an absolute path."},
    {"accel", MERGEN_KEY_STRING, "auto",
     "Who runs a guest's instructions: kvm (the processor), tcg (plain emulation), or auto: kvm where a trial guest "
     "shows "
     "that it works, else tcg."},
    {"machine", MERGEN_KEY_STRING, "auto",
     "The machine that a guest sees: q35 (a PC), microvm (small, boots faster), or auto: microvm with kvm, q35 with "
     "tcg."},
    {"kvm_device", MERGEN_KEY_PATH, "/dev/kvm",
     "KVM's device, an absolute path; its group is given to VMs that use it."},
    {nullptr, MERGEN_KEY_STRING, nullptr, nullptr},
};

void QemuVmm::configure(Host& host) {
    const Settings& settings = host.settings();
    platform_.program = absolutePath(settings, "binary");
    kvmDevice_ = absolutePath(settings, "kvm_device");
    accelSetting_ = oneOf(settings, "accel", {"auto", "kvm", "tcg"});
    machineSetting_ = oneOf(settings, "machine", {"auto", "q35", "microvm"});
    host_ = &host;
}

void QemuVmm::start() {
    platform_.accelerator = Accelerator::Tcg;
    platform_.kvmGroup.reset();
    std::string reason = "as the settings say";
    if (accelSetting_ != "tcg") {
        const DeviceFinding kvm = findKvm({.program = host_->paths().libexec / "mergen-kvm-probe",
                                           .device = kvmDevice_,
                                           .memory = host_->paths().runRoot / "kvm"});
        reason = kvmDevice_.string() + ": " + kvm.reason;
        if (kvm.usable) {
            platform_.accelerator = Accelerator::Kvm;
            platform_.kvmGroup = kvm.group;
        } else if (accelSetting_ == "kvm") {
            throw Error(ErrorKind::NotSupported, "accel = kvm, but KVM does not run guests here; " + reason);
        }
    }
    if (machineSetting_ == "auto") {
        platform_.machine = platform_.accelerator == Accelerator::Kvm ? Machine::Microvm : Machine::Q35;
    } else {
        platform_.machine = machineSetting_ == "q35" ? Machine::Q35 : Machine::Microvm;
    }
    finding_ = "guests run by " + std::string(toString(platform_.accelerator)) + " on a " +
               std::string(toString(platform_.machine)) + " machine (" + reason + ")";
    host_->log().info("vmm.qemu.started", {{"program", platform_.program.native()},
                                           {"accel", toString(platform_.accelerator)},
                                           {"machine", toString(platform_.machine)},
                                           {"reason", reason}});
}

bool QemuVmm::programThere() const {
    return ::access(platform_.program.c_str(), X_OK) == 0;
}

Health QemuVmm::health() const {
    if (!programThere())
        return {.ok = false,
                .detail = "there is no " + platform_.program.string() + ": install qemu-system-x86 or set `binary`"};
    return {.ok = true, .detail = finding_};
}

void QemuVmm::check(const GuestSpec& guest) const {
    checkGuest(guest);
}

LaunchPlan QemuVmm::plan(const GuestSpec& guest, const VmmPlace& place) const {
    LaunchPlan plan = commandLine(guest, place, platform_);
    if (!programThere()) {
        throw Error(ErrorKind::FailedPrecondition,
                    "there is no " + platform_.program.string() + ": install qemu-system-x86 or set `binary`");
    }
    return plan;
}

void QemuVmm::boot(const VmmPlace& place, const GuestSpec& /*guest: all of it is on the command line*/,
                   std::chrono::milliseconds timeout, const std::function<bool()>& alive) {
    const SteadyTime deadline = after(timeout);
    try {
        awaitSocket(watches_, place.controlSocket, "QEMU", deadline, alive, [&] {
            auto qmp = tryConnectTo(place, deadline);
            if (!qmp) return false;
            const GuestState state = queryState(*qmp);
            MERGEN_FAILPOINT("vmm.qemu.boot.before_cont");
            if (state == GuestState::NotStarted || state == GuestState::Paused) qmp->execute("cont");
            if (state == GuestState::Ended) cannot("boot", state);
            MERGEN_FAILPOINT("vmm.qemu.boot.after_cont");
            return true;
        });
    } catch (const Error& error) {
        throw error.within("booting a guest");
    }
}

GuestState QemuVmm::query(const VmmPlace& place, std::chrono::milliseconds timeout) const {
    QmpClient qmp = connectTo(place, after(timeout));
    return queryState(qmp);
}

void QemuVmm::requestStop(const VmmPlace& place, std::chrono::milliseconds timeout) {
    QmpClient qmp = connectTo(place, after(timeout));
    const GuestState state = queryState(qmp);
    if (state == GuestState::Ended) return;
    if (state == GuestState::NotStarted) cannot("ask", state);
    if (state == GuestState::Paused) qmp.execute("cont");
    Poco::JSON::Array::Ptr combination = new Poco::JSON::Array;
    for (const char* name : {"ctrl", "alt", "delete"}) {
        Poco::JSON::Object::Ptr key = json::object();
        key->set("type", "qcode");
        key->set("data", name);
        combination->add(key);
    }
    Poco::JSON::Object::Ptr arguments = json::object();
    arguments->set("keys", combination);
    qmp.execute("send-key", arguments);
}

void QemuVmm::pause(const VmmPlace& place, std::chrono::milliseconds timeout) {
    QmpClient qmp = connectTo(place, after(timeout));
    const GuestState state = queryState(qmp);
    if (state == GuestState::NotStarted || state == GuestState::Ended) cannot("pause", state);
    if (state == GuestState::Running) qmp.execute("stop");
}

void QemuVmm::resume(const VmmPlace& place, std::chrono::milliseconds timeout) {
    QmpClient qmp = connectTo(place, after(timeout));
    const GuestState state = queryState(qmp);
    if (state == GuestState::NotStarted || state == GuestState::Ended) cannot("resume", state);
    if (state == GuestState::Paused) qmp.execute("cont");
}

void QemuVmm::cleanUp(const VmmPlace& place) {
    MERGEN_FAILPOINT("vmm.qemu.clean_up");
    for (const auto& socket : {serverSocket(place), place.controlSocket}) removeTree(socket);
}

}  // namespace mergen::vmm
