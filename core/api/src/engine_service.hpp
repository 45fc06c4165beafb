#pragma once

#include <mergen/api/vm_service.hpp>
#include <mergen/engine/engine.hpp>

namespace mergen::api {

/// VmService over the engine.
class EngineService final : public VmService {
public:
    /// `engine` is borrowed.
    explicit EngineService(engine::Engine& engine) : engine_(engine) {}

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
    [[nodiscard]] std::string unitPrefix() const override;

private:
    engine::Engine& engine_;
};

}  // namespace mergen::api
