#include "command_line.hpp"

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>
#include <vector>

#include <mergen/base/guest.hpp>
#include <mergen/base/text.hpp>
#include <mergen/base/unix_socket.hpp>
#include <mergen/sdk/error.hpp>

#include "jail.hpp"

namespace mergen::vmm {
namespace {

// What Firecracker itself adds to the kernel's arguments, at its longest: once, and for every device.
constexpr std::string_view addedOnce = " pci=off root=/dev/vda rw";
constexpr std::string_view addedPerDevice = " virtio_mmio.device=4K@0xc0001000:23";

/// Paths go to Firecracker as JSON, which is UTF-8: another one would arrive as a different path.
void checkText(const std::string& field, const std::filesystem::path& path) {
    if (isCleanUtf8(path.native())) return;
    throw Error(ErrorKind::InvalidArgument, "'" + printable(path.native()) + "' is not UTF-8").about(field);
}

/// What Firecracker refuses of a combination, in this host's words.
void checkOptions(const GuestSpec& guest) {
    const auto refuse = [](const std::string& field, const std::string& text) {
        throw Error(ErrorKind::InvalidArgument, text).about(field);
    };
    if (guest.smt && guest.vcpus > 1 && guest.vcpus % 2 == 1)
        refuse("smt", "hyperthreads come in pairs: " + std::to_string(guest.vcpus) + " processors are odd");
    if (guest.hugePages == HugePages::TwoMiB && guest.memory.count % 2 == 1)
        refuse("hugePages", std::to_string(guest.memory.count) + " MiB are no whole number of pages of 2 MiB");
    if (guest.balloon && guest.balloon->amount > guest.memory)
        refuse("balloon.amount", "the balloon would take more than the guest's memory");
    if (guest.mmds && guest.nics.empty())
        refuse("mmds", "the metadata service is reached over a network card, and this guest has none");
}

}  // namespace

void checkGuest(const GuestSpec& guest) {
    checkGuestShape(guest, {maxVcpus, minMemory, maxMemory, maxDisks, maxNics});
    checkText("kernel", guest.kernel);
    if (guest.initrd) checkText("initrd", *guest.initrd);
    for (std::size_t i = 0; i < guest.disks.size(); ++i)
        checkText("disks[" + std::to_string(i) + "].file", guest.disks[i].file);

    checkOptions(guest);

    forEachBootArgument(guest, [](const std::string&, bool) {});
    const std::size_t devices = guest.disks.size() + guest.nics.size() + (guest.vsock ? 1 : 0) +
                                (guest.balloon ? 1 : 0) + (guest.entropy ? 1 : 0);
    const std::size_t added = addedOnce.size() + devices * addedPerDevice.size();
    if (guest.bootArguments.size() + added > maxKernelArguments) {
        throw Error(ErrorKind::InvalidArgument, "a kernel takes " + std::to_string(maxKernelArguments) +
                                                    " bytes of arguments, of which Firecracker needs " +
                                                    std::to_string(added) + "; these are " +
                                                    std::to_string(guest.bootArguments.size()))
            .about("bootArguments");
    }
}

std::filesystem::path configurationFile(const VmmPlace& place) {
    return place.runDirectory / "firecracker.json";
}

std::filesystem::path metadataFile(const VmmPlace& place) {
    return place.runDirectory / "metadata.json";
}

firecracker::DevicePaths devicePaths(const VmmPlace& place) {
    return firecracker::devicePaths(place.runDirectory);
}

LaunchPlan commandLine(const GuestSpec& guest, const VmmPlace& place, const std::filesystem::path& program,
                       std::vector<std::uint32_t> groups) {
    checkGuest(guest);
    checkSocketPath(place.controlSocket);
    LaunchPlan plan;
    // Its log goes where the guest prints: of that, only what is wrong. Taps it opens itself, by name, in its network
    // namespace: they belong to the VM's user.
    plan.arguments = {program.string(), "--api-sock", place.controlSocket.string(), "--id", place.owner.vm.str(),
                      "--level",        "Warning"};
    plan.unattended = plan.arguments;
    plan.unattended.insert(plan.unattended.end(), {"--config-file", configurationFile(place).string()});
    if (guest.mmds) plan.unattended.insert(plan.unattended.end(), {"--metadata", metadataFile(place).string()});
    plan.stale = {place.controlSocket};
    if (guest.vsock) {
        checkSocketPath(devicePaths(place).vsock);
        plan.stale.push_back(devicePaths(place).vsock);  // Firecracker leaves it, and cannot bind where it lies
    }
    plan.groups = std::move(groups);
    return plan;
}

LaunchPlan jailedCommandLine(const GuestSpec& guest, const VmmPlace& place, const JailOrder& order) {
    checkGuest(guest);
    checkSocketPath(place.controlSocket);
    LaunchPlan plan;
    std::vector<std::string>& words = plan.arguments;
    const auto add = [&words](std::string option, std::string value) {
        words.push_back(std::move(option));
        words.push_back(std::move(value));
    };
    words = {order.jailer.string()};
    add("--id", place.owner.vm.str());
    add("--exec-file", order.program.string());
    add("--uid", std::to_string(place.credentials.uid));
    add("--gid", std::to_string(place.credentials.gid));
    add("--chroot-base-dir", order.base.string());
    // Without any `--cgroup` a jailer still moves itself into a parent group of version 2 if there is one: not asked.
    if (order.cgroupVersion != 0 && !order.cgroups.empty()) {
        add("--cgroup-version", std::to_string(order.cgroupVersion));
        add("--parent-cgroup", order.parentCgroup);
        for (const std::string& cgroup : order.cgroups) add("--cgroup", cgroup);
    }
    add("--resource-limit", "no-file=" + std::to_string(order.openFiles));
    if (order.fileSize.count != 0) add("--resource-limit", "fsize=" + std::to_string(order.fileSize.count));
    words.emplace_back("--");
    add("--api-sock", jailed::socket);
    add("--level", "Warning");
    plan.unattended = words;
    plan.unattended.insert(plan.unattended.end(), {"--config-file", jailed::configuration});
    if (guest.mmds) plan.unattended.insert(plan.unattended.end(), {"--metadata", jailed::metadata});
    plan.stale = leftInJail(order.root, order.program.filename().string());
    plan.dropsPrivileges = true;
    plan.pidNamespace = true;
    return plan;
}

std::string exitMeaning(const ExitStatus& exit) {
    if (exit.signalled) return {};
    static constexpr std::array<std::pair<int, std::string_view>, 12> meanings{{
        {1, "Firecracker met an error"},
        {2, "Firecracker met something unexpected"},
        {148, "Firecracker was ended by its seccomp filter: a system call that it does not allow"},
        {149, "Firecracker had a bus error: memory or a file behind it is gone, or a medium is full"},
        {150, "Firecracker had a segmentation fault"},
        {151, "Firecracker hit the limit on the size of files"},
        {152, "Firecracker refused its configuration"},
        {153, "Firecracker refused its arguments"},
        {154, "Firecracker hit the limit on processor time"},
        {155, "Firecracker wrote where nobody read"},
        {156, "Firecracker lost its terminal"},
        {157, "Firecracker met an instruction that this processor lacks"},
    }};
    const auto* const found = std::ranges::find(meanings, exit.code, &std::pair<int, std::string_view>::first);
    return found == meanings.end() ? std::string() : std::string(found->second);
}

}  // namespace mergen::vmm
