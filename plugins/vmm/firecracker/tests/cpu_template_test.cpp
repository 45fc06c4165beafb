#include "cpu_template.hpp"

#include <filesystem>
#include <string>
#include <unistd.h>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <mergen/base/file.hpp>
#include <mergen/sdk/error.hpp>

#include "test_host.hpp"

namespace mergen::vmm {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

const std::vector<std::string> allTemplates{"C3", "T2", "T2S", "T2CL", "T2A", "V1N1"};

/// A host whose /proc/cpuinfo is made up.
class CpuTemplate : public ::testing::Test {
protected:
    /// The vendor that is read of it.
    std::string vendorOf(const std::string& cpuInfo) {
        makeDirectories(host_.root() / "proc", 0755);
        writeFileAtomically(host_.root() / "proc/cpuinfo", cpuInfo, 0444);
        return readCpuVendor(host_.root());
    }

    /// Why a guest with this template is refused; empty if it is taken.
    static std::string refusal(const std::string& name, const std::string& vendor) {
        GuestSpec guest;
        guest.cpuTemplate = name;
        try {
            requireTemplateOfVendor(guest, vendor);
        } catch (const Error& error) {
            EXPECT_EQ(error.kind(), ErrorKind::NotSupported);
            EXPECT_EQ(error.field(), "cpuTemplate");
            return error.what();
        }
        return "";
    }
    /// Those that are taken, each with a blank after it.
    static std::string taken(const std::string& vendor) {
        std::string names;
        for (const std::string& name : allTemplates) {
            if (refusal(name, vendor).empty()) names += name + " ";
        }
        return names;
    }

    test::TestHost host_{nullptr};
};

TEST_F(CpuTemplate, EachVendorTakesItsOwn) {
    EXPECT_EQ(taken(vendorOf("processor\t: 0\nvendor_id\t: GenuineIntel\ncpu family\t: 6\n\nprocessor\t: 1\n")),
              "C3 T2 T2S T2CL ");
    EXPECT_EQ(taken(vendorOf("processor\t: 0\nvendor_id\t: AuthenticAMD\n")), "T2A ");
    EXPECT_EQ(taken(vendorOf("processor\t: 0\nBogoMIPS\t: 243.75\nFeatures\t: fp asimd\nCPU implementer\t: 0x41\n"
                             "CPU architecture: 8\nCPU part\t: 0xd40\n")),
              "V1N1 ");
}

TEST_F(CpuTemplate, AVendorWithoutATemplateOfItsOwnTakesNone) {
    EXPECT_EQ(taken(vendorOf("processor\t: 0\nvendor_id\t: HygonGenuine\n")), "");
    EXPECT_EQ(taken(vendorOf("processor\t: 0\nCPU implementer\t: 0x48\n")), "");
}

TEST_F(CpuTemplate, TheRefusalNamesTheValueItsVendorAndTheHosts) {
    EXPECT_EQ(refusal("T2", "AuthenticAMD"),
              "'T2' is for processors of Intel (GenuineIntel), and this host's are of AuthenticAMD");
    EXPECT_THAT(refusal("T2A", "GenuineIntel"), AllOf(HasSubstr("AMD (AuthenticAMD)"), HasSubstr("of GenuineIntel")));
    EXPECT_THAT(refusal("V1N1", "GenuineIntel"), HasSubstr("Arm (aarch64 implementer 0x41)"));
}

TEST_F(CpuTemplate, OnlyASureMismatchIsRefused) {
    EXPECT_EQ(readCpuVendor(host_.root()), "") << "no /proc is mounted";
    for (const char* text : {"", "\n", "vendor_id", "vendor_id\t:\n", "vendor_id :  \nmodel name: x\n"})
        EXPECT_EQ(vendorOf(text), "") << text;
    for (const std::string& name : allTemplates) EXPECT_EQ(refusal(name, ""), "") << name;
    EXPECT_EQ(refusal("", "AuthenticAMD"), "") << "it asks for none";
    EXPECT_EQ(refusal("T9", "AuthenticAMD"), "") << "a newer Firecracker may have it";
}

TEST_F(CpuTemplate, AStrangeCpuInfoIsReadWithoutHarm) {
    EXPECT_EQ(vendorOf("vendor_id\t: Genuine\x1bIntel\n"), "Genuine\\x1bIntel");
    EXPECT_EQ(vendorOf(std::string(1 << 20, ' ')), "");
    EXPECT_EQ(vendorOf("processor\t: 0\nvendor_id\t: AuthenticAMD\n" + std::string(1 << 20, 'x')), "AuthenticAMD");
    std::filesystem::remove(host_.root() / "proc/cpuinfo");
    makeDirectories(host_.root() / "proc/cpuinfo", 0755);
    EXPECT_EQ(readCpuVendor(host_.root()), "");
}

TEST_F(CpuTemplate, ThisHostSays) {
    if (::access("/proc/cpuinfo", R_OK) != 0) GTEST_SKIP() << "needs /proc";
    EXPECT_NE(readCpuVendor("/"), "");
}

}  // namespace
}  // namespace mergen::vmm
