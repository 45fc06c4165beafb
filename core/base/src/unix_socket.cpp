#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <climits>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <system_error>
#include <utility>

#include <mergen/base/text.hpp>
#include <mergen/base/unix_socket.hpp>
#include <mergen/sdk/error.hpp>

namespace mergen {

namespace {

using namespace std::chrono_literals;

std::string errnoText(int errnum) {
    return std::generic_category().message(errnum);
}

Error cannotTalk(std::string_view who, const std::filesystem::path& socket, std::string_view why, ErrorKind kind) {
    return {kind, "cannot talk to " + std::string(who) + " on " + socket.string() + ": " + std::string(why)};
}

void sleepFor(std::chrono::milliseconds time) {
    ::poll(nullptr, 0, static_cast<int>(time.count()));
}

/// Whether a process that has closed its connection ends now: its end is seen a moment later than that of its sockets.
bool endsNow(const std::function<bool()>& alive) {
    constexpr int attempts = 100;
    for (int i = 0; i < attempts; ++i) {
        if (!alive()) return true;
        sleepFor(5ms);
    }
    return false;
}

}  // namespace

void checkSocketPath(const std::filesystem::path& socket) {
    if (socket.is_absolute() && socket.native().size() <= maxSocketPath) return;
    throw Error(ErrorKind::InvalidArgument, "the path of a control socket is absolute and has at most " +
                                                std::to_string(maxSocketPath) +
                                                " bytes (unix(7)): " + printable(socket.string()));
}

std::optional<UnixConnection> UnixConnection::tryConnect(const std::filesystem::path& socket, std::uint32_t peer,
                                                         SteadyTime deadline, std::string_view who) {
    checkSocketPath(socket);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    socket.native().copy(address.sun_path, sizeof(address.sun_path) - 1);

    UniqueFd connection(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (!connection) throw Error::fromErrno(errno, "cannot make a socket");

    // Where the other side's queue of waiting clients is full, connect(2) blocks: for so long and no longer.
    const auto left = std::chrono::ceil<std::chrono::microseconds>(deadline - std::chrono::steady_clock::now());
    if (left.count() <= 0) throw cannotTalk(who, socket, "no time is left", ErrorKind::Timeout);
    timeval patience{};
    patience.tv_sec = left.count() / 1'000'000;
    patience.tv_usec = left.count() % 1'000'000;
    ::setsockopt(connection.get(), SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
    int result = 0;
    do {
        result = ::connect(connection.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address));
    } while (result != 0 && errno == EINTR);
    if (result != 0) {
        if (errno == ENOENT || errno == ECONNREFUSED) return {};
        if (errno == EAGAIN) throw cannotTalk(who, socket, "it is busy with somebody else", ErrorKind::Timeout);
        throw cannotTalk(who, socket, errnoText(errno), ErrorKind::Unavailable);
    }

    ucred listener{};
    socklen_t size = sizeof(listener);
    if (::getsockopt(connection.get(), SOL_SOCKET, SO_PEERCRED, &listener, &size) != 0)
        throw Error::fromErrno(errno, "cannot ask who listens on " + socket.string());
    if (listener.uid != peer) {
        throw cannotTalk(who, socket,
                         "user " + std::to_string(listener.uid) + " listens there, not " + std::to_string(peer),
                         ErrorKind::Unavailable);
    }
    return UnixConnection(socket, std::move(connection), deadline, who);
}

UnixConnection UnixConnection::connect(const std::filesystem::path& socket, std::uint32_t peer, SteadyTime deadline,
                                       std::string_view who) {
    std::optional<UnixConnection> connection = tryConnect(socket, peer, deadline, who);
    if (!connection) throw cannotTalk(who, socket, "nobody listens", ErrorKind::Unavailable);
    return std::move(*connection);
}

void UnixConnection::send(std::string_view bytes) {
    while (!bytes.empty()) {
        const ssize_t sent = ::send(connection_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent > 0) {
            bytes.remove_prefix(static_cast<std::size_t>(sent));
        } else if (sent < 0 && errno == EAGAIN) {
            waitFor(POLLOUT);
        } else if (sent < 0 && errno != EINTR) {
            fail(errnoText(errno));
        }
    }
}

void UnixConnection::receive(std::string& buffer) {
    while (true) {
        if (std::chrono::steady_clock::now() >= deadline_) timeOut();
        std::array<char, 16384> chunk;
        const ssize_t received = ::recv(connection_.get(), chunk.data(), chunk.size(), MSG_DONTWAIT);
        if (received > 0) {
            buffer.append(chunk.data(), static_cast<std::size_t>(received));
            return;
        }
        if (received == 0) fail("it closed the connection");
        if (errno == EAGAIN) {
            waitFor(POLLIN);
        } else if (errno != EINTR) {
            fail(errnoText(errno));
        }
    }
}

void UnixConnection::waitFor(short events) {
    while (true) {
        const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline_ - std::chrono::steady_clock::now());
        if (left.count() <= 0) timeOut();
        pollfd entry{connection_.get(), events, 0};
        const int ready = ::poll(&entry, 1, static_cast<int>(std::min<std::int64_t>(left.count(), INT_MAX)));
        if (ready > 0) return;
        if (ready < 0 && errno != EINTR) fail(errnoText(errno));
    }
}

void UnixConnection::fail(std::string_view what) const {
    throw cannotTalk(who_, socket_, what, ErrorKind::Unavailable);
}

void UnixConnection::timeOut() const {
    throw cannotTalk(who_, socket_, "it does not answer in time", ErrorKind::Timeout);
}

void awaitSocket(FolderWatches& watches, const std::filesystem::path& socket, std::string_view who, SteadyTime deadline,
                 const std::function<bool()>& alive, const std::function<bool()>& attempt) {
    // The folder's watch wakes us when the socket appears; the pauses bound how late the death of the process is seen,
    // and cover the moment between bind(2), which makes the socket, and listen(2).
    constexpr std::chrono::milliseconds checkAlive = 50ms, betweenBindAndListen = 2ms;
    FolderWatches::Watch folder(watches, socket.parent_path());
    while (true) {
        // Before the attempt, so that nothing is lost of a process that dies after it has let us connect.
        const bool living = alive();
        try {
            if (attempt()) return;
        } catch (const Error& error) {
            if (error.kind() != ErrorKind::Unavailable || !endsNow(alive)) throw;
            throw Error(ErrorKind::Unavailable,
                        std::string(who) + " ended; its console says why (" + error.what() + ")");
        }
        if (!living) {
            throw Error(ErrorKind::Unavailable, std::string(who) + " ended before it listened; its console says why");
        }
        if (std::chrono::steady_clock::now() >= deadline)
            throw Error(ErrorKind::Timeout, std::string(who) + " does not listen on " + socket.string());
        std::error_code ignored;
        folder.wait(std::filesystem::exists(socket, ignored) ? betweenBindAndListen : checkAlive);
    }
}

}  // namespace mergen
