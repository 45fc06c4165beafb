#include <Poco/Exception.h>
#include <Poco/Net/IPAddress.h>
#include <Poco/Net/SocketAddress.h>

#include <mergen/api/api_server.hpp>
#include <mergen/api/vm_service.hpp>
#include <mergen/sdk/error.hpp>

#include "api.hpp"
#include "api_handler.hpp"
#include "http/front.hpp"
#include "request_id.hpp"

namespace mergen::api {

namespace {

Poco::Net::SocketAddress loopback(const std::string& host, std::uint16_t port) {
    const std::string rule = "'" + host +
                             "' is no loopback address; the API has no authentication yet and listens on "
                             "127.0.0.0/8 or ::1 only";
    Poco::Net::IPAddress address;
    if (!Poco::Net::IPAddress::tryParse(host == "localhost" ? "127.0.0.1" : host, address) || !address.isLoopback()) {
        throw Error(ErrorKind::InvalidArgument, rule);
    }
    return {address, port};
}

http::FrontConfig frontConfig(const ApiConfig& config) {
    http::FrontConfig front;
    front.address = loopback(config.host, config.port);
    front.threads = config.threads;
    front.maxQueued = config.maxQueued;
    front.requestTimeout = config.readTimeout;
    front.maxBody = config.maxBody;
    return front;
}

/// What never reached a handler is answered in the same shape, under an id of its own.
void refuse(int status, const std::string& detail, Poco::Net::HTTPServerResponse& response) {
    const std::string requestId = newRequestId();
    Problem problem;
    problem.status = status;
    problem.detail = detail;
    if (status == 503) problem.headers.emplace_back("Retry-After", "1");
    send(response, answerOf(problem, requestId), requestId);
}

}  // namespace

class ApiServer::Impl {
public:
    Impl(const ApiConfig& config, std::unique_ptr<VmService> service, std::function<std::vector<PluginRow>()> plugins,
         Log& log)
        : service_(std::move(service)),
          api_(*service_, std::move(plugins)),
          front_(frontConfig(config), new ApiHandlerFactory(api_, config.maxBody, log), refuse, log) {}

    http::Front& front() noexcept { return front_; }

private:
    const std::unique_ptr<VmService> service_;
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
