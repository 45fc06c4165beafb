#include "engine_service.hpp"

#include <utility>

#include <mergen/api/api_server.hpp>

namespace mergen::api {

ApiServer::ApiServer(ApiConfig config, engine::Engine& engine, std::function<std::vector<PluginRow>()> plugins,
                     Log& log)
    : ApiServer(std::move(config), std::make_unique<EngineService>(engine), std::move(plugins), log) {}

VmService::Created EngineService::create(const engine::CreateRequest& request) {
    engine::Created created = engine_.create(request);
    return {std::move(created.vm.id), std::move(created.startFailure)};
}

void EngineService::start(const std::string& id) {
    engine_.start(id);
}
engine::StoppedBy EngineService::stop(const std::string& id) {
    return engine_.stop(id).by;
}
void EngineService::pause(const std::string& id) {
    engine_.pause(id);
}
void EngineService::resume(const std::string& id) {
    engine_.resume(id);
}
void EngineService::change(const std::string& id, const engine::ChangeRequest& request) {
    engine_.change(id, request);
}
std::string EngineService::metrics(const std::string& id) const {
    return engine_.metrics(id);
}
engine::StoppedBy EngineService::remove(const std::string& id, bool retainData) {
    return engine_.remove(id, retainData);
}
engine::VmView EngineService::get(const std::string& id) const {
    return engine_.get(id);
}
std::vector<engine::VmView> EngineService::list() const {
    return engine_.list();
}
std::vector<engine::Event> EngineService::events(const std::string& id) const {
    return engine_.events(id);
}
std::string EngineService::console(const std::string& id, const engine::ConsoleTail& tail) const {
    return engine_.console(id, tail);
}
std::string EngineService::vmConfig(const std::string& id) const {
    return engine_.vmConfig(id);
}
std::vector<engine::ComponentHealth> EngineService::health() const {
    return engine_.health();
}
std::string EngineService::unitPrefix() const {
    return engine_.config().unitPrefix;
}

}  // namespace mergen::api
