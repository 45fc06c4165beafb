#include "kernel_image.hpp"

#include <array>
#include <cerrno>
#include <cstring>
#include <elf.h>
#include <fcntl.h>
#include <string>
#include <string_view>
#include <sys/stat.h>
#include <unistd.h>
#include <utility>

#include <mergen/base/fd.hpp>
#include <mergen/sdk/error.hpp>

#include "unpack.hpp"

namespace mergen::vmm {
namespace {

using namespace std::string_view_literals;

// Documentation/arch/x86/boot.rst: "HdrS" in the setup header.
constexpr std::size_t bzImageMagicAt = 0x202;

constexpr std::array<std::pair<std::string_view, std::string_view>, 4> otherKinds{{
    {"\x04\x22\x4d\x18"sv, "compressed by lz4 in its newer frame (only the legacy one, lz4 -l, is unpacked)"},
    {"BZh"sv, "compressed by bzip2"},
    {"\x5d\x00\x00"sv, "compressed by lzma"},
    {"\x89"
     "LZO"sv,
     "compressed by lzo"},
}};

/// Machines that a kernel for another host may be for.
constexpr std::array<std::pair<unsigned, std::string_view>, 6> elfMachines{{
    {EM_X86_64, "x86_64"},
    {EM_386, "i386"},
    {EM_AARCH64, "aarch64"},
    {EM_ARM, "arm"},
    {EM_RISCV, "riscv"},
    {EM_PPC64, "ppc64"},
}};

std::string machineName(unsigned machine) {
    for (const auto& [number, name] : elfMachines) {
        if (number == machine) return std::string(name);
    }
    return "machine " + std::to_string(machine);
}

[[noreturn]] void refuse(const std::filesystem::path& kernel, std::string_view what) {
    throw Error(ErrorKind::InvalidArgument, "the kernel " + kernel.string() + " is " + std::string(what) +
                                                "; it must be an ELF file (vmlinux) or a bzImage (vmlinuz), as it is "
                                                "or compressed by gzip, xz, zstd or lz4 -l")
        .about("kernel");
}

}  // namespace

std::string readHead(int kernel, std::uint64_t offset, std::size_t length, const std::string& shown) {
    std::string head(length, '\0');
    const ssize_t got = ::pread(kernel, head.data(), length, static_cast<off_t>(offset));
    if (got < 0) throw Error::fromErrno(errno, "cannot read " + shown).about("kernel");
    head.resize(static_cast<std::size_t>(got));
    return head;
}

KernelForm kernelForm(std::string_view head) noexcept {
    if (head.starts_with("\x7f"
                         "ELF"))
        return KernelForm::Elf;
    if (head.size() >= bzImageMagicAt + 4 && head.substr(bzImageMagicAt, 4) == "HdrS") return KernelForm::BzImage;
    return packingOf(head) ? KernelForm::Packed : KernelForm::Other;
}

std::string_view describeOther(std::string_view head) noexcept {
    for (const auto& [magic, what] : otherKinds) {
        if (head.starts_with(magic)) return what;
    }
    return "of an unknown kind";
}

std::string elfFlaw(std::string_view head) {
    constexpr std::size_t machineAt = offsetof(Elf64_Ehdr, e_machine);
    if (head.size() < machineAt + sizeof(Elf64_Half)) return "an ELF file whose header is cut off";
    if (head[EI_DATA] == ELFDATA2MSB) return "a big-endian ELF file, for another machine than x86_64";
    if (head[EI_DATA] != ELFDATA2LSB) return "an ELF file of no known byte order";
    const auto low = static_cast<std::uint8_t>(head[machineAt]);
    const auto high = static_cast<std::uint8_t>(head[machineAt + 1]);
    const unsigned machine = low | static_cast<unsigned>(high) << 8U;
    if (machine != EM_X86_64) return "an ELF file for " + machineName(machine) + ", not for x86_64";
    if (head[EI_CLASS] != ELFCLASS64) return "an ELF file for x86_64 that is not of the 64-bit class";
    return {};
}

void checkKernel(const std::filesystem::path& kernel, KernelUse use, const std::optional<FirecrackerVersion>& version) {
    // Looked at before it is opened: to open a device may already do something.
    const UniqueFd place(::open(kernel.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
    if (!place) {
        if (errno == ENOENT || errno == ENOTDIR) return;
        throw Error::fromErrno(errno, "cannot open the kernel " + kernel.string()).about("kernel");
    }
    struct stat status {};
    if (::fstat(place.get(), &status) != 0)
        throw Error::fromErrno(errno, "cannot inspect the kernel " + kernel.string());
    if (!S_ISREG(status.st_mode)) refuse(kernel, "no regular file");
    const std::string same = "/proc/self/fd/" + std::to_string(place.get());
    const UniqueFd file(::open(same.c_str(), O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
    if (!file) throw Error::fromErrno(errno, "cannot open the kernel " + kernel.string()).about("kernel");
    const std::string head = readHead(file.get(), 0, kernelHeadBytes, "the kernel " + kernel.string());

    switch (kernelForm(head)) {
        case KernelForm::Elf:
            if (const std::string flaw = elfFlaw(head); !flaw.empty()) refuse(kernel, flaw);
            return;
        case KernelForm::BzImage:
            if (version && use == KernelUse::Loaded)
                requireVersion(*version, firstWithBzImage, "the kernel " + kernel.string() + " is a bzImage, which",
                               "kernel");
            return;
        case KernelForm::Packed:
            if (use == KernelUse::Loaded) refuse(kernel, "compressed still");
            return;
        case KernelForm::Other:
            refuse(kernel, describeOther(head));
    }
}

}  // namespace mergen::vmm
