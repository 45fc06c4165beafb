#include "cpu_template.hpp"

#include <algorithm>
#include <array>
#include <fcntl.h>
#include <string_view>
#include <unistd.h>

#include <mergen/base/fd.hpp>
#include <mergen/base/text.hpp>
#include <mergen/sdk/error.hpp>

namespace mergen::vmm {
namespace {

struct TemplateVendor {
    std::string_view name;
    std::string_view company;
    std::string_view vendor;  ///< as readCpuVendor() gives it
};

constexpr std::string_view intel = "GenuineIntel";
constexpr std::string_view amd = "AuthenticAMD";
// MIDR_EL1.Implementer of Arm's own cores; V1N1 is for Neoverse V1.
constexpr std::string_view arm = "aarch64 implementer 0x41";

/// Of docs/cpu_templates/cpu-templates.md in Firecracker's tree.
constexpr std::array<TemplateVendor, 6> templates{{
    {"C3", "Intel", intel},
    {"T2", "Intel", intel},
    {"T2S", "Intel", intel},
    {"T2CL", "Intel", intel},
    {"T2A", "AMD", amd},
    {"V1N1", "Arm", arm},
}};

/// The beginning of a file of the kernel's, however long it is: /proc/cpuinfo has a paragraph for each processor.
std::string beginningOf(const std::filesystem::path& file) {
    const UniqueFd fd(::open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
    if (!fd) return {};
    std::array<char, 4096> buffer{};
    const ssize_t got = ::read(fd.get(), buffer.data(), buffer.size());
    return got > 0 ? std::string(buffer.data(), static_cast<std::size_t>(got)) : std::string();
}

}  // namespace

std::string readCpuVendor(const std::filesystem::path& root) {
    for (const std::string& line : split(beginningOf(root / "proc/cpuinfo"), '\n')) {
        const std::size_t colon = line.find(':');
        if (colon == std::string::npos) continue;
        const std::string_view key = trim(std::string_view(line).substr(0, colon));
        const std::string_view value = trim(std::string_view(line).substr(colon + 1));
        if (value.empty()) continue;
        if (key == "vendor_id") return printable(value);
        if (key == "CPU implementer") return "aarch64 implementer " + printable(value);
    }
    return {};
}

void requireTemplateOfVendor(const GuestSpec& guest, const std::string& vendor) {
    const auto* const wanted = std::ranges::find(templates, guest.cpuTemplate, &TemplateVendor::name);
    if (vendor.empty() || wanted == templates.end() || wanted->vendor == vendor) return;
    throw Error(ErrorKind::NotSupported, "'" + guest.cpuTemplate + "' is for processors of " +
                                             std::string(wanted->company) + " (" + std::string(wanted->vendor) +
                                             "), and this host's are of " + vendor)
        .about("cpuTemplate");
}

}  // namespace mergen::vmm
