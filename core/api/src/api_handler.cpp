#include "api_handler.hpp"

#include <chrono>
#include <exception>
#include <string_view>

#include <Poco/Net/HTTPMessage.h>
#include <Poco/Net/MediaType.h>

#include <mergen/api/tokens.hpp>
#include <mergen/base/text.hpp>
#include <mergen/engine/asked_by.hpp>
#include <mergen/sdk/error.hpp>
#include <mergen/sdk/types.hpp>

#include "http/message.hpp"
#include "problem.hpp"
#include "request_id.hpp"
#include "target.hpp"

namespace mergen::api {

namespace {

Problem problem(int status, std::string detail) {
    Problem made;
    made.status = status;
    made.detail = std::move(detail);
    return made;
}

/// Where a body ends is not known: nothing more can be read from this connection.
Problem unframed(int status, std::string detail) {
    Problem made = problem(status, std::move(detail));
    made.headers.emplace_back("Connection", "close");
    return made;
}

bool isJson(const Poco::Net::HTTPServerRequest& request) {
    const std::string text = request.get("Content-Type", "");
    return Poco::Net::MediaType(text).matches("application", "json");
}

/// The body, counted: Poco's own server gives a shorter one when the client has gone.
std::variant<std::string, Problem> readBody(Poco::Net::HTTPServerRequest& request, bool taken, std::size_t maxBody) {
    if (request.getChunkedTransferEncoding()) return unframed(411, "a body needs a Content-Length");
    const bool counted = request.getContentLength64() != Poco::Net::HTTPMessage::UNKNOWN_CONTENT_LENGTH;
    const auto length = counted ? static_cast<std::size_t>(request.getContentLength64()) : 0;
    if (!taken) {
        if (length != 0) return problem(400, "this route takes no body");
        return std::string();
    }
    if (!counted) return unframed(411, "this route needs a body with a Content-Length");
    if (!isJson(request)) return problem(415, "the body must be application/json and say so in Content-Type");
    if (length > maxBody) {
        return unframed(413, "the body has " + std::to_string(length) + " bytes; at most " + std::to_string(maxBody) +
                                 " are taken");
    }
    std::string body(length, '\0');
    request.stream().read(body.data(), static_cast<std::streamsize>(length));
    if (static_cast<std::size_t>(request.stream().gcount()) != length) {
        return problem(400, "the body ended before its Content-Length");
    }
    return body;
}

/// Who asks, as the front's gate has let them in: nobody behind another front.
struct Asker {
    std::string name;  ///< for the timeline and the log
    std::string peer;  ///< for the log
};

Asker askerOf(const Poco::Net::HTTPServerRequest& request) {
    const auto* const own = dynamic_cast<const http::MemoryRequest*>(&request);
    return own == nullptr ? Asker{} : Asker{own->caller().name, own->peer().text};
}

std::string requestIdOf(const Poco::Net::HTTPServerRequest& request) {
    const std::string given = request.get(requestIdHeader, "");
    return isRequestId(given) ? given : newRequestId();
}

}  // namespace

void send(Poco::Net::HTTPServerResponse& response, const Answer& answer, const std::string& requestId) {
    response.setStatusAndReason(static_cast<Poco::Net::HTTPResponse::HTTPStatus>(answer.status));
    response.setContentType(answer.type);
    response.set(requestIdHeader, requestId);
    response.set("Cache-Control", "no-store");
    response.set("X-Content-Type-Options", "nosniff");
    for (const auto& [name, value] : answer.headers) response.set(name, value);
    response.sendBuffer(answer.body.data(), answer.body.size());
}

Result ApiHandler::answer(Poco::Net::HTTPServerRequest& request) const {
    Names names = Names::Vm;
    try {
        Target target = parseTarget(request.getURI());
        Api::Match match = Api::match(request.getMethod(), target);
        if (match.route == nullptr) return std::move(match.problem);
        const Route& route = *match.route;
        Call call;
        if (!match.id.empty()) {
            try {
                call.id = RecordId::parse(match.id).str();
            } catch (const Error& error) {
                throw error.about("id");
            }
        }
        checkParameters(target, route.parameters);
        call.query = std::move(target.query);
        auto body = readBody(request, route.takesBody, maxBody_);
        if (auto* refused = std::get_if<Problem>(&body)) return std::move(*refused);
        call.body = std::get<std::string>(std::move(body));
        names = route.names;
        return api_.answer(route, call);
    } catch (const Error& error) {
        return problemOf(error, names);
    }
}

void ApiHandler::handleRequest(Poco::Net::HTTPServerRequest& request, Poco::Net::HTTPServerResponse& response) {
    const auto begun = std::chrono::steady_clock::now();
    const std::string requestId = requestIdOf(request);
    const Asker asker = askerOf(request);
    Result result;
    try {
        const engine::AskedBy askedBy(asker.name);
        result = answer(request);
    } catch (const std::exception& error) {  // Poco's, Boost's, the standard library's: a fault of ours, said once
        Problem fault = problemOf(Error(ErrorKind::Internal, error.what()), Names::Vm);
        result = std::move(fault);
    }
    const auto* failure = std::get_if<Problem>(&result);
    const Answer made = failure == nullptr ? std::get<Answer>(result) : answerOf(*failure, requestId);
    const auto took = std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now() - begun);
    const std::string target = withoutTokens(printable(request.getURI(), 200));
    const bool failed = failure != nullptr && failure->status >= 500;
    const std::string cause =
        failure == nullptr ? "" : withoutTokens(failure->cause.empty() ? failure->detail : failure->cause);
    if (failed) {
        log_.error("api.request.failed", {{"request", requestId},
                                          {"by", asker.name},
                                          {"peer", asker.peer},
                                          {"method", request.getMethod()},
                                          {"target", target},
                                          {"status", made.status},
                                          {"took_ms", took.count()},
                                          {"cause", cause}});
    } else {
        log_.debug("api.request.done", {{"request", requestId},
                                        {"by", asker.name},
                                        {"peer", asker.peer},
                                        {"method", request.getMethod()},
                                        {"target", target},
                                        {"status", made.status},
                                        {"took_ms", took.count()},
                                        {"cause", cause}});
    }
    send(response, made, requestId);
}

}  // namespace mergen::api
