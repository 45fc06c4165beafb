#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <sys/types.h>

#include <Poco/Net/SocketAddress.h>

#include <mergen/base/fd.hpp>

#include "peer.hpp"

namespace mergen::api::http {

/// The longest path of a unix socket, in bytes: sun_path of unix(7) has room for one more, the NUL.
constexpr std::size_t maxSocketPath = 107;

/// The name of a unix socket in the file system; gone with the object, unless something else stands there by then.
class SocketFile {
public:
    SocketFile() = default;
    SocketFile(std::filesystem::path path, dev_t device, ino_t inode) noexcept;
    SocketFile(SocketFile&& other) noexcept;
    SocketFile& operator=(SocketFile&& other) noexcept;
    SocketFile(const SocketFile&) = delete;
    SocketFile& operator=(const SocketFile&) = delete;
    ~SocketFile() { remove(); }

private:
    void remove() noexcept;

    std::filesystem::path path_;  // empty: none
    dev_t device_ = 0;
    ino_t inode_ = 0;
};

/// A listening socket. Threads: one.
class Listener {
public:
    /// `host`: an IPv4 or IPv6 address without brackets; names are not looked up. "::" takes IPv4, too. Port 0: the
    /// kernel chooses. Throws Error(AlreadyExists) if the port is taken.
    [[nodiscard]] static Listener tcp(const std::string& host, std::uint16_t port);

    /// A unix socket at `path` of mode 0660 and `group`. It cannot be connected to before it has both. A socket that
    /// nobody listens on any more is replaced; call under a lock that keeps a second server of the same folders out, as
    /// one that has bound but does not listen yet looks the same.
    ///
    /// Throws Error(AlreadyExists) if a process listens there; FailedPrecondition, and removes nothing, if something
    /// else than a socket stands there; PermissionDenied if others can write to the folder, as they could put a socket
    /// of their own in its place.
    [[nodiscard]] static Listener unixSocket(const std::filesystem::path& path, gid_t group);

    [[nodiscard]] int fd() const noexcept { return fd_.get(); }
    /// Of TCP; 0.0.0.0:0 otherwise.
    [[nodiscard]] const Poco::Net::SocketAddress& address() const noexcept { return address_; }

    /// The next connection, non-blocking, with who it is in `peer`; empty and errno if there is none.
    [[nodiscard]] UniqueFd accept(Peer& peer) const;

private:
    Listener(UniqueFd fd, Poco::Net::SocketAddress address, bool local, SocketFile file);

    UniqueFd fd_;
    Poco::Net::SocketAddress address_;
    bool local_ = false;
    SocketFile file_;  // last, so that the name goes before the socket
};

}  // namespace mergen::api::http
