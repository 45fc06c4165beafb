#include "raw_client.hpp"

#include <arpa/inet.h>
#include <array>
#include <cerrno>
#include <netinet/in.h>
#include <poll.h>
#include <stdexcept>
#include <sys/socket.h>
#include <sys/un.h>
#include <system_error>

#include <Poco/String.h>

#include <mergen/base/json.hpp>

namespace mergen::api::test {

namespace {

constexpr int deadlineMs = 10000;

[[noreturn]] void fail(const char* what) {
    throw std::system_error(errno, std::generic_category(), what);
}

}  // namespace

Poco::JSON::Object::Ptr Reply::json() const {
    return mergen::json::parseObject(body);
}

std::string Reply::text(const std::string& member) const {
    const Poco::JSON::Object::Ptr object = json();
    return object->has(member) ? object->getValue<std::string>(member) : "";
}

RawClient::RawClient(std::uint16_t port) : fd_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (!fd_ || ::connect(fd_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) fail("connect");
}

RawClient::RawClient(const std::filesystem::path& socket) : fd_(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    socket.native().copy(address.sun_path, sizeof address.sun_path - 1);
    if (!fd_ || ::connect(fd_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) fail("connect");
}

void RawClient::send(std::string_view bytes) {
    while (!bytes.empty()) {
        const ssize_t count = ::send(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
        if (count < 0 && (errno == EPIPE || errno == ECONNRESET)) return;
        if (count < 0) fail("send");
        bytes.remove_prefix(static_cast<std::size_t>(count));
    }
}

void RawClient::finishSending() {
    ::shutdown(fd_.get(), SHUT_WR);
}

bool RawClient::fill() {
    pollfd waiting{fd_.get(), POLLIN, 0};
    if (::poll(&waiting, 1, deadlineMs) != 1) throw std::runtime_error("the server neither answers nor closes");
    std::array<char, 65536> chunk{};
    const ssize_t count = ::recv(fd_.get(), chunk.data(), chunk.size(), 0);
    if (count < 0 && errno != ECONNRESET) fail("recv");
    if (count <= 0) return false;
    buffer_.append(chunk.data(), static_cast<std::size_t>(count));
    return true;
}

std::optional<Reply> RawClient::receive(bool toHead) {
    std::size_t end = 0;
    while ((end = buffer_.find("\r\n\r\n")) == std::string::npos) {
        if (!fill()) return std::nullopt;
    }
    Reply reply;
    reply.status = std::stoi(buffer_.substr(9, 3));
    std::size_t begin = buffer_.find("\r\n") + 2;
    while (begin < end + 2) {
        const std::size_t next = buffer_.find("\r\n", begin);
        const std::string line = buffer_.substr(begin, next - begin);
        const std::size_t colon = line.find(": ");
        reply.headers[Poco::toLower(line.substr(0, colon))] = line.substr(colon + 2);
        begin = next + 2;
    }
    buffer_.erase(0, end + 4);
    const auto length = reply.headers.find("content-length");
    if (toHead || length == reply.headers.end()) return reply;
    const std::size_t bytes = std::stoul(length->second);
    while (buffer_.size() < bytes) {
        if (!fill()) throw std::runtime_error("the reply's body was cut");
    }
    reply.body = buffer_.substr(0, bytes);
    buffer_.erase(0, bytes);
    return reply;
}

bool RawClient::closed() {
    return buffer_.empty() && !fill();
}

void RawClient::awaitAny(const std::vector<std::unique_ptr<RawClient>>& clients) {
    std::vector<pollfd> waiting;
    for (const auto& client : clients) waiting.push_back({client->fd_.get(), POLLIN, 0});
    if (::poll(waiting.data(), waiting.size(), deadlineMs) < 1) throw std::runtime_error("no reply came to anyone");
}

ServerFixture::ServerFixture(ApiConfig config, Log& log) {
    config.port = 0;
    std::vector<PluginRow> rows{{"storage", "fake", "1.0", "/lib/fake.so", "ready", "", {{"path", "/tmp"}}}};
    server_ = std::make_unique<ApiServer>(
        std::move(config), std::make_unique<FakeService>(state_), [rows = std::move(rows)] { return rows; }, log);
}

std::string requestText(const std::string& method, const std::string& target, const std::string& body,
                        const std::string& headers) {
    std::string text = method + " " + target + " HTTP/1.1\r\nHost: localhost\r\n" + headers;
    if (!body.empty() || method == "POST") text += "Content-Length: " + std::to_string(body.size()) + "\r\n";
    if (!body.empty()) text += "Content-Type: application/json\r\n";
    return text + "\r\n" + body;
}

Reply ServerFixture::request(const std::string& method, const std::string& target, const std::string& body,
                             const std::string& headers) {
    RawClient client(port());
    client.send(requestText(method, target, body, headers));
    const std::optional<Reply> reply = client.receive(method == "HEAD");
    if (!reply) throw std::runtime_error("no reply to " + method + " " + target);
    return *reply;
}

}  // namespace mergen::api::test
