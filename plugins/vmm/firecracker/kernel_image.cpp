#include "kernel_image.hpp"

#include <array>
#include <cerrno>
#include <cstring>
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

constexpr std::array<std::pair<std::string_view, std::string_view>, 5> otherKinds{{
    {"\x02\x21\x4c\x18"sv, "compressed by lz4"},
    {"\x04\x22\x4d\x18"sv, "compressed by lz4"},
    {"BZh"sv, "compressed by bzip2"},
    {"\x5d\x00\x00"sv, "compressed by lzma"},
    {"\x89"
     "LZO"sv,
     "compressed by lzo"},
}};

[[noreturn]] void refuse(const std::filesystem::path& kernel, std::string_view what) {
    throw Error(
        ErrorKind::InvalidArgument,
        "the kernel " + kernel.string() + " is " + std::string(what) +
            "; it must be an ELF file (vmlinux) or a bzImage (vmlinuz), as it is or compressed by gzip, xz or zstd")
        .about("kernel");
}

}  // namespace

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
    return "neither";
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
    std::array<char, kernelHeadBytes> buffer{};
    const ssize_t got = ::pread(file.get(), buffer.data(), buffer.size(), 0);
    if (got < 0) throw Error::fromErrno(errno, "cannot read the kernel " + kernel.string()).about("kernel");
    const std::string_view head(buffer.data(), static_cast<std::size_t>(got));

    switch (kernelForm(head)) {
        case KernelForm::Elf:
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
