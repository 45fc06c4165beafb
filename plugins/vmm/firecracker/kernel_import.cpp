#include "kernel_import.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <endian.h>
#include <fcntl.h>
#include <string>
#include <string_view>
#include <sys/stat.h>
#include <unistd.h>

#include <mergen/base/fd.hpp>
#include <mergen/base/file.hpp>
#include <mergen/sdk/error.hpp>

#include "kernel_image.hpp"
#include "replacement.hpp"

namespace mergen::vmm {
namespace {

namespace fs = std::filesystem;

/// Of a payload's beginning, which say what compression it has.
constexpr std::size_t payloadHeadBytes = 16;

[[noreturn]] void refuse(const std::string& why) {
    throw Error(ErrorKind::InvalidArgument, why).about("kernel");
}

/// Throws unless the ELF file that begins with `head` is for this machine; `what` begins the text.
void requireThisMachine(std::string_view head, const std::string& what) {
    if (const std::string flaw = elfFlaw(head); !flaw.empty()) refuse(what + flaw);
}

/// A kernel's file, opened, with what must be known of it.
struct KernelFile {
    UniqueFd fd;
    std::uint64_t size = 0;
    std::string head;
};

KernelFile openKernel(const fs::path& path) {
    KernelFile file;
    file.fd = openFile(path, O_RDONLY | O_NOFOLLOW);
    struct stat status {};
    if (::fstat(file.fd.get(), &status) != 0)
        throw Error::fromErrno(errno, "cannot inspect the kernel").about("kernel");
    file.size = static_cast<std::uint64_t>(status.st_size);
    file.head = readHead(file.fd.get());
    return file;
}

/// The setup header of a bzImage; names and places as in Documentation/arch/x86/boot.rst.
class SetupHeader {
public:
    explicit SetupHeader(std::string_view head) : head_(head) {}

    /// Whether it says where the payload is.
    [[nodiscard]] bool hasPayload() const noexcept { return head_.size() >= 0x250 && version() >= 0x0208; }
    /// From the beginning of the file. The sum of three numbers of 32 bits and less: it cannot overflow.
    [[nodiscard]] std::uint64_t payloadOffset() const noexcept {
        const auto sectors = static_cast<std::uint8_t>(head_[0x1f1]);
        constexpr std::uint64_t whereZeroMeans = 4;
        return ((sectors == 0 ? whereZeroMeans : sectors) + 1) * 512 + number32(0x248);
    }
    [[nodiscard]] std::uint64_t payloadLength() const noexcept { return number32(0x24c); }

private:
    [[nodiscard]] std::uint32_t version() const noexcept { return number32(0x206) & 0xffffU; }
    [[nodiscard]] std::uint32_t number32(std::size_t at) const noexcept {
        std::uint32_t value = 0;
        std::memcpy(&value, head_.data() + at, sizeof value);
        return le32toh(value);
    }

    std::string_view head_;
};

/// A bzImage that is left to Firecracker, for `why` it cannot be unpacked.
void leaveToFirecracker(const std::optional<FirecrackerVersion>& version, const std::string& why) {
    if (version) requireVersion(*version, firstWithBzImage, "a bzImage " + why, "kernel");
}

void unpackBzImage(const fs::path& kernel, const KernelFile& file, const std::optional<FirecrackerVersion>& version) {
    const SetupHeader header(file.head);
    if (!header.hasPayload()) return leaveToFirecracker(version, "of a boot protocol before 2.08");
    const std::uint64_t offset = header.payloadOffset();
    const std::uint64_t length = header.payloadLength();
    if (offset > file.size || length > file.size - offset) {
        refuse("it is a bzImage whose payload (" + std::to_string(length) + " bytes from " + std::to_string(offset) +
               ") is not within its " + std::to_string(file.size) + " bytes");
    }
    const std::string head = readHead(file.fd.get(), offset, std::min<std::uint64_t>(length, payloadHeadBytes));
    const std::optional<Packing> packing = packingOf(head);
    if (!packing) return leaveToFirecracker(version, "whose payload is " + std::string(describeOther(head)));
    // The kernel's build appends the unpacked size to all but gzip, which has it in the format.
    constexpr std::uint64_t sizeBytes = 4;
    const std::uint64_t appended = *packing == Packing::Gzip ? 0 : sizeBytes;
    if (length < appended) refuse("it is a bzImage whose payload is cut off");
    Replacement replacement(kernel, file.fd.get());
    const std::uint64_t size = unpack(*packing, file.fd.get(), offset, length - appended, replacement.fd());
    if (appended != 0) {
        const std::string tail = readHead(file.fd.get(), offset + length - appended, appended);
        std::uint32_t said = 0;
        std::memcpy(&said, tail.data(), std::min(tail.size(), sizeof said));
        if (le32toh(said) != size) {
            refuse("it is a bzImage whose payload unpacks to " + std::to_string(size) + " bytes and says " +
                   std::to_string(le32toh(said)));
        }
    }
    const std::string unpacked = replacement.head();
    if (kernelForm(unpacked) != KernelForm::Elf) refuse("it is a bzImage whose payload unpacks to no ELF file");
    requireThisMachine(unpacked, "it is a bzImage whose payload unpacks to ");
    replacement.commit();
}

void unpackFile(const fs::path& kernel, const KernelFile& file) {
    Replacement replacement(kernel, file.fd.get());
    unpack(*packingOf(file.head), file.fd.get(), 0, file.size, replacement.fd());
    const std::string unpacked = replacement.head();
    switch (kernelForm(unpacked)) {
        case KernelForm::Elf:
            requireThisMachine(unpacked, "its content unpacks to ");
            return replacement.commit();
        case KernelForm::BzImage:
            return replacement.commit();
        case KernelForm::Packed:
            refuse("its content is compressed twice");
        case KernelForm::Other:
            refuse("its content unpacks to neither an ELF file nor a bzImage");
    }
}

}  // namespace

void importKernelImage(const fs::path& kernel, const std::optional<FirecrackerVersion>& version) {
    KernelFile file = openKernel(kernel);
    if (kernelForm(file.head) == KernelForm::Packed) {
        unpackFile(kernel, file);
        file = openKernel(kernel);
    }
    switch (kernelForm(file.head)) {
        case KernelForm::Elf:
            return requireThisMachine(file.head, "it is ");
        case KernelForm::BzImage:
            return unpackBzImage(kernel, file, version);
        case KernelForm::Packed:
        case KernelForm::Other:
            refuse("it is no kernel that Firecracker loads: neither an ELF file nor a bzImage");
    }
}

std::optional<Packing> packingOfKernel(int kernel) {
    const std::string head = readHead(kernel);
    switch (kernelForm(head)) {
        case KernelForm::Packed:
            return packingOf(head);
        case KernelForm::BzImage: {
            const SetupHeader header(head);
            if (!header.hasPayload()) return std::nullopt;
            return packingOf(readHead(kernel, header.payloadOffset(), payloadHeadBytes));
        }
        case KernelForm::Elf:
        case KernelForm::Other:
            break;
    }
    return std::nullopt;
}

}  // namespace mergen::vmm
