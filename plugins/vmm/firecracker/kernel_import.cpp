#include "kernel_import.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <endian.h>
#include <fcntl.h>
#include <stdio.h>
#include <string>
#include <string_view>
#include <sys/stat.h>
#include <unistd.h>

#include <mergen/base/fd.hpp>
#include <mergen/base/file.hpp>
#include <mergen/sdk/error.hpp>

#include "kernel_image.hpp"

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
    struct stat status {};
    std::string head;

    [[nodiscard]] std::uint64_t size() const noexcept { return static_cast<std::uint64_t>(status.st_size); }
};

std::string readHead(int fd, std::uint64_t offset, std::size_t length) {
    std::string head(length, '\0');
    const ssize_t got = ::pread(fd, head.data(), length, static_cast<off_t>(offset));
    if (got < 0) throw Error::fromErrno(errno, "cannot read the kernel").about("kernel");
    head.resize(static_cast<std::size_t>(got));
    return head;
}

KernelFile openKernel(const fs::path& path) {
    KernelFile file;
    file.fd = openFile(path, O_RDONLY | O_NOFOLLOW);
    if (::fstat(file.fd.get(), &file.status) != 0)
        throw Error::fromErrno(errno, "cannot inspect the kernel").about("kernel");
    file.head = readHead(file.fd.get(), 0, kernelHeadBytes);
    return file;
}

/// A file beside the kernel that takes its place when it is whole, and is gone otherwise.
class Replacement {
public:
    Replacement(const fs::path& kernel, const struct stat& like)
        : kernel_(kernel), aside_(kernel.string() + ".unpacked"), fd_(openFile(aside_, O_RDWR | O_CREAT | O_EXCL, 0)) {
        if (::fchown(fd_.get(), like.st_uid, like.st_gid) != 0 || ::fchmod(fd_.get(), like.st_mode & 07777U) != 0) {
            const int cause = errno;
            ::unlink(aside_.c_str());
            throw Error::fromErrno(cause, "cannot give the unpacked kernel the owner and mode of its file");
        }
    }
    Replacement(const Replacement&) = delete;
    Replacement& operator=(const Replacement&) = delete;
    ~Replacement() {
        if (!done_) ::unlink(aside_.c_str());
    }
    [[nodiscard]] int fd() const noexcept { return fd_.get(); }
    /// What has been written so far.
    [[nodiscard]] std::string head() const { return readHead(fd_.get(), 0, kernelHeadBytes); }
    void commit() {
        if (::fsync(fd_.get()) != 0) throw Error::fromErrno(errno, "cannot write the unpacked kernel");
        if (::rename(aside_.c_str(), kernel_.c_str()) != 0)
            throw Error::fromErrno(errno, "cannot rename the unpacked kernel");
        done_ = true;
    }

private:
    const fs::path kernel_, aside_;
    UniqueFd fd_;
    bool done_ = false;
};

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
    if (offset > file.size() || length > file.size() - offset) {
        refuse("it is a bzImage whose payload (" + std::to_string(length) + " bytes from " + std::to_string(offset) +
               ") is not within its " + std::to_string(file.size()) + " bytes");
    }
    const std::string head = readHead(file.fd.get(), offset, std::min<std::uint64_t>(length, payloadHeadBytes));
    const std::optional<Packing> packing = packingOf(head);
    if (!packing) return leaveToFirecracker(version, "whose payload is " + std::string(describeOther(head)));
    // The kernel's build appends the unpacked size to all but gzip, which has it in the format.
    constexpr std::uint64_t sizeBytes = 4;
    const std::uint64_t appended = *packing == Packing::Gzip ? 0 : sizeBytes;
    if (length < appended) refuse("it is a bzImage whose payload is cut off");
    Replacement replacement(kernel, file.status);
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
    Replacement replacement(kernel, file.status);
    unpack(*packingOf(file.head), file.fd.get(), 0, file.size(), replacement.fd());
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
    const std::string head = readHead(kernel, 0, kernelHeadBytes);
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
