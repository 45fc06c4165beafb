#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include <mergen/engine/vm.hpp>
#include <mergen/sdk/error.hpp>

namespace mergen::api {

/// What REST needs of the engine and no more, so that its tests run against a fake. One implementation stands over
/// engine::Engine (ApiServer's own); meaning and errors of every call are those of the engine's call of that name.
/// Threads: every method from any thread at once.
class VmService {
public:
    /// A VM that was made. If it was to be started and only that failed, it is kept, and `startFailure` says why.
    struct Created {
        std::string id;
        std::optional<Error> startFailure;
    };

    VmService() = default;
    VmService(const VmService&) = delete;
    VmService& operator=(const VmService&) = delete;
    virtual ~VmService() = default;

    virtual Created create(const engine::CreateRequest& request) = 0;
    virtual void start(const std::string& id) = 0;
    virtual engine::StoppedBy stop(const std::string& id) = 0;
    virtual void pause(const std::string& id) = 0;
    virtual void resume(const std::string& id) = 0;
    virtual void change(const std::string& id, const engine::ChangeRequest& request) = 0;
    virtual engine::StoppedBy remove(const std::string& id, bool retainData) = 0;
    [[nodiscard]] virtual engine::VmView get(const std::string& id) const = 0;
    [[nodiscard]] virtual std::vector<engine::VmView> list() const = 0;
    [[nodiscard]] virtual std::vector<engine::Event> events(const std::string& id) const = 0;
    [[nodiscard]] virtual std::string console(const std::string& id, const engine::ConsoleTail& tail) const = 0;
    [[nodiscard]] virtual std::string metrics(const std::string& id) const = 0;
    [[nodiscard]] virtual std::string vmConfig(const std::string& id) const = 0;
    [[nodiscard]] virtual std::vector<engine::ComponentHealth> health() const = 0;
    /// The prefix of unit names in the `systemd` block: "fc" of "fc@<id>.service".
    [[nodiscard]] virtual std::string unitPrefix() const = 0;
};

}  // namespace mergen::api
