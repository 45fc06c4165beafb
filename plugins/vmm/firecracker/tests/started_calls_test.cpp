/// Calls about what a guest prints, its metadata, and all that is asked of one that runs: the fake answers as the real
/// one does, which runs the tiny guest, halted. What needs a guest's driver is not compared.
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "called_program.hpp"
#include "comparison.hpp"

namespace mergen::vmm {
namespace {

std::vector<Call> callsBeforeTheStart() {
    return {
        {"PUT", "/logger", R"({})"},
        {"PUT", "/logger", R"({"level":"Loud"})"},
        {"PUT", "/logger", R"({"level":1})"},
        {"PUT", "/logger", R"({"level":null})"},
        {"PUT", "/logger", R"({"log_path":"/nonexistent/l"})"},
        {"PUT", "/logger", R"({"log_path":1})"},
        {"PUT", "/logger", R"({"foo":1})"},
        {"PUT", "/logger", R"({"show_level":"x"})"},
        {"PUT", "/logger", R"({"module":1})"},
        {"PUT", "/logger",
         R"({"log_path":"FILE/log","level":"warning","show_level":true,"show_log_origin":false,"module":"m"})"},
        {"PUT", "/logger", R"({"level":"OFF"})"},
        {"PUT", "/serial", R"({})"},
        {"PUT", "/serial", R"({"serial_out_path":1})"},
        {"PUT", "/serial", R"({"serial_out_path":"x","foo":1})"},
        {"PUT", "/serial", R"({"rate_limiter":{"size":1}})"},
        {"PUT", "/serial", R"({"rate_limiter":{"bandwidth":{"size":1,"refill_time":1}}})"},
        {"PUT", "/serial", R"({"rate_limiter":{"size":1000,"refill_time":100}})"},
        {"PUT", "/serial", R"({"rate_limiter":null})"},
        {"PUT", "/cpu-config", R"({})"},
        {"PUT", "/cpu-config", R"({"foo":1})"},
        {"PUT", "/cpu-config", R"({"kvm_capabilities":["x"]})"},
        {"PUT", "/cpu-config", R"({"kvm_capabilities":["1","!2"]})"},
        {"PUT", "/cpu-config", R"({"kvm_capabilities":null})"},
        {"PUT", "/cpu-config", R"({"kvm_capabilities":1})"},
        {"PUT", "/cpu-config", R"({"cpuid_modifiers":1})"},
        {"PUT", "/cpu-config", R"({"msr_modifiers":1})"},
        {"PUT", "/cpu-config", R"({"cpuid_modifiers":[],"msr_modifiers":[]})"},
        {"PUT", "/metrics", R"({"metrics_path":1})"},
        {"PATCH", "/mmds", R"({"a":1})"},
        {"PUT", "/mmds", R"({"a":{"b":1,"c":2},"l":[1]})"},
        {"PATCH", "/mmds", R"({"a":{"b":null,"d":3},"l":2,"n":null})"},
        {"GET", "/mmds"},
        {"PATCH", "/mmds", R"({"new":{"x":{"y":null,"z":1}}})"},
        {"GET", "/mmds"},
        {"PATCH", "/mmds"},
        {"PATCH", "/mmds", R"([])"},
        {"GET", "/mmds"},
        {"PATCH", "/mmds", R"(nonsense)"},
        {"PUT", "/mmds", R"({"b":true,"a":"\u00e9\"\n/","c":[null,-5]})"},
        {"GET", "/mmds"},
        {"PUT", "/drives/odd", R"({"drive_id":"odd","is_root_device":false,"path_on_host":"FILE/odd"})"},
        {"PUT", "/drives/folder", R"({"drive_id":"folder","is_root_device":false,"path_on_host":"FILE/"})"},
        {"PUT", "/drives/none", R"({"drive_id":"none","is_root_device":false,"path_on_host":"FILE/none"})"},
        {"GET", "/vm/config"},
        {"GET", "/balloon/statistics"},
        {"GET", "/balloon/hinting/status"},
        {"PATCH", "/balloon/statistics", R"({})"},
        {"PATCH", "/balloon/statistics", R"({"stats_polling_interval_s":70000})"},
    };
}

/// The first start fails, as the console cannot be written; the second does not. One disk and one card: the real one
/// lists those of a guest that runs in any order.
std::vector<Call> callsAroundTheStart() {
    return {
        {"PUT", "/serial", R"({"serial_out_path":"/nonexistent/s"})"},
        {"PUT", "/machine-config", R"({"vcpu_count":1,"mem_size_mib":128})"},
        {"PUT", "/boot-source",
         R"({"kernel_image_path":"FILE/guest","boot_args":"console=ttyS0 tiny.halt fake.no-drivers fake.ignore-shutdown"})"},
        {"PUT", "/drives/rootfs", R"({"drive_id":"rootfs","is_root_device":true,"path_on_host":"FILE/disk"})"},
        {"PUT", "/network-interfaces/eth0",
         R"({"iface_id":"eth0","host_dev_name":"fake-vs-real","guest_mac":"02:FC:00:00:00:01"})"},
        {"PUT", "/network-interfaces/eth1", R"({"iface_id":"eth1","host_dev_name":"fake-vs-real"})"},
        {"PUT", "/balloon", R"({"amount_mib":1,"deflate_on_oom":true,"stats_polling_interval_s":1})"},
        {"PUT", "/vsock", R"({"guest_cid":3,"uds_path":"FILE/v.sock"})"},
        {"PUT", "/entropy", R"({})"},
        {"PUT", "/metrics", R"({"metrics_path":"FILE/metrics"})"},
        {"PUT", "/mmds/config", R"({"version":"V2","network_interfaces":["eth0"]})"},
        {"PUT", "/actions", R"({"action_type":"InstanceStart"})"},
        {"GET", "/"},
        {"PUT", "/serial", R"({"serial_out_path":"FILE/serial","rate_limiter":{"size":1000,"refill_time":100}})"},
        {"PUT", "/actions", R"({"action_type":"InstanceStart"})"},
        {"GET", "/"},
        {"GET", "/machine-config"},
        {"GET", "/vm/config"},
        {"PUT", "/actions", R"({"action_type":"InstanceStart"})"},
        {"PUT", "/boot-source", R"({"kernel_image_path":"FILE/guest"})"},
        {"PUT", "/boot-source", R"({})"},
        {"PUT", "/machine-config", R"({"vcpu_count":1,"mem_size_mib":128})"},
        {"PATCH", "/machine-config", R"({"vcpu_count":1})"},
        {"PATCH", "/machine-config", R"({})"},
        {"PUT", "/drives/x", R"({"drive_id":"x","is_root_device":false,"path_on_host":"FILE/disk"})"},
        {"PUT", "/network-interfaces/eth1", R"({"iface_id":"eth1","host_dev_name":"other"})"},
        {"PUT", "/vsock", R"({"guest_cid":3,"uds_path":"FILE/v2.sock"})"},
        {"PUT", "/entropy", R"({})"},
        {"PUT", "/balloon", R"({"amount_mib":1,"deflate_on_oom":true})"},
        {"PUT", "/metrics", R"({"metrics_path":"FILE/metrics"})"},
        {"PUT", "/logger", R"({})"},
        {"PUT", "/logger", R"({"level":"Loud"})"},
        {"PUT", "/serial", R"({})"},
        {"PUT", "/cpu-config", R"({})"},
        {"PUT", "/mmds/config", R"({"version":"V2","network_interfaces":["eth0"]})"},
        {"PATCH", "/drives/rootfs",
         R"({"drive_id":"rootfs","rate_limiter":{"bandwidth":{"size":1000,"refill_time":100}}})"},
        {"PATCH", "/drives/rootfs",
         R"({"drive_id":"rootfs","rate_limiter":{"ops":{"size":5,"refill_time":10,"one_time_burst":3}}})"},
        {"PATCH", "/drives/rootfs", R"({"drive_id":"rootfs","path_on_host":"FILE/disk"})"},
        {"PATCH", "/drives/rootfs", R"({"drive_id":"rootfs","path_on_host":"FILE/none"})"},
        {"PATCH", "/drives/rootfs", R"({"drive_id":"rootfs","is_read_only":true})"},
        {"PATCH", "/drives/rootfs", R"({"drive_id":"rootfs"})"},
        {"PATCH", "/drives/rootfs", R"({"drive_id":"other"})"},
        {"PATCH", "/drives/none", R"({"drive_id":"none"})"},
        {"PATCH", "/network-interfaces/eth0",
         R"({"iface_id":"eth0","rx_rate_limiter":{"bandwidth":{"size":1000,"refill_time":100}},"tx_rate_limiter":{"ops":{"size":5,"refill_time":10}}})"},
        {"PATCH", "/network-interfaces/eth0",
         R"({"iface_id":"eth0","rx_rate_limiter":{"bandwidth":{"size":0,"refill_time":0}}})"},
        {"PATCH", "/network-interfaces/eth0", R"({"iface_id":"eth0"})"},
        {"PATCH", "/network-interfaces/eth0", R"({"iface_id":"eth1"})"},
        {"PATCH", "/network-interfaces/eth0", R"({"iface_id":"eth0","mtu":1})"},
        {"PATCH", "/network-interfaces/eth9", R"({"iface_id":"eth9"})"},
        {"GET", "/vm/config"},
        {"GET", "/balloon"},
        {"GET", "/balloon/statistics"},
        {"PATCH", "/balloon", R"({"amount_mib":2})"},
        {"PATCH", "/balloon", R"({"amount_mib":1000})"},
        {"PATCH", "/balloon", R"({})"},
        {"PATCH", "/balloon/statistics", R"({"stats_polling_interval_s":2})"},
        {"PATCH", "/balloon/statistics", R"({"stats_polling_interval_s":0})"},
        {"GET", "/balloon"},
        {"GET", "/balloon/statistics"},
        {"PUT", "/mmds", R"({"z":1,"a":{"b":1}})"},
        {"PATCH", "/mmds", R"({"a":{"c":2}})"},
        {"GET", "/mmds"},
        {"PATCH", "/vm", R"({"state":"Resumed"})"},
        {"PATCH", "/vm", R"({"state":"Paused"})"},
        {"PATCH", "/vm", R"({"state":"Paused"})"},
        {"PATCH", "/vm", R"({"state":"Sleeping"})"},
        {"GET", "/"},
        {"PATCH", "/drives/rootfs",
         R"({"drive_id":"rootfs","rate_limiter":{"bandwidth":{"size":2000,"refill_time":100}}})"},
        {"PATCH", "/network-interfaces/eth0",
         R"({"iface_id":"eth0","rx_rate_limiter":{"ops":{"size":9,"refill_time":100}}})"},
        {"PATCH", "/balloon", R"({"amount_mib":3})"},
        {"PUT", "/actions", R"({"action_type":"FlushMetrics"})"},
        {"PUT", "/actions", R"({"action_type":"SendCtrlAltDel"})"},
        {"PUT", "/actions", R"({"action_type":"Dance"})"},
        {"PATCH", "/vm", R"({"state":"Resumed"})"},
        {"GET", "/"},
        {"PUT", "/actions", R"({"action_type":"FlushMetrics"})"},
        {"PUT", "/actions", R"({"action_type":"SendCtrlAltDel"})"},
        {"DELETE", "/drives/rootfs"},
        {"DELETE", "/network-interfaces/eth0"},
        {"GET", "/nothing"},
        {"GET", "/vm/config"},
    };
}

std::vector<Call> callsOfABareMachine() {
    return {
        {"PUT", "/boot-source", R"({"kernel_image_path":"FILE/guest","boot_args":"console=ttyS0 tiny.halt"})"},
        {"PUT", "/mmds", R"({"a":1})"},
        {"PUT", "/actions", R"({"action_type":"InstanceStart"})"},
        {"GET", "/vm/config"},
        {"GET", "/mmds"},
        {"PUT", "/mmds", R"({})"},
        {"PATCH", "/mmds", R"({})"},
        {"GET", "/balloon"},
        {"GET", "/balloon/statistics"},
        {"PATCH", "/balloon", R"({"amount_mib":1})"},
        {"PATCH", "/balloon/statistics", R"({"stats_polling_interval_s":1})"},
        {"PATCH", "/drives/rootfs", R"({"drive_id":"rootfs","rate_limiter":{}})"},
        {"PATCH", "/network-interfaces/eth0", R"({"iface_id":"eth0"})"},
        {"PUT", "/actions", R"({"action_type":"FlushMetrics"})"},
    };
}

void expectPlayed(const std::vector<Call>& calls, std::size_t refusedAtLeast) {
    Program fake(MERGEN_FAKE_FIRECRACKER);
    std::size_t refused = 0;
    for (const Call& call : calls) {
        const Answer answer = fake.ask(call);
        SCOPED_TRACE(call.method + " " + call.path + " " + call.body.value_or(""));
        if (answer.status != "HTTP/1.1 400 ") continue;
        EXPECT_THAT(answer.body, ::testing::StartsWith("{\"fault_message\":\""));
        EXPECT_THAT(answer.body, ::testing::Not(::testing::HasSubstr("does not play")));
        ++refused;
    }
    EXPECT_GE(refused, refusedAtLeast);
    EXPECT_LT(refused, calls.size());
}

TEST(FirecrackerCallsBeforeTheStart, FakePlaysThem) {
    expectPlayed(callsBeforeTheStart(), 20);
}

TEST(FirecrackerCallsBeforeTheStart, FakeAnswersAsTheRealOne) {
    expectAnswersOfTheRealOne(callsBeforeTheStart());
}

TEST(FirecrackerCallsAroundTheStart, FakePlaysThem) {
    expectPlayed(callsAroundTheStart(), 35);
}

TEST(FirecrackerCallsAroundTheStart, FakeAnswersAsTheRealOne) {
    expectAnswersOfTheRealOne(callsAroundTheStart());
}

TEST(FirecrackerCallsOfABareMachine, FakePlaysThem) {
    expectPlayed(callsOfABareMachine(), 9);
}

TEST(FirecrackerCallsOfABareMachine, FakeAnswersAsTheRealOne) {
    expectAnswersOfTheRealOne(callsOfABareMachine());
}

}  // namespace
}  // namespace mergen::vmm
