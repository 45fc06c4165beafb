#include "machine.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <string_view>
#include <unistd.h>
#include <utility>

#include "faults.hpp"
#include "tap.hpp"

namespace mergen::fake {
namespace {

constexpr std::size_t kernelArgumentLimit = 2048;
constexpr std::uint64_t maxVcpus = 32;
constexpr const char* defaultArguments =
    "reboot=k panic=1 nomodule 8250.nr_uarts=0 i8042.noaux i8042.nomux i8042.dumbkbd swiotlb=noforce";

std::string quotedOrNull(const std::optional<std::string>& value) {
    return value ? quoted(*value) : "null";
}

std::string boolText(bool value) {
    return value ? "true" : "false";
}

/// Whether a file begins as a kernel does that Firecracker loads: ELF, or a bzImage.
bool isKernel(const std::string& path) {
    const UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    char head[0x210] = {};
    const ssize_t got = file ? ::pread(file.get(), head, sizeof(head), 0) : -1;
    if (got >= 4 && std::memcmp(head,
                                "\x7f"
                                "ELF",
                                4) == 0)
        return true;
    return got >= 0x206 && std::memcmp(head + 0x202, "HdrS", 4) == 0;
}

}  // namespace

void Machine::setMachine(const MachineConfig& config) {
    if (config.vcpus == 0 || config.vcpus > maxVcpus || (config.smt && config.vcpus > 1 && config.vcpus % 2 == 1)) {
        error(
            "The number of vCPUs must be greater than 0, less than 32 and must be 1 or an even number if SMT is "
            "enabled.");
    }
    if (config.memory == 0 || (config.hugePages != "None" && config.memory % 2 == 1))
        error("The memory size (MiB) is either 0, or not a multiple of the configured page size.");
    machine_ = config;
}

void Machine::setBoot(const BootSource& boot) {
    const UniqueFd kernel(::open(boot.kernel.c_str(), O_RDONLY | O_CLOEXEC));
    if (!kernel) error("The kernel file cannot be opened: " + osError(errno));
    if (boot.initrd) {
        const UniqueFd initrd(::open(boot.initrd->c_str(), O_RDONLY | O_CLOEXEC));
        if (!initrd) {
            error("The initrd file cannot be opened due to invalid path or invalid permissions. " + osError(errno));
        }
    }
    if (boot.arguments && boot.arguments->size() + 1 > kernelArgumentLimit)
        error("The kernel command line is invalid: Invalid cmdline capacity provided.");
    boot_ = boot;
    misbehaviour_.read(boot.arguments.value_or(""), "fake.");
}

void Machine::setDrive(Drive drive) {
    const auto same = std::find_if(drives_.begin(), drives_.end(), [&](const Drive& d) { return d.id == drive.id; });
    if (drive.root && !drives_.empty() && drives_.front().root && same != drives_.begin())
        error("A root block device already exists!");
    const std::string prefix = "Unable to create the virtio block device: ";
    if (!drive.file || drive.socket) error(prefix + "Invalid block config.");
    drive.path = *drive.file;
    const UniqueFd file(::open(drive.path.c_str(), (drive.readOnly ? O_RDONLY : O_RDWR) | O_CLOEXEC));
    if (!file) {
        error(prefix + "Virtio backend error: Error manipulating the backing file: " + osError(errno) + " " +
              drive.path);
    }
    if (same != drives_.end()) drives_.erase(same);
    drives_.insert(drive.root ? drives_.begin() : drives_.end(), std::move(drive));
}

void Machine::setNic(Nic nic) {
    for (const Nic& other : nics_) {
        if (nic.mac && other.mac == nic.mac && other.id != nic.id)
            error("The MAC address is already in use: " + *nic.mac);
    }
    std::erase_if(nics_, [&](const Nic& other) { return other.id == nic.id; });
    const std::string prefix = "Could not create the network device: ";
    try {
        nic.tap = openTap(nic.device);
    } catch (const std::runtime_error& refusal) {
        error(prefix + "Open tap device failed: " + refusal.what());
    }
    if (nic.mtu && *nic.mtu < 68) error(prefix + "MTU " + std::to_string(*nic.mtu) + " is out of range [68, 65535]");
    nics_.push_back(std::move(nic));
}

void Machine::setBalloon(const Balloon& balloon) {
    if (balloon.amount > machine_.memory) error("Amount of pages requested is too large.");
    balloon_ = balloon;
}

void Machine::setVsock(Vsock vsock) {
    if (vsock_) ::unlink(vsock_->path.c_str());
    vsock_.reset();
    vsock.bind();
    vsock_ = std::move(vsock);
}

void Machine::setMmdsConfig(const MmdsConfig& config) {
    std::vector<std::string> ids;
    for (const Nic& nic : nics_) ids.push_back(nic.id);
    config.check(ids);
    mmdsConfig_ = config;
}

void Machine::start() {
    if (!boot_) error("Cannot start microvm without kernel configuration.");
    serial_.open();
    if (!isKernel(boot_->kernel)) {
        error(
            "System configuration error: Cannot load kernel due to invalid memory configuration or invalid kernel "
            "image: Kernel Loader: failed to load bzImage kernel image: Kernel Loader: Invalid bzImage");
    }
    std::string line = boot_->arguments.value_or(defaultArguments) + " pci=off";
    if (!drives_.empty() && drives_.front().root)
        line += std::string(" root=/dev/vda ") + (drives_.front().readOnly ? "ro" : "rw");
    for (std::size_t i = 0;
         i < drives_.size() + nics_.size() + (vsock_ ? 1 : 0) + (balloon_ ? 1 : 0) + (entropy_ ? 1 : 0); ++i) {
        char device[64];
        std::snprintf(device, sizeof(device), " virtio_mmio.device=4K@0x%zx:%zu", 0xc0001000 + i * 0x1000, 5 + i);
        line += device;
    }
    if (line.size() + 1 > kernelArgumentLimit)
        error("Invalid kernel command line: Inserting string would make command line too long.");
    state_ = State::Running;
    say("fake-guest: " + std::to_string(machine_.vcpus) + " vcpus, " + std::to_string(machine_.memory) + " MiB\n");
    for (const Drive& drive : drives_)
        say("fake-guest: drive " + drive.id + (drive.readOnly ? ", takes no writes\n" : ", takes writes\n"));
    for (const Nic& nic : nics_) say("fake-guest: network " + nic.id + " " + nic.mac.value_or("") + "\n");
    say("fake-guest: cmdline " + line + "\n");
    say("fake-guest: ready\n");
}

void Machine::say(const std::string& text) {
    if (!serial_.print(text)) print_(text);
}

void Machine::pressCtrlAltDel() {
    if (state_ == State::Paused) {
        pressed_ = true;
    } else {
        shutDown();
    }
}

void Machine::shutDown() {
    if (misbehaviour_.ignoreShutdown) {
        say("fake-guest: hears nothing\n");
        return;
    }
    say("fake-guest: shutting down\n");
    ended_ = true;
}

std::string Machine::machineJson() const {
    return "{\"vcpu_count\":" + std::to_string(machine_.vcpus) +
           ",\"mem_size_mib\":" + std::to_string(machine_.memory) + ",\"smt\":" + boolText(machine_.smt) +
           (machine_.cpuTemplate.empty() || machine_.cpuTemplate == "None"
                ? ""
                : ",\"cpu_template\":" + quoted(machine_.cpuTemplate)) +
           ",\"track_dirty_pages\":" + boolText(machine_.track) + ",\"huge_pages\":" + quoted(machine_.hugePages) + "}";
}

std::string Machine::configJson() const {
    std::string drives, nics;
    for (const Drive& drive : drives_) {
        drives += std::string(drives.empty() ? "" : ",") + "{\"drive_id\":" + quoted(drive.id) +
                  ",\"partuuid\":" + quotedOrNull(drive.partuuid) + ",\"is_root_device\":" + boolText(drive.root) +
                  ",\"cache_type\":" + quoted(drive.cache) + ",\"is_read_only\":" + boolText(drive.readOnly) +
                  ",\"path_on_host\":" + quoted(drive.path) + ",\"rate_limiter\":" + drive.limit.json() +
                  ",\"io_engine\":" + quoted(drive.engine) + ",\"socket\":null}";
    }
    for (const Nic& nic : nics_) {
        nics += std::string(nics.empty() ? "" : ",") + "{\"iface_id\":" + quoted(nic.id) +
                ",\"host_dev_name\":" + quoted(nic.device) + ",\"guest_mac\":" + quotedOrNull(nic.mac) +
                ",\"mtu\":" + (nic.mtu ? std::to_string(*nic.mtu) : "null") +
                ",\"rx_rate_limiter\":" + nic.receive.json() + ",\"tx_rate_limiter\":" + nic.transmit.json() + "}";
    }
    const BootSource boot = boot_.value_or(BootSource{});
    return "{\"balloon\":" + (balloon_ ? balloon_->json() : "null") + ",\"drives\":[" + drives +
           "],\"boot-source\":{\"kernel_image_path\":" + quoted(boot.kernel) +
           ",\"initrd_path\":" + quotedOrNull(boot.initrd) + ",\"boot_args\":" + quotedOrNull(boot.arguments) +
           "},\"cpu-config\":null,\"logger\":null,\"machine-config\":" + machineJson() +
           ",\"metrics\":null,\"mmds-config\":" + (mmdsConfig_ ? mmdsConfig_->json() : "null") +
           ",\"network-interfaces\":[" + nics + "],\"vsock\":" + (vsock_ ? vsock_->json() : "null") +
           ",\"entropy\":" + (entropy_ ? entropy_->json() : "null") + ",\"pmem\":[],\"memory-hotplug\":null}";
}

}  // namespace mergen::fake
