#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <mergen/sdk/error.hpp>

namespace mergen::api {

/// What a route answers, without anything of HTTP's wire.
struct Answer {
    int status = 200;
    std::string type = "application/json";
    std::string body;
    std::vector<std::pair<std::string, std::string>> headers;
};

/// Why a request was not done.
struct Problem {
    int status = 500;
    std::string detail;  ///< one sentence for the client
    std::string field;   ///< the member or parameter that is wrong, if it is about one
    std::string vm;      ///< id of a VM that was made all the same
    std::string cause;   ///< for the log only, where it differs from `detail`
    std::vector<std::pair<std::string, std::string>> headers{};
};

/// What a NotFound or PermissionDenied can be about, as the request is the caller's fault in one case and not in
/// others.
enum class Names : std::uint8_t {
    Vm,         ///< the VM that the path names
    HostFiles,  ///< files that the body names (create): wrong input
    Host,       ///< something that the server needs (a program, a device) while it works on a VM that is there
};

/// The one mapping of kinds to statuses:
///
///     InvalidArgument    400      AlreadyExists, Conflict, FailedPrecondition  409
///     NotFound           404      ResourceExhausted  507 (addresses, ports, VMs or disk space are used up)
///     PermissionDenied   403      NotSupported       501
///     Unavailable        503      Timeout            504      Internal  500
///
/// but 400 for NotFound, PermissionDenied and NotSupported if the error names a member of the request (or the request
/// names files of the host): then the input is wrong, and asking again will not help. And 503 for NotFound and
/// PermissionDenied of what the host lacks. The text of Internal stays in the log, under the request's id.
[[nodiscard]] Problem problemOf(const Error& error, Names names);

/// The word of the `error` member: mergen-fire's five (bad_request, not_found, conflict, dependency_unavailable,
/// internal_error) and ours for the other statuses. Throws nothing; an unknown status is "error".
[[nodiscard]] std::string errorCode(int status);

/// The problem as application/problem+json (RFC 9457). `requestId` becomes `instance`; mergen-fire's `error` and
/// `message` stand beside `title` and `detail`.
[[nodiscard]] Answer answerOf(const Problem& problem, const std::string& requestId);

}  // namespace mergen::api
