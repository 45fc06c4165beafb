#include "http_server.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <signal.h>
#include <stdexcept>
#include <string_view>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>

#include "faults.hpp"

namespace mergen::fake {
namespace {

constexpr std::size_t maxConnections = 10;
constexpr std::size_t maxLine = 1024;
constexpr std::string_view serverFull =
    "HTTP/1.1 503\r\nServer: Firecracker API\r\nConnection: close\r\nContent-Length: 40\r\n\r\n"
    "{ \"error\": \"Too many open connections\" }";

void watch(int epoll, int operation, int fd, std::uint32_t events) {
    epoll_event event{};
    event.events = events;
    event.data.fd = fd;
    ::epoll_ctl(epoll, operation, fd, &event);
}

std::string_view trimmed(std::string_view text) {
    while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
    while (!text.empty() && text.back() == ' ') text.remove_suffix(1);
    return text;
}

std::string render(int status, const std::string& body, std::size_t length, bool deprecated) {
    std::string text =
        "HTTP/1.1 " + std::to_string(status) + " \r\nServer: Firecracker API\r\nConnection: keep-alive\r\n";
    if (deprecated) text += "Deprecation: true\r\n";
    if (status != 204) text += "Content-Type: application/json\r\nContent-Length: " + std::to_string(length) + "\r\n";
    return text + "\r\n" + body;
}

}  // namespace

HttpServer::HttpServer(const std::string& socket, std::size_t maxBody, const Misbehaviour& misbehaviour)
    : listener_(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)),
      epoll_(::epoll_create1(EPOLL_CLOEXEC)),
      maxBody_(maxBody),
      misbehaviour_(misbehaviour) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (socket.size() >= sizeof(address.sun_path)) {
        throw std::runtime_error("Failed to bind and run the HTTP server: IO error: path must be shorter than SUN_LEN");
    }
    socket.copy(address.sun_path, socket.size());
    if (::bind(listener_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
        if (errno == EADDRINUSE)
            throw std::runtime_error("Failed to open the API socket at: " + socket +
                                     ". Check that it is not already used.");
        throw std::runtime_error("Failed to bind and run the HTTP server: IO error: " + osError(errno));
    }
    ::listen(listener_.get(), 128);
    watch(epoll_.get(), EPOLL_CTL_ADD, listener_.get(), EPOLLIN);
}

void HttpServer::step(const std::function<Reply(const Request&)>& handle) {
    std::array<epoll_event, maxConnections + 1> events{};
    const int count = ::epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), 0);
    for (int i = 0; i < count; ++i) {
        const int fd = events[static_cast<std::size_t>(i)].data.fd;
        const std::uint32_t what = events[static_cast<std::size_t>(i)].events;
        if (fd == listener_.get()) {
            accept();
            continue;
        }
        const auto found = connections_.find(fd);
        if (found == connections_.end()) continue;
        bool open = (what & (EPOLLHUP | EPOLLERR | EPOLLRDHUP)) == 0;
        if (open && (what & EPOLLIN) != 0) receive(found->second, handle);
        if (open) open = send(found->second);
        if (!open) connections_.erase(found);  // closing takes it out of the epoll set
    }
}

void HttpServer::accept() {
    UniqueFd client(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!client) return;
    if (connections_.size() == maxConnections) {
        static_cast<void>(!::send(client.get(), serverFull.data(), serverFull.size(), MSG_NOSIGNAL));
        return;
    }
    const int fd = client.get();
    watch(epoll_.get(), EPOLL_CTL_ADD, fd, EPOLLIN | EPOLLRDHUP);
    connections_[fd].socket = std::move(client);
}

void HttpServer::receive(Connection& connection, const std::function<Reply(const Request&)>& handle) {
    std::array<char, 4096> chunk;
    for (ssize_t got = 0; (got = ::recv(connection.socket.get(), chunk.data(), chunk.size(), 0)) > 0;) {
        connection.input.append(chunk.data(), static_cast<std::size_t>(got));
    }
    while (!hung_ && !connection.closing && serve(connection, handle)) {
    }
}

bool HttpServer::serve(Connection& connection, const std::function<Reply(const Request&)>& handle) {
    std::string& input = connection.input;
    const std::size_t lineEnd = input.find("\r\n");
    if (std::min(lineEnd, input.size()) >= maxLine) return refuse(connection, "Invalid request.");
    if (lineEnd == std::string::npos) return false;
    const std::string line = input.substr(0, lineEnd);
    const std::size_t first = line.find(' ');
    const std::size_t second = first == std::string::npos ? first : line.find(' ', first + 1);
    if (second == std::string::npos) return refuse(connection, "Invalid request.");
    Request request{line.substr(0, first), line.substr(first + 1, second - first - 1), {}};
    if (request.method != "GET" && request.method != "PUT" && request.method != "PATCH" && request.method != "DELETE")
        return refuse(connection, "Invalid HTTP Method: Unsupported HTTP method.");
    if (request.path.empty()) return refuse(connection, "Invalid URI: Empty URI not allowed.");
    const std::string version = line.substr(second + 1);
    if (version != "HTTP/1.0" && version != "HTTP/1.1")
        return refuse(connection, "Invalid HTTP Version: Unsupported HTTP version.");

    std::size_t length = 0;
    std::size_t at = lineEnd + 2;
    while (true) {
        const std::size_t end = input.find("\r\n", at);
        if (std::min(end, input.size()) - at >= maxLine) {
            return refuse(connection,
                          "Invalid header. Reason: Invalid content length. Header: " + input.substr(at, maxLine));
        }
        if (end == std::string::npos) return false;
        if (end == at) break;
        const std::string header = input.substr(at, end - at);
        at = end + 2;
        const std::size_t colon = header.find(':');
        if (colon == std::string::npos) {
            return refuse(connection, "Invalid header. Reason: Header is incorrectly formatted. Key: " + header);
        }
        std::string name(trimmed(std::string_view(header).substr(0, colon)));
        std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return std::tolower(c); });
        if (name != "content-length") continue;
        const std::string value(trimmed(std::string_view(header).substr(colon + 1)));
        if (value.empty() || value.size() > 9 || value.find_first_not_of("0123456789") != std::string::npos) {
            return refuse(connection, "Invalid header. Reason: Invalid value. Key:" + header.substr(0, colon) +
                                          "; Value:" + header.substr(colon + 1));
        }
        length = static_cast<std::size_t>(std::atoll(value.c_str()));
        if (length > maxBody_) {
            return refuse(connection, "Request payload with size " + value + " is larger than the limit of " +
                                          std::to_string(maxBody_) + " allowed by server.");
        }
    }
    at += 2;
    if (input.size() - at < length) return false;
    if (length > 0) request.body = input.substr(at, length);
    input.erase(0, at + length);

    const std::string call = request.method + " " + request.path;
    if (misbehaviour_.dieAt == call) ::raise(SIGKILL);
    if (misbehaviour_.hangAt == call) {
        hung_ = true;
        return false;
    }
    const Reply reply = handle(request);
    if (misbehaviour_.slowMs > 0) {
        timespec time{misbehaviour_.slowMs / 1000, static_cast<long>(misbehaviour_.slowMs % 1000) * 1'000'000};
        ::nanosleep(&time, nullptr);
    }
    answer(connection, request, reply);
    return true;
}

void HttpServer::answer(Connection& connection, const Request& request, const Reply& reply) {
    const std::string& lie = misbehaviour_.lie;
    std::string& output = connection.output;
    if (misbehaviour_.flood == "api") {
        output += render(200, "", 1'000'000'000, false);
        connection.endless = true;
    } else if (lie == "garbage") {
        output += std::string("\0\xff\x80 nonsense\r\n\r\n", 16);
    } else if (lie == "length") {
        output += render(200, "{}", 4000, false);
    } else if (lie == "short") {
        output += render(200, "{\"state\":\"Running\"}", 2, false);
    } else if (lie == "status") {
        output += render(302, "{}", 2, false);
    } else if (lie == "state" && request.path == "/") {
        const std::string body = "{\"state\":\"Dreaming\"}";
        output += render(200, body, body.size(), false);
    } else if (lie == "json") {
        output += render(200, "[1", 2, false);
    } else {
        output += render(reply.status, reply.body, reply.body.size(), reply.deprecated);
    }
}

bool HttpServer::refuse(Connection& connection, const std::string& text) {
    // Not JSON, as there: the line break stands in the string as it is.
    const std::string body = "{ \"error\": \"" + text + "\nAll previous unanswered requests will be dropped.\" }";
    connection.output += render(400, body, body.size(), false);
    connection.input.clear();
    connection.closing = true;
    return false;
}

bool HttpServer::send(Connection& connection) {
    const int fd = connection.socket.get();
    while (true) {
        if (connection.endless && connection.output.size() < 65536) connection.output.append(65536, 'x');
        if (connection.output.empty()) break;
        const ssize_t sent = ::send(fd, connection.output.data(), connection.output.size(), MSG_NOSIGNAL);
        if (sent < 0) {
            if (errno != EAGAIN) return false;
            watch(epoll_.get(), EPOLL_CTL_MOD, fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP);
            return true;
        }
        connection.output.erase(0, static_cast<std::size_t>(sent));
    }
    watch(epoll_.get(), EPOLL_CTL_MOD, fd, EPOLLIN | EPOLLRDHUP);
    return !connection.closing;
}

void HttpServer::flush() {
    for (auto& [fd, connection] : connections_) {
        if (!connection.endless) static_cast<void>(send(connection));
    }
}

}  // namespace mergen::fake
