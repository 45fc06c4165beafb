#pragma once

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

/// Whether the request can be at fault for a NotFound or PermissionDenied: when it names files of the host (create),
/// but not when it names a VM in its path.
enum class Names : bool { Vm, HostFiles };

/// The one mapping of kinds to statuses:
///
///     InvalidArgument    400      AlreadyExists, Conflict, FailedPrecondition  409
///     NotFound           404      ResourceExhausted  507 (addresses, ports, VMs or disk space are used up)
///     PermissionDenied   403      NotSupported       501
///     Unavailable        503      Timeout            504      Internal  500
///
/// but 400 for NotFound, PermissionDenied and NotSupported if the error names a member of the request (or the request
/// names files of the host): then the input is wrong, and asking again will not help. The text of Internal stays in the
/// log, under the request's id.
[[nodiscard]] Problem problemOf(const Error& error, Names names);

/// The word of the `error` member: mergen-fire's five (bad_request, not_found, conflict, dependency_unavailable,
/// internal_error) and ours for the other statuses. Throws nothing; an unknown status is "error".
[[nodiscard]] std::string errorCode(int status);

/// The problem as application/problem+json (RFC 9457). `requestId` becomes `instance`; mergen-fire's `error` and
/// `message` stand beside `title` and `detail`.
[[nodiscard]] Answer answerOf(const Problem& problem, const std::string& requestId);

}  // namespace mergen::api
