/// Calls about devices beside disks and network cards, and about limits: the fake answers as the real one does.
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "called_program.hpp"
#include "comparison.hpp"

namespace mergen::vmm {
namespace {

/// Lists in lists, the innermost one empty.
std::string lists(std::size_t depth) {
    return std::string(depth, '[') + std::string(depth, ']');
}

/// A limit with a member that Firecracker does not know and passes over.
Call withUnknownMember(const std::string& value) {
    return {"PUT", "/entropy", R"({"rate_limiter":{"ops":{"size":1,"refill_time":1,"x":)" + value + "}}}"};
}

/// Of a machine that has not been started.
std::vector<Call> calls() {
    return {
        {"GET", "/balloon"},
        {"GET", "/mmds"},
        {"PUT", "/vsock", R"({})"},
        {"PUT", "/vsock", R"({"guest_cid":2,"uds_path":"FILE/v"})"},
        {"PUT", "/vsock", R"({"guest_cid":"x","uds_path":"FILE/v"})"},
        {"PUT", "/vsock", R"({"guest_cid":3,"uds_path":"/nonexistent/v"})"},
        {"PUT", "/vsock", R"({"guest_cid":3,"uds_path":"FILE/v.sock","foo":1})"},
        {"PUT", "/vsock", R"({"guest_cid":3,"uds_path":"FILE/disk"})"},
        {"PUT", "/vsock", R"({"guest_cid":3,"uds_path":"FILE/v.sock"})"},
        {"PUT", "/vsock", R"({"guest_cid":4,"uds_path":"FILE/v.sock"})"},
        {"PUT", "/vsock", R"({"vsock_id":"v","guest_cid":4,"uds_path":"FILE/v2.sock"})"},
        {"PUT", "/entropy", R"({"foo":1})"},
        {"PUT", "/entropy", R"({"rate_limiter":{"bandwidth":{"size":1}}})"},
        {"PUT", "/entropy", R"({"rate_limiter":{"bandwidth":{"size":1,"refill_time":1,"x":1}}})"},
        {"PUT", "/entropy", R"({"rate_limiter":{"bytes":{}}})"},
        {"PUT", "/entropy", R"({"rate_limiter":{"bandwidth":{"size":-1,"refill_time":1}}})"},
        {"PUT", "/entropy", R"({"rate_limiter":null})"},
        {"PUT", "/entropy", R"({})"},
        {"PUT", "/entropy", R"({"rate_limiter":{"bandwidth":{"size":1000,"one_time_burst":10,"refill_time":100}}})"},
        {"PUT", "/balloon", R"({})"},
        {"PUT", "/balloon", R"({"amount_mib":1})"},
        {"PUT", "/balloon", R"({"amount_mib":-1,"deflate_on_oom":true})"},
        {"PUT", "/balloon", R"({"amount_mib":1,"deflate_on_oom":true,"stats_polling_interval_s":70000})"},
        {"PUT", "/balloon", R"({"amount_mib":100000,"deflate_on_oom":true})"},
        {"PUT", "/balloon", R"({"amount_mib":1,"deflate_on_oom":true,"foo":1})"},
        {"PUT", "/balloon", R"({"amount_mib":1,"deflate_on_oom":true,"stats_polling_interval_s":1})"},
        {"GET", "/balloon"},
        {"PATCH", "/balloon", R"({"amount_mib":2})"},
        {"PATCH", "/balloon/statistics", R"({"stats_polling_interval_s":2})"},
        {"PUT", "/mmds", R"({})"},
        {"PUT", "/mmds/nothing", R"({})"},
        {"PUT", "/mmds", R"([])"},
        {"PUT", "/mmds/config", R"({})"},
        {"PUT", "/mmds/config", R"({"network_interfaces":[]})"},
        {"PUT", "/mmds/config", R"({"network_interfaces":["eth9"]})"},
        {"PUT", "/mmds/config", R"({"version":"V3","network_interfaces":["eth0"]})"},
        {"PUT", "/mmds/config", R"({"version":"V2","network_interfaces":["eth0"],"ipv4_address":"10.0.0.1"})"},
        {"PUT", "/mmds/config", R"({"version":"V2","network_interfaces":["eth0"],"ipv4_address":"x"})"},
        {"PUT", "/mmds/config", R"({"version":"V2","network_interfaces":["eth0"],"foo":1})"},
        {"PUT", "/mmds", R"({"Z":{"y":[1,2]},"a":1})"},
        {"PUT", "/mmds", R"({"a":1} x)"},
        // As deep as it may be, deeper, and as deep as a body has room for.
        {"PUT", "/mmds", R"({"deep":)" + lists(126) + "}"},
        {"GET", "/mmds"},
        {"PATCH", "/mmds", R"({"deeper":{"z":)" + lists(125) + "}}"},
        {"GET", "/mmds"},
        {"PUT", "/mmds", R"({"deep":)" + lists(127) + "}"},
        {"PATCH", "/mmds", R"({"deep":)" + lists(127) + "}"},
        {"PUT", "/mmds", "{\n\"deep\":" + lists(127) + "}"},
        {"PUT", "/mmds", lists(1000)},
        {"PUT", "/mmds", lists(25500)},
        {"PUT", "/mmds", R"({"Z":{"y":[1,2]},"a":1})"},
        withUnknownMember(lists(1000)),
        withUnknownMember(R"([1,{"a":[],"b":{}},"c",{"d":[null,true]}])"),
        withUnknownMember("[1,]"),
        withUnknownMember("[1 2]"),
        withUnknownMember("[1}"),
        withUnknownMember(R"({"a":1,})"),
        withUnknownMember(R"({"a":1 "b":2})"),
        withUnknownMember(R"({"a" 1})"),
        withUnknownMember("{1:2}"),
        {"PUT", "/entropy", R"({"rate_limiter":{"ops":{"x":[[1],)"},
        {"PUT", "/entropy", R"({"rate_limiter":{"ops":{"x":[[1])"},
        {"PUT", "/entropy", R"({"rate_limiter":{"ops":{"x":{"a":1)"},
        {"PUT", "/entropy", R"({"rate_limiter":{"ops":{"x":{"a":1,)"},
        {"PUT", "/entropy", R"({"rate_limiter":{"ops":{"x":{"a")"},
        {"GET", "/mmds"},
        {"GET", "/mmds"},
        {"PUT", "/metrics", R"({})"},
        {"PUT", "/metrics", R"({"metrics_path":"/nonexistent/m"})"},
        {"PUT", "/metrics", R"({"metrics_path":"FILE/metrics","foo":1})"},
        {"PUT", "/metrics", R"({"metrics_path":"FILE/metrics"})"},
        {"PUT", "/metrics", R"({"metrics_path":"FILE/metrics"})"},
        {"PUT", "/actions", R"({"action_type":"FlushMetrics"})"},
        {"PUT", "/drives/rootfs",
         R"({"drive_id":"rootfs","is_root_device":true,"path_on_host":"FILE/disk","io_engine":"Sync","rate_limiter":{"bandwidth":{"size":1000,"refill_time":100},"ops":{"size":0,"refill_time":0}}})"},
        {"PUT", "/drives/rootfs",
         R"({"drive_id":"rootfs","is_root_device":true,"path_on_host":"FILE/disk","rate_limiter":{"ops":{"size":5}}})"},
        {"PUT", "/drives/rootfs",
         R"({"drive_id":"rootfs","is_root_device":true,"path_on_host":"FILE/disk","rate_limiter":5})"},
        {"PUT", "/drives/second",
         R"({"drive_id":"second","is_root_device":false,"path_on_host":"FILE/disk","rate_limiter":{}})"},
        {"PUT", "/drives/third",
         R"({"drive_id":"third","is_root_device":false,"path_on_host":"FILE/disk","rate_limiter":{"ops":{"size":5,"one_time_burst":7,"refill_time":0}}})"},
        {"PUT", "/machine-config", R"({"vcpu_count":1,"mem_size_mib":32,"cpu_template":"T9"})"},
        {"PUT", "/machine-config", R"({"vcpu_count":1,"mem_size_mib":32,"cpu_template":"None"})"},
        {"GET", "/vm/config"},
        {"PUT", "/machine-config", R"({"vcpu_count":1,"mem_size_mib":64})"},
    };
}

TEST(FirecrackerCallsOfDevices, FakeTakesWhatIsRightAndRefusesTheRest) {
    Program fake(MERGEN_FAKE_FIRECRACKER);
    std::size_t refused = 0;
    for (const Call& call : calls()) {
        const Answer answer = fake.ask(call);
        SCOPED_TRACE(call.method + " " + call.path + " " + call.body.value_or(""));
        if (answer.status != "HTTP/1.1 400 ") continue;
        EXPECT_THAT(answer.body, ::testing::StartsWith("{\"fault_message\":\""));
        EXPECT_THAT(answer.body, ::testing::Not(::testing::HasSubstr("does not play")));
        ++refused;
    }
    EXPECT_GT(refused, 25U);
    EXPECT_LT(refused, calls().size());
}

// The fake alone: the real one prints what it is asked on its console, which nobody reads here.
TEST(FirecrackerCallsOfDevices, FakePassesOverWhatIsAsDeepAsABodyHasRoomFor) {
    Program fake(MERGEN_FAKE_FIRECRACKER);
    EXPECT_EQ(fake.ask(withUnknownMember(lists(25000))).status, "HTTP/1.1 204 ");
    EXPECT_EQ(fake.ask({"GET", "/"}).status, "HTTP/1.1 200 ");
}

TEST(FirecrackerCallsOfDevices, FakeAnswersAsTheRealOne) {
    expectAnswersOfTheRealOne(calls());
}

}  // namespace
}  // namespace mergen::vmm
