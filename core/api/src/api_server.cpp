#include <algorithm>
#include <string>
#include <unistd.h>
#include <vector>

#include <Poco/String.h>

#include <mergen/api/access.hpp>
#include <mergen/api/api_server.hpp>
#include <mergen/api/vm_service.hpp>
#include <mergen/sdk/error.hpp>

#include "api.hpp"
#include "api_handler.hpp"
#include "gate.hpp"
#include "http/front.hpp"
#include "http/listener.hpp"
#include "request_id.hpp"

namespace mergen::api {

namespace {

std::vector<http::Listener> listenersOf(const ApiConfig& config) {
    std::vector<http::Listener> listeners;
    if (!config.host.empty()) {
        requireAccessControl(config.host, config.tokens != nullptr, config.insecure);
        listeners.push_back(http::Listener::tcp(config.host, config.port));
    }
    if (!config.socket.empty()) {
        listeners.push_back(http::Listener::unixSocket(config.socket, config.socketGroup.value_or(::getegid())));
    }
    if (listeners.empty()) throw Error(ErrorKind::InvalidArgument, "the API has neither an address nor a socket");
    return listeners;
}

/// Who may ask, in words for the health page.
std::string describeAccess(const ApiConfig& config, const std::vector<http::Listener>& listeners) {
    std::string text;
    if (!config.host.empty()) {
        text = listeners.front().address().toString();
        const bool loopback = isLoopback(config.host);
        text += loopback ? ", from this host only" : ", from other hosts too";
        text += config.tokens != nullptr ? ", with a token"
                : loopback               ? ", no token needed"
                                         : ", INSECURE: no token needed";
    }
    if (!config.socket.empty())
        text += (text.empty() ? "" : "; ") + config.socket.string() + ", for its owner and group";
    return text;
}

http::FrontConfig frontConfig(const ApiConfig& config) {
    http::FrontConfig front;
    front.threads = config.threads;
    front.maxQueued = config.maxQueued;
    front.requestTimeout = config.readTimeout;
    front.maxBody = config.maxBody;
    return front;
}

/// What never reached a handler is answered in the same shape.
void refuse(const http::Refusal& refusal, const http::Head& head, Poco::Net::HTTPServerResponse& response) {
    const auto given = std::ranges::find_if(
        head.fields, [](const auto& each) { return Poco::icompare(each.first, requestIdHeader) == 0; });
    const bool usable = given != head.fields.end() && isRequestId(given->second);
    const std::string requestId = usable ? given->second : newRequestId();
    Problem problem;
    problem.status = refusal.status;
    problem.detail = refusal.detail;
    if (refusal.status == 401) problem.headers.emplace_back("WWW-Authenticate", "Bearer");
    if (refusal.status == 503) problem.headers.emplace_back("Retry-After", "1");
    send(response, answerOf(problem, requestId), requestId);
}

}  // namespace

class ApiServer::Impl {
public:
    Impl(const ApiConfig& config, std::unique_ptr<VmService> service, std::function<std::vector<PluginRow>()> plugins,
         Log& log)
        : Impl(config, listenersOf(config), std::move(service), std::move(plugins), log) {}

    http::Front& front() noexcept { return front_; }

private:
    Impl(const ApiConfig& config, std::vector<http::Listener> listeners, std::unique_ptr<VmService> service,
         std::function<std::vector<PluginRow>()> plugins, Log& log)
        : service_(std::move(service)),
          access_(describeAccess(config, listeners)),
          gate_(config.tokens, config.vmUsers, log),
          api_(*service_, std::move(plugins), [this] { return access(); }),
          front_(
              frontConfig(config), std::move(listeners), new ApiHandlerFactory(api_, config.maxBody, log),
              [this](const http::Head& head, const http::Peer& peer) { return gate_.admit(head, peer); }, refuse, log) {
    }

    [[nodiscard]] engine::ComponentHealth access() const {
        std::string detail = access_;
        if (const std::uint64_t count = gate_.unauthorized(); count != 0) {
            detail += "; refused for lack of a valid token so far: " + std::to_string(count);
        }
        return {"api", "access", true, std::move(detail)};
    }

    const std::unique_ptr<VmService> service_;
    const std::string access_;
    Gate gate_;
    const Api api_;
    http::Front front_;  // last: its threads use the others
};

ApiServer::ApiServer(ApiConfig config, std::unique_ptr<VmService> service,
                     std::function<std::vector<PluginRow>()> plugins, Log& log)
    : impl_(std::make_unique<Impl>(config, std::move(service), std::move(plugins), log)) {}

ApiServer::~ApiServer() = default;

std::uint16_t ApiServer::port() const noexcept {
    return impl_->front().port();
}

void ApiServer::stop(std::chrono::milliseconds limit) {
    impl_->front().stop(limit);
}

}  // namespace mergen::api
