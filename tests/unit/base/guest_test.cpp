#include <string>
#include <vector>

#include <Poco/JSON/Array.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <mergen/base/guest.hpp>
#include <mergen/base/json.hpp>
#include <mergen/sdk/error.hpp>

namespace mergen {
namespace {

using ::testing::ElementsAre;

GuestSpec guest() {
    GuestSpec spec;
    spec.vcpus = 2;
    spec.memory = MiB{256};
    spec.kernel = "/vm/kernel";
    spec.bootArguments = "console=ttyS0 -- root=for-init";
    spec.disks = {{.id = "data", .file = "/vm/data", .readOnly = true, .root = false},
                  {.id = "rootfs", .file = "/vm/rootfs", .readOnly = false, .root = true}};
    spec.nics = {{.id = "eth0", .tap = IfName::parse("tap0"), .mac = MacAddress::parse("02:fc:0a:1b:2c:01")}};
    return spec;
}

constexpr GuestLimits limits{.maxVcpus = 4, .minMemory = MiB{32}, .maxMemory = MiB{1024}, .maxDisks = 2, .maxNics = 1};

std::string refusedField(const GuestSpec& spec) {
    try {
        checkGuestShape(spec, limits);
        forEachBootArgument(spec, [](const std::string&, bool) {});
    } catch (const Error& error) {
        EXPECT_EQ(error.kind(), ErrorKind::InvalidArgument);
        return error.field();
    }
    return "";
}

TEST(GuestShape, EveryRuleNamesItsMember) {
    EXPECT_EQ(refusedField(guest()), "");
    const std::vector<std::pair<std::string, std::function<void(GuestSpec&)>>> faults{
        {"vcpus", [](GuestSpec& spec) { spec.vcpus = 5; }},
        {"vcpus", [](GuestSpec& spec) { spec.vcpus = 0; }},
        {"memory", [](GuestSpec& spec) { spec.memory = MiB{31}; }},
        {"memory", [](GuestSpec& spec) { spec.memory = MiB{1025}; }},
        {"kernel", [](GuestSpec& spec) { spec.kernel = "kernel"; }},
        {"initrd", [](GuestSpec& spec) { spec.initrd = "initrd"; }},
        {"disks", [](GuestSpec& spec) { spec.disks.push_back(spec.disks[0]); }},
        {"disks", [](GuestSpec& spec) { spec.disks[1].root = false; }},
        {"disks", [](GuestSpec& spec) { spec.disks[0].root = true; }},
        {"disks[0].id", [](GuestSpec& spec) { spec.disks[0].id = "da-ta"; }},
        {"disks[1].id", [](GuestSpec& spec) { spec.disks[1].id = "data"; }},
        {"disks[1].file", [](GuestSpec& spec) { spec.disks[1].file = std::string("/vm/a\0b", 7); }},
        {"nics", [](GuestSpec& spec) { spec.nics.push_back(spec.nics[0]); }},
        {"nics[0].id", [](GuestSpec& spec) { spec.nics[0].id = ""; }},
        {"bootArguments", [](GuestSpec& spec) { spec.bootArguments = "a root=/dev/sda"; }},
        {"bootArguments", [](GuestSpec& spec) { spec.bootArguments = "a\tb"; }},
        {"bootArguments", [](GuestSpec& spec) { spec.bootArguments = "\xc3\xa9"; }}};
    for (const auto& [field, spoil] : faults) {
        GuestSpec spec = guest();
        spoil(spec);
        EXPECT_EQ(refusedField(spec), field);
    }
}

TEST(FirecrackerConfiguration, IsTheFileThatFirecrackerReads) {
    GuestSpec spec = guest();
    spec.initrd = "/vm/initrd";
    EXPECT_EQ(json::render(*firecracker::configuration(spec, firecracker::devicePaths("/run/vm"))),
              R"({"boot-source":{"kernel_image_path":"/vm/kernel","initrd_path":"/vm/initrd",)"
              R"("boot_args":"console=ttyS0 -- root=for-init"},)"
              R"("drives":[{"drive_id":"rootfs","path_on_host":"/vm/rootfs","is_root_device":true,)"
              R"("is_read_only":false,"cache_type":"Writeback"},)"
              R"({"drive_id":"data","path_on_host":"/vm/data","is_root_device":false,"is_read_only":true}],)"
              R"("machine-config":{"vcpu_count":2,"mem_size_mib":256,"smt":false},)"
              R"("network-interfaces":[{"iface_id":"eth0","guest_mac":"02:fc:0a:1b:2c:01","host_dev_name":"tap0"}]})");
}

TEST(FirecrackerConfiguration, MtuIsLeftOutWhereItIsTheUsualOne) {
    for (const unsigned mtu : {0U, firecracker::usualMtu}) {
        GuestSpec spec = guest();
        spec.nics[0].mtu = mtu;
        EXPECT_FALSE(firecracker::networkInterface(spec.nics[0])->has("mtu")) << mtu;
    }
    GuestSpec spec = guest();
    spec.nics[0].mtu = 1400;
    EXPECT_EQ(firecracker::networkInterface(spec.nics[0])->getValue<unsigned>("mtu"), 1400U);
}

}  // namespace
}  // namespace mergen
