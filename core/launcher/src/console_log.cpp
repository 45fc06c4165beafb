#include <algorithm>
#include <cerrno>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <mergen/base/file.hpp>
#include <mergen/launcher/console_log.hpp>
#include <mergen/sdk/error.hpp>

namespace mergen::launcher {

ConsoleLog::ConsoleLog(const std::filesystem::path& file, std::uint64_t limit)
    : name_(file.filename().string()),
      previousName_(name_ + ".1"),
      limit_(limit),
      folder_(openFile(file.parent_path(), O_PATH | O_DIRECTORY | O_NOFOLLOW)),
      file_(open(/*anew=*/false)) {
    if (!file_) throw Error::fromErrno(errno, "cannot open the console " + file.string());
    struct stat status {};
    if (::fstat(file_.get(), &status) != 0)
        throw Error::fromErrno(errno, "cannot inspect the console " + file.string());
    // A second name could be that of a file which the VM's user may not write.
    if (!S_ISREG(status.st_mode) || status.st_nlink != 1) {
        throw Error(ErrorKind::PermissionDenied,
                    "cannot use the console " + file.string() + ": it is no regular file with one name");
    }
    size_ = static_cast<std::uint64_t>(status.st_size);
}

UniqueFd ConsoleLog::open(bool anew) const noexcept {
    // O_NONBLOCK: the place may hold a FIFO, and opening that must not wait.
    return UniqueFd(::openat(folder_.get(), name_.c_str(),
                             O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | (anew ? O_EXCL : 0),
                             0600));
}

void ConsoleLog::rotate() noexcept {
    if (::renameat(folder_.get(), name_.c_str(), folder_.get(), previousName_.c_str()) != 0 && errno != ENOENT) {
        // The bound comes first: better the newest bytes alone than a file without end.
        if (file_ && ::ftruncate(file_.get(), 0) == 0) size_ = 0;
        return;
    }
    file_ = open(/*anew=*/true);
    size_ = 0;
}

void ConsoleLog::write(std::string_view data) noexcept {
    while (!data.empty()) {
        if (!file_ || size_ >= limit_) rotate();
        const std::uint64_t room = size_ < limit_ ? limit_ - size_ : 0;
        const std::size_t wanted = static_cast<std::size_t>(std::min<std::uint64_t>(room, data.size()));
        const ssize_t wrote = file_ && wanted > 0 ? ::write(file_.get(), data.data(), wanted) : -1;
        if (wrote <= 0) {
            if (file_ && wanted > 0 && wrote < 0 && errno == EINTR) continue;
            dropped_ += data.size();
            return;
        }
        size_ += static_cast<std::uint64_t>(wrote);
        data.remove_prefix(static_cast<std::size_t>(wrote));
    }
}

}  // namespace mergen::launcher
