#include "command_line.hpp"

#include <algorithm>
#include <utility>
#include <vector>

#include <mergen/base/guest.hpp>
#include <mergen/base/unix_socket.hpp>
#include <mergen/sdk/error.hpp>

namespace mergen::vmm {
namespace {

/// The first descriptor after standard input, output and error.
constexpr int firstTapFd = 3;

/// What Firecracker has and this machine is not given, by the member that asks for it.
void refuseForeign(const GuestSpec& guest) {
    const auto refuse = [](const std::string& field, const std::string& what) {
        throw Error(ErrorKind::NotSupported, "guests of QEMU get no " + what + " here; vmm = firecracker has it")
            .about(field);
    };
    if (guest.smt) refuse("smt", "hyperthreads");
    if (guest.hugePages != HugePages::None) refuse("hugePages", "memory in huge pages");
    if (!guest.cpuTemplate.empty()) refuse("cpuTemplate", "CPU template");
    for (std::size_t i = 0; i < guest.disks.size(); ++i) {
        const std::string disk = "disks[" + std::to_string(i) + "]";
        if (guest.disks[i].limit != RateLimiter{}) refuse(disk + ".limit", "rate limit of a disk");
        if (guest.disks[i].engine != IoEngine::Sync) refuse(disk + ".engine", "choice of the I/O engine");
        if (guest.disks[i].cache != DiskCache::Writeback) refuse(disk + ".cache", "choice of what a flush does");
    }
    for (std::size_t i = 0; i < guest.nics.size(); ++i) {
        const std::string nic = "nics[" + std::to_string(i) + "]";
        if (guest.nics[i].receive != RateLimiter{}) refuse(nic + ".receive", "rate limit of a network card");
        if (guest.nics[i].transmit != RateLimiter{}) refuse(nic + ".transmit", "rate limit of a network card");
    }
    if (guest.vsock) refuse("vsock", "vsock device");
    if (guest.balloon) refuse("balloon", "balloon");
    if (guest.entropy) refuse("entropy", "entropy device");
    if (guest.mmds) refuse("mmds", "metadata service");
    if (guest.metrics) refuse("metrics", "metrics");
}

}  // namespace

std::string_view toString(Accelerator accelerator) noexcept {
    switch (accelerator) {
        case Accelerator::Tcg:
            return "tcg";
        case Accelerator::Kvm:
            return "kvm";
    }
    return "?";
}

std::string_view toString(Machine machine) noexcept {
    switch (machine) {
        case Machine::Q35:
            return "q35";
        case Machine::Microvm:
            return "microvm";
    }
    return "?";
}

void checkGuest(const GuestSpec& guest) {
    checkGuestShape(guest, {maxVcpus, minMemory, maxMemory, maxDisks, maxNics});
    refuseForeign(guest);
    static_cast<void>(kernelArguments(guest, Accelerator::Tcg));  // the longer of the two
}

std::string kernelArguments(const GuestSpec& guest, Accelerator accelerator) {
    const auto root =
        std::find_if(guest.disks.begin(), guest.disks.end(), [](const DiskSpec& disk) { return disk.root; });
    const bool readOnly = root != guest.disks.end() && root->readOnly;
    // Before the guest's own: what follows " -- " is init's, and of two words that say the same the later one holds.
    std::string line = std::string("root=/dev/nvme0n1 ") + (readOnly ? "ro" : "rw");
    // A kernel tests whether the timer's interrupt comes within 40 ms. On a busy host an emulated one comes later at
    // times: then 3 of 50 guests panicked ("IO-APIC + timer doesn't work!"), and one lost the interrupts of its disk
    // after the repair that it tried. Under KVM a kernel leaves the test out by itself.
    if (accelerator == Accelerator::Tcg) line += " no_timer_check";
    forEachBootArgument(guest, [&line](const std::string& word, bool ofKernel) {
        // Right for Firecracker, whose devices need no PCI, and therefore among the usual defaults; here all devices
        // are on PCI.
        if (!ofKernel || word != "pci=off") line += " " + word;
    });
    if (line.size() > maxKernelArguments) {
        throw Error(ErrorKind::InvalidArgument, "the kernel takes " + std::to_string(maxKernelArguments) +
                                                    " bytes of arguments, these are " + std::to_string(line.size()))
            .about("bootArguments");
    }
    return line;
}

std::string optionValue(std::string_view text) {
    std::string value;
    for (const char c : text) value.append(c == ',' ? 2 : 1, c);
    return value;
}

std::filesystem::path serverSocket(const VmmPlace& place) {
    return place.controlSocket.parent_path() / "server.sock";
}

LaunchPlan commandLine(const GuestSpec& guest, const VmmPlace& place, const Platform& platform) {
    checkGuest(guest);
    const std::filesystem::path own = serverSocket(place);
    for (const auto& socket : {own, place.controlSocket}) checkSocketPath(socket);

    LaunchPlan plan;
    std::vector<std::string>& line = plan.arguments;
    const auto add = [&line](std::initializer_list<std::string> words) { line.insert(line.end(), words); };

    line.push_back(platform.program.string());
    add({"-name", place.owner.str()});  // so that `ps` shows whose it is
    // Nothing that was not asked for here: no default devices, no file of the host's, no window, no restart.
    add({"-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"});
    // seccomp(2): a QEMU that a guest has taken over can start no program and become no other user. It runs as its own
    // user from the beginning (-runas would need what elevateprivileges=deny forbids).
    add({"-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"});

    if (platform.machine == Machine::Q35) {
        add({"-machine", "q35,usb=off,vmport=off,smbus=off,sata=off,dump-guest-core=off"});
    } else {
        // ACPI tells the guest of PCIe; the keyboard controller hears Ctrl-Alt-Del and resets the machine.
        add({"-machine", "microvm,pcie=on,acpi=on,usb=off,dump-guest-core=off", "-device", "i8042"});
    }
    if (platform.accelerator == Accelerator::Kvm) {
        add({"-accel", "kvm", "-cpu", "host"});
        if (platform.kvmGroup) plan.groups.push_back(*platform.kvmGroup);
    } else {
        // The buffer of translated code is memory of the host that the guest's size does not show: bounded, in MiB.
        add({"-accel", "tcg,tb-size=128", "-cpu", "max"});
    }
    add({"-smp", std::to_string(guest.vcpus), "-m", std::to_string(guest.memory.count) + "M"});

    add({"-kernel", guest.kernel.string(), "-append", kernelArguments(guest, platform.accelerator)});
    if (guest.initrd) add({"-initrd", guest.initrd->string()});

    // Raw, said explicitly: a format that QEMU guesses is one that the guest chooses (it can write a qcow2 header that
    // names a file of the host's). One controller with a namespace per disk keeps the guest's names in this order.
    add({"-device", "nvme,id=nvme,serial=mergen"});
    std::size_t number = 0;
    // The root disk first: it is the first namespace of the controller, /dev/nvme0n1, whatever the order asked for.
    for (const DiskSpec& disk : rootFirst(guest.disks)) {
        const std::string node = "disk" + std::to_string(number++);
        add({"-blockdev", "driver=raw,node-name=" + node + ",read-only=" + (disk.readOnly ? "on" : "off") +
                              ",discard=unmap,file.driver=file,file.filename=" + optionValue(disk.file.string())});
        add({"-device", "nvme-ns,bus=nvme,nsid=" + std::to_string(number) + ",drive=" + node});
    }

    for (std::size_t i = 0; i < guest.nics.size(); ++i) {
        const NicSpec& nic = guest.nics[i];
        const int fd = firstTapFd + static_cast<int>(i);
        const std::string id = "net" + std::to_string(i);
        plan.taps.push_back(InheritedTap{nic.tap, fd});
        add({"-netdev", "tap,id=" + id + ",fd=" + std::to_string(fd)});
        // No option ROM: nobody boots from the network.
        const std::string mtu = nic.mtu == 0 ? "" : ",host_mtu=" + std::to_string(nic.mtu);
        add({"-device", "virtio-net-pci,netdev=" + id + ",mac=" + nic.mac.str() + mtu + ",romfile="});
    }

    add({"-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"});
    // The server's own first: once the other one is there, this one is.
    for (const auto& [id, socket] : {std::pair("server", own), std::pair("control", place.controlSocket)}) {
        add({"-chardev", std::string("socket,id=") + id + ",server=on,wait=off,path=" + optionValue(socket.string()),
             "-mon", std::string("chardev=") + id + ",mode=control"});
    }
    // All of the guest stands on this line, so that without the server it need only not wait for the server's "cont".
    plan.unattended = line;
    plan.stale = {own, place.controlSocket};
    line.emplace_back("-S");
    return plan;
}

}  // namespace mergen::vmm
