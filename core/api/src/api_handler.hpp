#pragma once

#include <string>

#include <Poco/Net/HTTPRequestHandler.h>
#include <Poco/Net/HTTPRequestHandlerFactory.h>
#include <Poco/Net/HTTPServerRequest.h>
#include <Poco/Net/HTTPServerResponse.h>

#include <mergen/sdk/log.hpp>

#include "api.hpp"

namespace mergen::api {

/// Sends `answer` with the headers that every reply has: X-Request-Id, Cache-Control: no-store, nosniff.
void send(Poco::Net::HTTPServerResponse& response, const Answer& answer, const std::string& requestId);

/// One request over HTTP: where it goes, and that its body is whole. Uses Poco's abstract request and response, so any
/// front can feed it; one that has checked the message and asked the gate who may send it (http::Front) is needed all
/// the same.
class ApiHandler final : public Poco::Net::HTTPRequestHandler {
public:
    /// All borrowed.
    ApiHandler(const Api& api, std::size_t maxBody, Log& log) : api_(api), maxBody_(maxBody), log_(log) {}
    void handleRequest(Poco::Net::HTTPServerRequest& request, Poco::Net::HTTPServerResponse& response) override;

private:
    [[nodiscard]] Result answer(Poco::Net::HTTPServerRequest& request) const;

    const Api& api_;
    const std::size_t maxBody_;
    Log& log_;
};

class ApiHandlerFactory final : public Poco::Net::HTTPRequestHandlerFactory {
public:
    ApiHandlerFactory(const Api& api, std::size_t maxBody, Log& log) : api_(api), maxBody_(maxBody), log_(log) {}
    Poco::Net::HTTPRequestHandler* createRequestHandler(const Poco::Net::HTTPServerRequest&) override {
        return new ApiHandler(api_, maxBody_, log_);  // Poco's contract: the caller deletes it
    }

private:
    const Api& api_;
    const std::size_t maxBody_;
    Log& log_;
};

}  // namespace mergen::api
