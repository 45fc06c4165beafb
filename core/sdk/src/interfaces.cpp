// Key functions of the interfaces: their vtables and type information live in this library, so that a cast or a catch
// means the same in the host and in every plugin.
#include <mergen/sdk/network.hpp>
#include <mergen/sdk/plugin.hpp>
#include <mergen/sdk/storage.hpp>
#include <mergen/sdk/supervisor.hpp>
#include <mergen/sdk/vmm.hpp>

namespace mergen {

Host::~Host() = default;
Plugin::~Plugin() = default;
StorageBackend::~StorageBackend() = default;
ExitListener::~ExitListener() = default;
SupervisorBackend::~SupervisorBackend() = default;
NetworkBackend::~NetworkBackend() = default;
VmmBackend::~VmmBackend() = default;

VmmFitness VmmBackend::fitness() const {
    const Health found = health();
    return {.fit = found.ok, .reason = found.detail};
}

std::string VmmBackend::exitMeaning(const ExitStatus& /*exit*/) const {
    return {};
}

void VmmBackend::checkStart(const GuestSpec& /*guest*/) const {}

void VmmBackend::importKernel(const std::filesystem::path& /*kernel*/) const {}

bool VmmBackend::giveUpRoom() {
    return false;
}

void VmmBackend::prepare(const GuestSpec& /*guest*/, const VmmPlace& /*place*/) {}

void VmmBackend::adjust(const VmmPlace& /*place*/, const GuestSpec& /*guest*/, std::chrono::milliseconds /*timeout*/) {
    throw Error(ErrorKind::NotSupported, "this VMM cannot change a guest that runs");
}

std::string VmmBackend::metrics(const VmmPlace& /*place*/, std::chrono::milliseconds /*timeout*/) {
    throw Error(ErrorKind::NotSupported, "this VMM has no metrics");
}

std::filesystem::path VmmBackend::vsockPath(const VmmPlace& /*place*/) const {
    return {};
}

std::vector<Uuid> VmmBackend::list() const {
    return {};
}

void VmmBackend::removeStray(const Uuid& /*vm*/) {}

std::string_view toString(RestartPolicy policy) noexcept {
    switch (policy) {
        case RestartPolicy::No:
            return "no";
        case RestartPolicy::OnFailure:
            return "on-failure";
        case RestartPolicy::Always:
            return "always";
    }
    return "unknown";
}

std::optional<RestartPolicy> parseRestartPolicy(std::string_view text) noexcept {
    for (const RestartPolicy policy : {RestartPolicy::No, RestartPolicy::OnFailure, RestartPolicy::Always}) {
        if (toString(policy) == text) return policy;
    }
    return std::nullopt;
}

std::string_view toString(GuestState state) noexcept {
    switch (state) {
        case GuestState::NotStarted:
            return "not started";
        case GuestState::Running:
            return "running";
        case GuestState::Paused:
            return "paused";
        case GuestState::Ended:
            return "ended";
    }
    return "unknown";
}

}  // namespace mergen
