#include "listener.hpp"

#include <arpa/inet.h>
#include <cerrno>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <utility>

#include <mergen/base/trust.hpp>
#include <mergen/sdk/error.hpp>

namespace mergen::api::http {

namespace fs = std::filesystem;

namespace {

/// Nobody but its owner until it has its group: connect(2) asks for write permission.
constexpr mode_t ownerOnly = 0600;
constexpr mode_t ownerAndGroup = 0660;

UniqueFd openSocket(int family) {
    UniqueFd fd(::socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!fd) throw Error::fromErrno(errno, "cannot make the API's socket");
    return fd;
}

Poco::Net::SocketAddress addressOf(const UniqueFd& fd) {
    sockaddr_storage storage{};
    socklen_t length = sizeof storage;
    auto* const address = reinterpret_cast<sockaddr*>(&storage);  // the kernel's calls want it so
    if (::getsockname(fd.get(), address, &length) != 0) throw Error::fromErrno(errno, "cannot read the API's address");
    return {address, length};
}

/// In place of Poco's own reading of a text, which takes "::" for a name and asks DNS.
Poco::Net::SocketAddress addressFrom(const std::string& host, std::uint16_t port) {
    sockaddr_in v4{};
    v4.sin_family = AF_INET;
    v4.sin_port = htons(port);
    if (::inet_pton(AF_INET, host.c_str(), &v4.sin_addr) == 1) {
        return {reinterpret_cast<const sockaddr*>(&v4), sizeof v4};
    }
    sockaddr_in6 v6{};
    v6.sin6_family = AF_INET6;
    v6.sin6_port = htons(port);
    if (::inet_pton(AF_INET6, host.c_str(), &v6.sin6_addr) == 1) {
        return {reinterpret_cast<const sockaddr*>(&v6), sizeof v6};
    }
    throw Error(ErrorKind::InvalidArgument, "'" + host + "' is no IPv4 or IPv6 address");
}

sockaddr_un unixAddress(const fs::path& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.native().copy(address.sun_path, sizeof address.sun_path - 1);
    return address;
}

int connectTo(const fs::path& path) {
    const UniqueFd probe = openSocket(AF_UNIX);
    const sockaddr_un address = unixAddress(path);
    const int result = ::connect(probe.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address);
    return result == 0 ? 0 : errno;
}

/// Makes room at `path` if what is there is a socket that nobody listens on.
void removeStale(const fs::path& path) {
    struct stat status {};
    if (::lstat(path.c_str(), &status) != 0) {
        if (errno == ENOENT) return;
        throw Error::fromErrno(errno, "cannot inspect " + path.string());
    }
    if (!S_ISSOCK(status.st_mode)) {
        throw Error(ErrorKind::FailedPrecondition,
                    "cannot make the API's socket " + path.string() + ": something else stands there, and stays");
    }
    const int cause = connectTo(path);
    if (cause == ENOENT) return;
    if (cause != ECONNREFUSED) {  // accepted, a full queue (EAGAIN), another type (EPROTOTYPE): somebody has it
        throw Error(ErrorKind::AlreadyExists,
                    "cannot make the API's socket " + path.string() + ": it is in use by another program");
    }
    if (::unlink(path.c_str()) != 0 && errno != ENOENT) {
        throw Error::fromErrno(errno, "cannot remove the stale socket " + path.string());
    }
}

}  // namespace

SocketFile::SocketFile(fs::path path, dev_t device, ino_t inode) noexcept
    : path_(std::move(path)), device_(device), inode_(inode) {}

SocketFile::SocketFile(SocketFile&& other) noexcept
    : path_(std::exchange(other.path_, {})), device_(other.device_), inode_(other.inode_) {}

SocketFile& SocketFile::operator=(SocketFile&& other) noexcept {
    if (this == &other) return *this;
    remove();
    path_ = std::exchange(other.path_, {});
    device_ = other.device_;
    inode_ = other.inode_;
    return *this;
}

void SocketFile::remove() noexcept {
    if (path_.empty()) return;
    struct stat status {};
    const bool ours = ::lstat(path_.c_str(), &status) == 0 && status.st_dev == device_ && status.st_ino == inode_;
    if (ours) ::unlink(path_.c_str());
    path_.clear();
}

Listener::Listener(UniqueFd fd, Poco::Net::SocketAddress address, bool local, SocketFile file)
    : fd_(std::move(fd)), address_(std::move(address)), local_(local), file_(std::move(file)) {}

Listener Listener::tcp(const std::string& host, std::uint16_t port) {
    const Poco::Net::SocketAddress address = addressFrom(host, port);
    UniqueFd fd = openSocket(address.af());
    const int on = 1;
    const int off = 0;
    // SO_REUSEADDR only: Poco would add SO_REUSEPORT, with which a second server of the same user shares the port
    // instead of being refused. [::] means both families whatever the host's default is.
    const bool ready =
        ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0 &&
        (address.af() != AF_INET6 || ::setsockopt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off) == 0) &&
        ::bind(fd.get(), address.addr(), address.length()) == 0 && ::listen(fd.get(), SOMAXCONN) == 0;
    if (!ready) {
        const int cause = errno;
        const std::string text = "cannot listen on " + address.toString();
        if (cause == EADDRINUSE) {
            throw Error(ErrorKind::AlreadyExists, text + ": the port is in use by another program");
        }
        throw Error::fromErrno(cause, text);
    }
    Poco::Net::SocketAddress bound = addressOf(fd);
    return {std::move(fd), std::move(bound), /*local=*/false, {}};
}

Listener Listener::unixSocket(const fs::path& path, gid_t group) {
    const std::string text = "cannot make the API's socket " + path.string();
    if (path.native().size() > maxSocketPath) {
        throw Error(ErrorKind::InvalidArgument, text + ": its path has more than 107 bytes");
    }
    const fs::path folder = path.parent_path();
    static_cast<void>(trustedDirectory(folder, "the folder " + folder.string() + " of the API's socket"));
    removeStale(path);
    UniqueFd fd = openSocket(AF_UNIX);
    // bind(2) gives the file the mode that the socket has, less the umask. The umask itself belongs to all threads.
    if (::fchmod(fd.get(), ownerOnly) != 0) throw Error::fromErrno(errno, text);
    const sockaddr_un address = unixAddress(path);
    if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
        throw Error::fromErrno(errno, text);
    }
    const UniqueFd node(::open(path.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
    struct stat status {};
    if (!node || ::fstat(node.get(), &status) != 0) {
        const int cause = errno;
        ::unlink(path.c_str());
        throw Error::fromErrno(cause, text);
    }
    SocketFile file(path, status.st_dev, status.st_ino);
    const std::string link = "/proc/self/fd/" + std::to_string(node.get());  // there is no fchmod(2) of O_PATH
    if (::fchownat(node.get(), "", static_cast<uid_t>(-1), group, AT_EMPTY_PATH) != 0 ||
        ::chmod(link.c_str(), ownerAndGroup) != 0 || ::listen(fd.get(), SOMAXCONN) != 0) {
        throw Error::fromErrno(errno, text);
    }
    return {std::move(fd), Poco::Net::SocketAddress(), /*local=*/true, std::move(file)};
}

UniqueFd Listener::accept(Peer& peer) const {
    sockaddr_storage storage{};
    socklen_t length = sizeof storage;
    auto* const address = reinterpret_cast<sockaddr*>(&storage);
    UniqueFd fd(::accept4(fd_.get(), address, &length, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!fd) return fd;
    peer.local = local_;
    if (local_) {
        ucred credentials{};
        socklen_t size = sizeof credentials;
        if (::getsockopt(fd.get(), SOL_SOCKET, SO_PEERCRED, &credentials, &size) != 0) return {};
        peer.uid = credentials.uid;
        peer.text = "uid " + std::to_string(credentials.uid) + ", gid " + std::to_string(credentials.gid) + ", pid " +
                    std::to_string(credentials.pid);
        return fd;
    }
    const int on = 1;
    static_cast<void>(::setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on));  // slower without
    peer.client = Poco::Net::SocketAddress(address, length);
    peer.server = address_;
    peer.host = peer.client.host().toString();
    peer.text = peer.client.toString();
    return fd;
}

}  // namespace mergen::api::http
