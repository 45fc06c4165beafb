#include "metrics_pipe.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <fcntl.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <mergen/base/file.hpp>
#include <mergen/base/json.hpp>
#include <mergen/sdk/error.hpp>

namespace mergen::vmm {
namespace {

/// More than a pipe can be made to hold by who is not root (/proc/sys/fs/pipe-max-size).
constexpr std::size_t maxBytes = 1U << 20U;

}  // namespace

void makeMetricsPipe(const std::filesystem::path& path, const Credentials& owner) {
    removeTree(path);
    if (::mkfifo(path.c_str(), 0600) != 0) throw Error::fromErrno(errno, "cannot make the pipe " + path.string());
    if (owner.uid == ::geteuid()) return;
    if (::fchownat(AT_FDCWD, path.c_str(), owner.uid, owner.gid, AT_SYMLINK_NOFOLLOW) != 0)
        throw Error::fromErrno(errno, "cannot give the pipe " + path.string() + " to the VM's user");
}

MetricsPipe::MetricsPipe(const std::filesystem::path& path)
    : fd_(::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC)) {
    if (!fd_ && errno == ENOENT)
        throw Error(ErrorKind::NotSupported, "this VM has no metrics: it was started without them");
    if (!fd_) throw Error::fromErrno(errno, "cannot open the pipe of the metrics, " + path.string());
    struct stat status {};
    if (::fstat(fd_.get(), &status) != 0 || !S_ISFIFO(status.st_mode))
        throw Error(ErrorKind::Unavailable, path.string() + " is no pipe");
    if (::flock(fd_.get(), LOCK_EX | LOCK_NB) != 0)
        throw Error(ErrorKind::Conflict, "somebody else is reading the metrics; ask again");
}

void MetricsPipe::empty() {
    std::array<char, 4096> chunk;
    std::size_t read = 0;
    for (ssize_t got = 0; read < maxBytes && (got = ::read(fd_.get(), chunk.data(), chunk.size())) > 0;)
        read += static_cast<std::size_t>(got);
}

std::string MetricsPipe::line(SteadyTime deadline) {
    std::string text;
    std::array<char, 4096> chunk;
    for (std::size_t total = 0; total < maxBytes;) {
        const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
        if (left.count() <= 0) throw Error(ErrorKind::Timeout, "Firecracker wrote no metrics in time");
        pollfd entry{fd_.get(), POLLIN, 0};
        if (::poll(&entry, 1, static_cast<int>(std::min<std::int64_t>(left.count(), 60'000))) < 0 && errno != EINTR)
            throw Error::fromErrno(errno, "cannot wait for metrics");
        const ssize_t got = ::read(fd_.get(), chunk.data(), chunk.size());
        if (got == 0) throw Error(ErrorKind::Unavailable, "Firecracker ended while its metrics were read");
        if (got < 0 && errno != EAGAIN && errno != EINTR) throw Error::fromErrno(errno, "cannot read metrics");
        if (got < 0) continue;
        total += static_cast<std::size_t>(got);
        text.append(chunk.data(), static_cast<std::size_t>(got));
        for (std::size_t end = 0; (end = text.find('\n')) != std::string::npos; text.erase(0, end + 1)) {
            try {
                return json::render(*json::parseObject(std::string_view(text).substr(0, end)));
            } catch (const Error&) {
                continue;  // the rest of one that did not fit into the pipe
            }
        }
    }
    throw Error(ErrorKind::Unavailable, "what Firecracker writes as metrics are none");
}

}  // namespace mergen::vmm
