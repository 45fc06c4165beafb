#include <gtest/gtest.h>

#include <mergen/base/json.hpp>

#include "problem.hpp"
#include "raw_client.hpp"

namespace mergen::api {
namespace {

using test::Reply;
using test::ServerFixture;

struct Mapping {
    ErrorKind kind;
    int ofVm;     ///< status while working on a VM
    int ofInput;  ///< status if the error names a member of the request
};

constexpr Mapping mappings[] = {
    {ErrorKind::InvalidArgument, 400, 400},    {ErrorKind::NotFound, 404, 400},
    {ErrorKind::AlreadyExists, 409, 409},      {ErrorKind::Conflict, 409, 409},
    {ErrorKind::FailedPrecondition, 409, 409}, {ErrorKind::PermissionDenied, 403, 400},
    {ErrorKind::ResourceExhausted, 507, 507},  {ErrorKind::NotSupported, 501, 400},
    {ErrorKind::Unavailable, 503, 503},        {ErrorKind::Timeout, 504, 504},
    {ErrorKind::Internal, 500, 500},
};

TEST(ApiProblem, EveryKindHasItsStatus) {
    for (const Mapping& mapping : mappings) {
        SCOPED_TRACE(toString(mapping.kind));
        const Error error(mapping.kind, "cannot do it");
        EXPECT_EQ(problemOf(error, Names::Vm).status, mapping.ofVm);
        EXPECT_EQ(problemOf(error.about("rootfs"), Names::Vm).status, mapping.ofInput);
        EXPECT_EQ(problemOf(error, Names::HostFiles).status, mapping.ofInput);
    }
}

TEST(ApiProblem, EveryKindReachesTheClientWithItsCode) {
    ServerFixture fixture;
    for (const Mapping& mapping : mappings) {
        SCOPED_TRACE(toString(mapping.kind));
        fixture.state().failure = Error(mapping.kind, "the cause in words");
        const Reply reply = fixture.request("POST", "/v1/vms/a/start");
        EXPECT_EQ(reply.status, mapping.ofVm);
        EXPECT_EQ(reply.headers.at("content-type"), "application/problem+json");
        EXPECT_EQ(reply.text("error"), errorCode(mapping.ofVm));
        EXPECT_EQ(reply.text("message"), reply.text("detail"));
        EXPECT_EQ(reply.json()->getValue<int>("status"), mapping.ofVm);
        EXPECT_EQ(reply.text("instance"), reply.headers.at("x-request-id"));
        const bool told = reply.text("detail").find("the cause in words") != std::string::npos;
        EXPECT_EQ(told, mapping.kind != ErrorKind::Internal);
    }
}

TEST(ApiProblem, MergenFiresFiveCodesAreKept) {
    EXPECT_EQ(errorCode(400), "bad_request");
    EXPECT_EQ(errorCode(404), "not_found");
    EXPECT_EQ(errorCode(409), "conflict");
    EXPECT_EQ(errorCode(503), "dependency_unavailable");
    EXPECT_EQ(errorCode(500), "internal_error");
}

TEST(ApiProblem, IsProblemJsonWithTheDialectsMembers) {
    const Problem problem =
        problemOf(Error(ErrorKind::InvalidArgument, "vcpu: 99 is too much").about("vcpu"), Names::Vm);
    const Answer answer = answerOf(problem, "req-1");
    EXPECT_EQ(answer.status, 400);
    EXPECT_EQ(answer.type, "application/problem+json");
    EXPECT_EQ(answer.body,
              R"({"type":"about:blank","title":"Bad Request","status":400,"detail":"vcpu: 99 is too much",)"
              R"("instance":"req-1","error":"bad_request","message":"vcpu: 99 is too much","field":"vcpu",)"
              R"("errors":[{"field":"vcpu","message":"vcpu: 99 is too much"}]})");
}

TEST(ApiProblem, AFailedAutoStartTellsTheIdOfTheVmThatWasMade) {
    ServerFixture fixture;
    fixture.state().startFailure = Error(ErrorKind::Unavailable, "the supervisor does not answer");
    const std::string body = R"({"rootfs":"/r","kernel":"/k","autoStart":true})";
    const Reply reply = fixture.request("POST", "/v1/vms", body);
    EXPECT_EQ(reply.status, 503);
    EXPECT_EQ(reply.text("error"), "dependency_unavailable");
    EXPECT_EQ(reply.text("id"), "vm-1");
    EXPECT_EQ(fixture.request("GET", "/v1/vms/vm-1").status, 200);
}

TEST(ApiProblem, WhatTheHostLacksWhileAVmStartsIsNoMissingVm) {
    ServerFixture fixture;
    static_cast<void>(fixture.request("POST", "/v1/vms", R"({"id":"a","rootfs":"/r","kernel":"/k"})"));
    for (const ErrorKind kind : {ErrorKind::NotFound, ErrorKind::PermissionDenied}) {
        fixture.state().during = [kind] { throw Error(kind, "cannot execute qemu-system-x86_64"); };
        const Reply reply = fixture.request("POST", "/v1/vms/a/start");
        EXPECT_EQ(reply.status, 503);
        EXPECT_EQ(reply.text("error"), "dependency_unavailable");
    }
    EXPECT_EQ(fixture.request("POST", "/v1/vms/b/start").status, 404);
    const Error error(ErrorKind::NotFound, "no such file");
    EXPECT_EQ(problemOf(error, Names::Host).status, 503);
    EXPECT_EQ(problemOf(error.about("rootfs"), Names::Host).status, 400);
}

TEST(ApiProblem, WhatTheHostLacksAtCreateIsWrongInput) {
    ServerFixture fixture;
    const std::string body = R"({"rootfs":"/r","kernel":"/k"})";
    fixture.state().failure = Error(ErrorKind::NotFound, "rootfs '/r': No such file or directory").about("rootfs");
    const Reply missing = fixture.request("POST", "/v1/vms", body);
    EXPECT_EQ(missing.status, 400);
    EXPECT_EQ(missing.text("field"), "rootfs");
    fixture.state().failure = Error(ErrorKind::AlreadyExists, "host port 80 belongs to VM 'a'").about("ports[0].host");
    EXPECT_EQ(fixture.request("POST", "/v1/vms", body).status, 409);
}

TEST(ApiProblem, TextsThatAreNotUtf8DoNotBreakTheReply) {
    ServerFixture fixture;
    fixture.state().failure = Error(ErrorKind::Conflict, "file \xff\"\n is busy");
    const Reply reply = fixture.request("POST", "/v1/vms/a/start");
    EXPECT_EQ(reply.text("detail"), "file \xef\xbf\xbd\"\n is busy");
}

}  // namespace
}  // namespace mergen::api
