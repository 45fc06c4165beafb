/// mergen-kvm-probe DEVICE INSTRUCTIONS LIMIT_MS
///
/// Whether KVM on this host really runs guests. That DEVICE (/dev/kvm) opens, makes a VM and even runs it proves
/// nothing: there are hosts, nested ones above all, whose KVM carries a guest's instructions out one by one, some
/// million a second, so that a Linux kernel never comes up. So a guest counts down in a loop of INSTRUCTIONS
/// instructions and must be through within LIMIT_MS.
///
/// A program of its own, because KVM_RUN may not return and a fault of the host's KVM must not take the server along:
/// the caller has a deadline and kills it. Prints one sentence. Exit status 0: KVM runs guests; 1: it does not; 2:
/// wrong use.
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <linux/kvm.h>
#include <optional>
#include <signal.h>
#include <string_view>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/time.h>

#include <mergen/base/fd.hpp>

namespace {

using mergen::UniqueFd;

constexpr std::size_t memorySize = 0x2000;
constexpr std::uint64_t codeAddress = 0x1000;

// 16-bit real mode, the mode of a processor after reset: ECX is the number of turns.
constexpr std::uint8_t program[] = {
    0x66, 0x49,  // turn: dec ecx
    0x75, 0xfc,  //       jnz turn
    0xf4,        //       hlt
};
constexpr std::uint64_t instructionsPerTurn = 2;

// core/base/src/kvm.cpp goes by these.
constexpr int exitUsable = 0;
constexpr int exitUnusable = 1;  // a guest ran, and showed it
constexpr int exitUsage = 2;
constexpr int exitUntried = 3;  // for a reason that may pass: no memory, KVM taken by another program

int unusable(const char* what) {
    std::printf("%s: %s\n", what, std::strerror(errno));
    return exitUntried;
}

std::optional<std::uint64_t> number(std::string_view text) {
    std::uint64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size() || value == 0 || value > UINT32_MAX)
        return std::nullopt;
    return value;
}

/// Memory that a guest or KVM writes to.
class Mapping {
public:
    Mapping(std::size_t size, int flags, int fd)
        : size_(size), memory_(::mmap(nullptr, size, PROT_READ | PROT_WRITE, flags, fd, 0)) {}
    Mapping(const Mapping&) = delete;
    Mapping& operator=(const Mapping&) = delete;
    ~Mapping() {
        if (*this) ::munmap(memory_, size_);
    }
    explicit operator bool() const { return memory_ != MAP_FAILED; }
    [[nodiscard]] void* get() const { return memory_; }

private:
    std::size_t size_;
    void* memory_;
};

int probe(const char* device, std::uint64_t instructions, std::chrono::milliseconds limit) {
    const UniqueFd kvm(::open(device, O_RDWR | O_CLOEXEC));
    if (!kvm) return unusable("it does not open");
    const int version = ::ioctl(kvm.get(), KVM_GET_API_VERSION, 0);
    if (version < 0) return unusable("it is not KVM's device");
    if (version != KVM_API_VERSION) {
        std::printf("it has version %d of the API, not %d\n", version, KVM_API_VERSION);
        return exitUnusable;
    }
    const UniqueFd vm(::ioctl(kvm.get(), KVM_CREATE_VM, 0));
    if (!vm) return unusable("it makes no VM");

    const Mapping memory(memorySize, MAP_SHARED | MAP_ANONYMOUS, -1);
    if (!memory) return unusable("no memory for a guest");
    std::memcpy(static_cast<char*>(memory.get()) + codeAddress, program, sizeof(program));
    kvm_userspace_memory_region region{};
    region.memory_size = memorySize;
    region.userspace_addr = reinterpret_cast<std::uint64_t>(memory.get());
    if (::ioctl(vm.get(), KVM_SET_USER_MEMORY_REGION, &region) != 0) return unusable("it gives a guest no memory");

    const UniqueFd cpu(::ioctl(vm.get(), KVM_CREATE_VCPU, 0));
    if (!cpu) return unusable("it makes no processor");
    const int runSize = ::ioctl(kvm.get(), KVM_GET_VCPU_MMAP_SIZE, 0);
    if (runSize < static_cast<int>(sizeof(kvm_run))) return unusable("it does not say how it reports");
    const Mapping runMapping(static_cast<std::size_t>(runSize), MAP_SHARED, cpu.get());
    if (!runMapping) return unusable("it does not report");
    const auto* run = static_cast<const kvm_run*>(runMapping.get());

    kvm_sregs segments{};
    if (::ioctl(cpu.get(), KVM_GET_SREGS, &segments) != 0) return unusable("it does not show a processor's segments");
    segments.cs.base = 0;
    segments.cs.selector = 0;
    if (::ioctl(cpu.get(), KVM_SET_SREGS, &segments) != 0) return unusable("it does not set a processor's segments");
    const std::uint64_t turns = (instructions + instructionsPerTurn - 1) / instructionsPerTurn;
    kvm_regs registers{};
    registers.rip = codeAddress;
    registers.rcx = turns;
    registers.rflags = 2;  // the bit that is always one
    if (::ioctl(cpu.get(), KVM_SET_REGS, &registers) != 0) return unusable("it does not set a processor's registers");

    // The alarm makes KVM_RUN return with EINTR; it repeats, in case the first comes before the ioctl has begun.
    struct sigaction action {};
    action.sa_handler = [](int) {};
    ::sigaction(SIGALRM, &action, nullptr);
    const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(limit);
    itimerval timer{};
    timer.it_value.tv_sec = seconds.count();
    timer.it_value.tv_usec = std::chrono::microseconds(limit - seconds).count();
    timer.it_interval.tv_usec = 50'000;
    ::setitimer(ITIMER_REAL, &timer, nullptr);

    const auto begin = std::chrono::steady_clock::now();
    const int result = ::ioctl(cpu.get(), KVM_RUN, 0);
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
    if (result != 0 && errno != EINTR) return unusable("it does not run a guest");
    if (::ioctl(cpu.get(), KVM_GET_REGS, &registers) != 0) return unusable("it does not show a processor's registers");
    const std::uint64_t left = registers.rcx & UINT32_MAX;
    const double perSecond = static_cast<double>((turns - left) * instructionsPerTurn) / took.count();
    if (result != 0) {
        std::printf("it emulates: about %.1f million instructions a second\n", perSecond / 1e6);
        return exitUnusable;
    }
    if (run->exit_reason != KVM_EXIT_HLT || left != 0) {
        std::printf("it does not run a guest: KVM_RUN ended with reason %u, not with the guest's halt\n",
                    run->exit_reason);
        return exitUnusable;
    }
    std::printf("it runs guests: %.0f million instructions a second\n", perSecond / 1e6);
    return exitUsable;
}

}  // namespace

int main(int argc, char** argv) {
    const auto instructions = argc == 4 ? number(argv[2]) : std::nullopt;
    const auto limit = argc == 4 ? number(argv[3]) : std::nullopt;
    if (!instructions || !limit) {
        std::fprintf(stderr, "usage: mergen-kvm-probe DEVICE INSTRUCTIONS LIMIT_MS\n");
        return exitUsage;
    }
    return probe(argv[1], *instructions, std::chrono::milliseconds(*limit));
}
