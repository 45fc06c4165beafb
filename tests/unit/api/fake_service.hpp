#pragma once

#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include <mergen/api/vm_service.hpp>
#include <mergen/sdk/error.hpp>

namespace mergen::api::test {

/// What the fake engine knows; shared by the test and the server. Threads: any.
struct FakeState {
    std::mutex mutex;
    std::condition_variable changed;
    std::map<std::string, engine::VmView> vms;
    std::vector<std::string> calls;                    ///< "create", "start a", "delete a retain", ... in order
    std::vector<std::string> askers;                   ///< who asked for each of the calls (engine::AskedBy)
    std::optional<engine::CreateRequest> asked;        ///< the last one
    std::optional<engine::ChangeRequest> changeAsked;  ///< the last one
    std::optional<Error> failure;                      ///< thrown by every call while it is set
    std::optional<Error> startFailure;                 ///< of create() with autoStart
    std::function<void()> during;                      ///< called by start() under no lock
    std::vector<engine::ComponentHealth> components{{"storage", "fake", true, "fine"}};
    std::string consoleText;
    engine::ConsoleTail tail;  ///< the last one asked for
    unsigned made = 0;

    std::vector<std::string> log() {
        const std::lock_guard lock(mutex);
        return calls;
    }
};

/// A VM with every member set, for golden texts.
engine::VmView sampleVm(const std::string& id);

/// VMs that are rows of a map.
class FakeService final : public VmService {
public:
    explicit FakeService(std::shared_ptr<FakeState> state) : state_(std::move(state)) {}

    Created create(const engine::CreateRequest& request) override;
    void start(const std::string& id) override;
    engine::StoppedBy stop(const std::string& id) override;
    void pause(const std::string& id) override;
    void resume(const std::string& id) override;
    void change(const std::string& id, const engine::ChangeRequest& request) override;
    engine::StoppedBy remove(const std::string& id, bool retainData) override;
    [[nodiscard]] engine::VmView get(const std::string& id) const override;
    [[nodiscard]] std::vector<engine::VmView> list() const override;
    [[nodiscard]] std::vector<engine::Event> events(const std::string& id) const override;
    [[nodiscard]] std::string console(const std::string& id, const engine::ConsoleTail& tail) const override;
    [[nodiscard]] std::string metrics(const std::string& id) const override;
    [[nodiscard]] std::string vmConfig(const std::string& id) const override;
    [[nodiscard]] std::vector<engine::ComponentHealth> health() const override;
    [[nodiscard]] std::string unitPrefix() const override { return "fc"; }

private:
    void enter(const std::string& call) const;
    engine::VmView& need(const std::string& id) const;
    const std::shared_ptr<FakeState> state_;
};

}  // namespace mergen::api::test
