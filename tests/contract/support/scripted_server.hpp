#pragma once

#include <cerrno>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <poll.h>
#include <stdexcept>
#include <string>
#include <string_view>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <thread>
#include <utility>

#include <mergen/base/fd.hpp>

/// The other end of a conversation over a unix socket, as a test plays it: it can say what no program would.
namespace mergen::test {

/// The code under test, as a script sees it.
class ScriptedPeer {
public:
    explicit ScriptedPeer(UniqueFd connection) : connection_(std::move(connection)) {}

    /// Sends the bytes as they are; false once the other side has gone.
    bool send(std::string_view bytes) {
        while (!bytes.empty()) {
            const ssize_t sent = ::send(connection_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
            if (sent < 0) return false;
            bytes.remove_prefix(static_cast<std::size_t>(sent));
        }
        return true;
    }

    /// What came up to and without `end`; empty once the other side has gone.
    [[nodiscard]] std::string until(std::string_view end) {
        while (true) {
            if (const std::size_t at = buffer_.find(end); at != std::string::npos) {
                std::string text = buffer_.substr(0, at);
                buffer_.erase(0, at + end.size());
                return text;
            }
            if (!receive()) return {};
        }
    }

    /// So many bytes; fewer once the other side has gone.
    [[nodiscard]] std::string bytes(std::size_t count) {
        while (buffer_.size() < count && receive()) {
        }
        std::string text = buffer_.substr(0, count);
        buffer_.erase(0, text.size());
        return text;
    }

    /// Waits until the other side closes, and reads nothing but that.
    void awaitEnd() {
        pollfd entry{connection_.get(), POLLRDHUP, 0};
        while (::poll(&entry, 1, -1) < 0 && errno == EINTR) {
        }
    }

private:
    bool receive() {
        char chunk[4096];
        const ssize_t received = ::recv(connection_.get(), chunk, sizeof(chunk), 0);
        if (received <= 0) return false;
        buffer_.append(chunk, static_cast<std::size_t>(received));
        return true;
    }

    UniqueFd connection_;
    std::string buffer_;
};

/// Listens on a unix socket and runs `script` on its own thread for each connection, one after the other. The end
/// waits for the script, which ends when the code under test closes.
class ScriptedServer {
public:
    ScriptedServer(const std::filesystem::path& socket, std::function<void(ScriptedPeer&)> script)
        : listener_(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)),
          wake_(::eventfd(0, EFD_CLOEXEC)),
          script_(std::move(script)) {
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        socket.native().copy(address.sun_path, sizeof(address.sun_path) - 1);
        if (::bind(listener_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0 ||
            ::listen(listener_.get(), 1) != 0) {
            throw std::runtime_error("cannot listen on " + socket.string());
        }
        thread_ = std::jthread([this] { serve(); });
    }
    ScriptedServer(const ScriptedServer&) = delete;
    ScriptedServer& operator=(const ScriptedServer&) = delete;
    ~ScriptedServer() {
        const std::uint64_t one = 1;
        static_cast<void>(!::write(wake_.get(), &one, sizeof(one)));
    }

private:
    void serve() {
        while (true) {
            pollfd entries[] = {{listener_.get(), POLLIN, 0}, {wake_.get(), POLLIN, 0}};
            if (::poll(entries, 2, -1) < 0) continue;
            if (entries[1].revents != 0) return;
            UniqueFd connection(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
            if (!connection) continue;
            ScriptedPeer peer(std::move(connection));
            script_(peer);
        }
    }

    UniqueFd listener_;
    UniqueFd wake_;
    std::function<void(ScriptedPeer&)> script_;
    std::jthread thread_;
};

}  // namespace mergen::test
