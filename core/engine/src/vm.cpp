#include <algorithm>
#include <array>
#include <utility>

#include <mergen/engine/vm.hpp>

namespace mergen::engine {

namespace {
constexpr std::array<std::pair<VmState, std::string_view>, 10> names{{
    {VmState::Creating, "creating"},
    {VmState::Created, "created"},
    {VmState::Starting, "starting"},
    {VmState::Running, "running"},
    {VmState::Paused, "paused"},
    {VmState::Stopping, "stopping"},
    {VmState::Stopped, "stopped"},
    {VmState::Failed, "failed"},
    {VmState::Deleting, "deleting"},
    {VmState::Corrupt, "corrupt"},
}};
}  // namespace

std::string_view toString(VmState state) noexcept {
    const auto* found = std::ranges::find(names, state, &decltype(names)::value_type::first);
    return found == names.end() ? "unknown" : found->second;
}

namespace {
constexpr std::array<std::pair<EndedBy, std::string_view>, 6> endNames{{
    {EndedBy::Guest, "guest"},
    {EndedBy::Panic, "panic"},
    {EndedBy::Vmm, "vmm"},
    {EndedBy::Mergen, "mergen"},
    {EndedBy::Other, "other"},
    {EndedBy::Lost, "lost"},
}};
}  // namespace

std::string_view toString(EndedBy by) noexcept {
    const auto* found = std::ranges::find(endNames, by, &decltype(endNames)::value_type::first);
    return found == endNames.end() ? "unknown" : found->second;
}

std::optional<EndedBy> parseEndedBy(std::string_view text) noexcept {
    const auto* found = std::ranges::find(endNames, text, &decltype(endNames)::value_type::second);
    if (found == endNames.end()) return std::nullopt;
    return found->first;
}

std::string_view toString(OnUnresponsive policy) noexcept {
    switch (policy) {
        case OnUnresponsive::Nothing:
            return "none";
        case OnUnresponsive::Restart:
            return "restart";
        case OnUnresponsive::Stop:
            return "stop";
    }
    return "unknown";
}

std::optional<OnUnresponsive> parseOnUnresponsive(std::string_view text) noexcept {
    for (const auto policy : {OnUnresponsive::Nothing, OnUnresponsive::Restart, OnUnresponsive::Stop}) {
        if (toString(policy) == text) return policy;
    }
    return std::nullopt;
}

std::string_view toString(StoppedBy by) noexcept {
    switch (by) {
        case StoppedBy::Nothing:
            return "none";
        case StoppedBy::Guest:
            return "guest";
        case StoppedBy::Sigterm:
            return "SIGTERM";
        case StoppedBy::Sigkill:
            return "SIGKILL";
        case StoppedBy::Other:
            return "other";
    }
    return "unknown";
}

std::optional<VmState> parseVmState(std::string_view text) noexcept {
    const auto* found = std::ranges::find(names, text, &decltype(names)::value_type::second);
    if (found == names.end()) return std::nullopt;
    return found->first;
}

}  // namespace mergen::engine
