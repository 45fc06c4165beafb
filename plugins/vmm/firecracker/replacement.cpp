#include "replacement.hpp"

#include <cerrno>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <mergen/sdk/error.hpp>

#include "kernel_image.hpp"

namespace mergen::vmm {
namespace {

[[noreturn]] void fail(int cause, const char* operation) {
    throw Error::fromErrno(cause, operation);
}

}  // namespace

Replacement::Replacement(const std::filesystem::path& kernel, int given)
    : kernel_(kernel), aside_(kernel.string() + ".unpacked") {
    struct stat like {};
    if (::fstat(given, &like) != 0) fail(errno, "cannot inspect the kernel");
    fd_.reset(::open(aside_.c_str(), O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0));
    if (!fd_) fail(errno, "cannot make the file of the unpacked kernel");
    if (::fchown(fd_.get(), like.st_uid, like.st_gid) != 0 || ::fchmod(fd_.get(), like.st_mode & 07777U) != 0) {
        const int cause = errno;
        ::unlink(aside_.c_str());
        fail(cause, "cannot give the unpacked kernel the owner and mode of its file");
    }
}

Replacement::~Replacement() {
    if (!done_) ::unlink(aside_.c_str());
}

std::string Replacement::head() const {
    return readHead(fd_.get());
}

void Replacement::commit() {
    if (::fsync(fd_.get()) != 0) fail(errno, "cannot write the unpacked kernel");
    if (::rename(aside_.c_str(), kernel_.c_str()) != 0) fail(errno, "cannot rename the unpacked kernel");
    done_ = true;
}

}  // namespace mergen::vmm
