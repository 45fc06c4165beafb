#include "engine_service.hpp"

#include <chrono>
#include <string_view>

#include <mergen/api/api_server.hpp>

namespace mergen::api {

namespace {

/// The VM that create() made although it then failed to start it. The engine's text names it in quotes; that it is this
/// call's own is seen by its age. An error about a member of the request comes from before there is a VM.
std::optional<std::string> keptVm(const engine::Engine& engine, const Error& error, SystemTime begun) {
    if (!error.field().empty()) return std::nullopt;
    const std::string_view text = error.what();
    const std::size_t open = text.find('\'');
    const std::size_t close = open == std::string_view::npos ? open : text.find('\'', open + 1);
    if (close == std::string_view::npos) return std::nullopt;
    try {
        const engine::VmView vm = engine.get(std::string(text.substr(open + 1, close - open - 1)));
        if (vm.autoStart && vm.createdAt >= begun) return vm.id;
    } catch (const Error& unknown) {
        static_cast<void>(unknown);  // the quoted word is something else: nothing was kept
    }
    return std::nullopt;
}

}  // namespace

ApiServer::ApiServer(ApiConfig config, engine::Engine& engine, std::function<std::vector<PluginRow>()> plugins,
                     Log& log)
    : ApiServer(std::move(config), std::make_unique<EngineService>(engine), std::move(plugins), log) {}

VmService::Created EngineService::create(const engine::CreateRequest& request) {
    const auto begun = std::chrono::floor<std::chrono::milliseconds>(std::chrono::system_clock::now());
    try {
        return {engine_.create(request).id, std::nullopt};
    } catch (const Error& error) {
        std::optional<std::string> kept;
        if (request.autoStart) kept = keptVm(engine_, error, begun);
        if (!kept) throw;
        return {*std::move(kept), error};
    }
}

void EngineService::start(const std::string& id) {
    engine_.start(id);
}
void EngineService::stop(const std::string& id) {
    engine_.stop(id);
}
void EngineService::remove(const std::string& id, bool retainData) {
    engine_.remove(id, retainData);
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
std::string EngineService::console(const std::string& id, std::size_t limit) const {
    return engine_.console(id, limit);
}
std::vector<engine::ComponentHealth> EngineService::health() const {
    return engine_.health();
}
std::string EngineService::unitPrefix() const {
    return engine_.config().unitPrefix;
}

}  // namespace mergen::api
