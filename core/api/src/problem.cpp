#include "problem.hpp"

#include <Poco/JSON/Array.h>
#include <Poco/JSON/Object.h>
#include <Poco/Net/HTTPResponse.h>

#include <mergen/base/json.hpp>

namespace mergen::api {

namespace {

int statusOf(ErrorKind kind, Names names, bool aboutMember) {
    const bool wrongInput = aboutMember || names == Names::HostFiles;
    const bool lacking = names == Names::Host;
    switch (kind) {
        case ErrorKind::InvalidArgument:
            return 400;
        case ErrorKind::NotFound:
            return wrongInput ? 400 : lacking ? 503 : 404;
        case ErrorKind::AlreadyExists:
        case ErrorKind::Conflict:
        case ErrorKind::FailedPrecondition:
            return 409;
        case ErrorKind::PermissionDenied:
            return wrongInput ? 400 : lacking ? 503 : 403;
        case ErrorKind::ResourceExhausted:
            return 507;
        case ErrorKind::NotSupported:
            return wrongInput ? 400 : 501;
        case ErrorKind::Unavailable:
            return 503;
        case ErrorKind::Timeout:
            return 504;
        case ErrorKind::Internal:
            return 500;
    }
    return 500;  // a number that is none of the enum's, from a plugin
}

/// RFC 9110's phrase; Poco 1.11 has its own words for some and none for others.
std::string titleOf(int status) {
    switch (status) {
        case 413:
            return "Content Too Large";
        case 414:
            return "URI Too Long";
        case 431:
            return "Request Header Fields Too Large";
        case 507:
            return "Insufficient Storage";
        default:
            return Poco::Net::HTTPResponse::getReasonForStatus(
                static_cast<Poco::Net::HTTPResponse::HTTPStatus>(status));
    }
}

}  // namespace

Problem problemOf(const Error& error, Names names) {
    Problem problem;
    problem.status = statusOf(error.kind(), names, !error.field().empty());
    problem.field = error.field();
    problem.cause = error.what();
    problem.detail = problem.status == 500 ? "internal error; the server's log has the cause under this request's id"
                                           : problem.cause;
    return problem;
}

std::string errorCode(int status) {
    switch (status) {
        case 400:
            return "bad_request";
        case 401:
            return "unauthorized";
        case 403:
            return "forbidden";
        case 404:
            return "not_found";
        case 405:
            return "method_not_allowed";
        case 408:
            return "request_timeout";
        case 409:
            return "conflict";
        case 411:
            return "length_required";
        case 413:
            return "content_too_large";
        case 414:
            return "uri_too_long";
        case 415:
            return "unsupported_media_type";
        case 417:
            return "expectation_failed";
        case 431:
            return "header_too_large";
        case 500:
            return "internal_error";
        case 501:
            return "not_supported";
        case 503:
            return "dependency_unavailable";
        case 504:
            return "timeout";
        case 505:
            return "http_version_not_supported";
        case 507:
            return "resource_exhausted";
        default:
            return "error";
    }
}

Answer answerOf(const Problem& problem, const std::string& requestId) {
    auto body = json::object();
    body->set("type", std::string("about:blank"));
    body->set("title", titleOf(problem.status));
    body->set("status", problem.status);
    body->set("detail", problem.detail);
    body->set("instance", requestId);
    body->set("error", errorCode(problem.status));
    body->set("message", problem.detail);
    if (!problem.field.empty()) {
        body->set("field", problem.field);
        auto member = json::object();
        member->set("field", problem.field);
        member->set("message", problem.detail);
        Poco::JSON::Array::Ptr errors(new Poco::JSON::Array);
        errors->add(member);
        body->set("errors", errors);
    }
    if (!problem.vm.empty()) body->set("id", problem.vm);
    return {problem.status, "application/problem+json", json::render(*body), problem.headers};
}

}  // namespace mergen::api
