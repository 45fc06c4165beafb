#include "fake_qmp_server.hpp"

#include <cerrno>
#include <cstdint>
#include <poll.h>
#include <stdexcept>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <utility>

namespace mergen::vmm {

bool FakePeer::send(std::string_view bytes) {
    while (!bytes.empty()) {
        const ssize_t sent = ::send(connection_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
        if (sent < 0) return false;
        bytes.remove_prefix(static_cast<std::size_t>(sent));
    }
    return true;
}

std::string FakePeer::line() {
    while (true) {
        if (const std::size_t end = buffer_.find('\n'); end != std::string::npos) {
            std::string line = buffer_.substr(0, end);
            buffer_.erase(0, end + 1);
            return line;
        }
        char chunk[4096];
        const ssize_t received = ::recv(connection_.get(), chunk, sizeof(chunk), 0);
        if (received <= 0) return {};
        buffer_.append(chunk, static_cast<std::size_t>(received));
    }
}

std::string FakePeer::answer(std::string_view answer) {
    std::string command = line();
    constexpr std::string_view key = "\"id\":";
    const std::size_t at = command.rfind(key);
    if (at == std::string::npos) return command;
    const std::size_t begin = at + key.size();
    const std::string id = command.substr(begin, command.find_first_not_of("0123456789", begin) - begin);
    send("{" + std::string(answer) + ", \"id\": " + id + "}\r\n");
    return command;
}

void FakePeer::greet() {
    send(qmpGreeting);
    answer("\"return\": {}");
}

void FakePeer::awaitEnd() {
    pollfd entry{connection_.get(), POLLRDHUP, 0};
    while (::poll(&entry, 1, -1) < 0 && errno == EINTR) {
    }
}

FakeQmpServer::FakeQmpServer(const std::filesystem::path& socket, std::function<void(FakePeer&)> script)
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
    thread_ = std::jthread([this] {
        while (true) {
            pollfd entries[] = {{listener_.get(), POLLIN, 0}, {wake_.get(), POLLIN, 0}};
            if (::poll(entries, 2, -1) < 0) continue;
            if (entries[1].revents != 0) return;
            UniqueFd connection(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
            if (!connection) continue;
            FakePeer peer(std::move(connection));
            script_(peer);
        }
    });
}

FakeQmpServer::~FakeQmpServer() {
    const std::uint64_t one = 1;
    static_cast<void>(::write(wake_.get(), &one, sizeof(one)));
}

}  // namespace mergen::vmm
