#include "qmp_client.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <cstring>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <system_error>
#include <utility>

#include <mergen/base/json.hpp>
#include <mergen/base/text.hpp>
#include <mergen/sdk/error.hpp>

namespace mergen::vmm {
namespace {

constexpr json::Limits messageLimits{
    .bytes = QmpClient::maxMessageBytes, .depth = 16, .members = 4096, .stringBytes = 64U << 10U};

std::string errnoText(int errnum) {
    return std::generic_category().message(errnum);
}

Error cannotTalk(const std::filesystem::path& socket, std::string_view why, ErrorKind kind) {
    return Error(kind, "cannot talk to QEMU on " + socket.string() + ": " + std::string(why));
}

std::chrono::microseconds untilDeadline(SteadyTime deadline) {
    return std::chrono::ceil<std::chrono::microseconds>(deadline - std::chrono::steady_clock::now());
}

/// A connection, or nothing if nobody listens.
UniqueFd connectTo(const std::filesystem::path& socket, std::uint32_t peer, SteadyTime deadline) {
    sockaddr_un address{};
    const std::string path = socket.string();
    if (path.size() >= sizeof(address.sun_path))
        throw Error(ErrorKind::InvalidArgument,
                    "the path of a control socket has at most 107 bytes (unix(7)): " + path);
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, path.size());

    UniqueFd connection(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (!connection) throw Error::fromErrno(errno, "cannot make a socket");

    // QEMU takes one client at a time and lets one more wait: then connect(2) blocks, for so long and no longer.
    const auto left = untilDeadline(deadline);
    if (left.count() <= 0) throw cannotTalk(socket, "no time is left", ErrorKind::Timeout);
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
        if (errno == EAGAIN) throw cannotTalk(socket, "it is busy with somebody else", ErrorKind::Timeout);
        throw cannotTalk(socket, errnoText(errno), ErrorKind::Unavailable);
    }

    // The socket's folder belongs to QEMU's user, who could put a link to somebody else's socket in its place.
    ucred listener{};
    socklen_t size = sizeof(listener);
    if (::getsockopt(connection.get(), SOL_SOCKET, SO_PEERCRED, &listener, &size) != 0)
        throw Error::fromErrno(errno, "cannot ask who listens on " + path);
    if (listener.uid != peer) {
        throw cannotTalk(socket, "user " + std::to_string(listener.uid) + " listens there, not " + std::to_string(peer),
                         ErrorKind::Unavailable);
    }
    return connection;
}

}  // namespace

QmpClient::QmpClient(const std::filesystem::path& socket, UniqueFd connection, SteadyTime deadline)
    : socket_(socket), connection_(std::move(connection)), deadline_(deadline) {
    agree();
}

QmpClient QmpClient::connect(const std::filesystem::path& socket, std::uint32_t peer, SteadyTime deadline) {
    std::optional<QmpClient> client = tryConnect(socket, peer, deadline);
    if (!client) throw cannotTalk(socket, "nobody listens", ErrorKind::Unavailable);
    return std::move(*client);
}

std::optional<QmpClient> QmpClient::tryConnect(const std::filesystem::path& socket, std::uint32_t peer,
                                               SteadyTime deadline) {
    UniqueFd connection = connectTo(socket, peer, deadline);
    if (!connection) return std::nullopt;
    return QmpClient(socket, std::move(connection), deadline);
}

void QmpClient::agree() {
    if (!receive()->isObject("QMP")) fail("what answers is not QEMU");
    execute("qmp_capabilities");
}

Poco::JSON::Object::Ptr QmpClient::execute(const std::string& command, const Poco::JSON::Object::Ptr& arguments) {
    const std::int64_t id = ++lastId_;
    Poco::JSON::Object::Ptr request = json::object();
    request->set("execute", command);
    if (arguments) request->set("arguments", arguments);
    request->set("id", id);
    send(json::render(*request) + "\n");

    while (true) {
        const Poco::JSON::Object::Ptr message = receive();
        // An event, or the late answer to a client before us.
        if (!message->get("id").isInteger() || message->getValue<std::int64_t>("id") != id) continue;
        if (message->isObject("error")) {
            const auto words = message->getObject("error")->get("desc");
            throw Error(
                ErrorKind::FailedPrecondition,
                "QEMU refuses '" + command + "': " + printable(words.isString() ? words.extract<std::string>() : ""));
        }
        if (!message->isObject("return")) fail("the answer to '" + command + "' has no result");
        return message->getObject("return");
    }
}

std::string QmpClient::queryStatus() {
    const auto status = execute("query-status")->get("status");
    if (!status.isString()) fail("the answer to 'query-status' has no status");
    return status.extract<std::string>();
}

void QmpClient::send(std::string_view text) {
    while (!text.empty()) {
        const ssize_t sent = ::send(connection_.get(), text.data(), text.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent >= 0) {
            text.remove_prefix(static_cast<std::size_t>(sent));
        } else if (errno == EAGAIN) {
            waitFor(POLLOUT);
        } else if (errno != EINTR) {
            fail(errnoText(errno));
        }
    }
}

Poco::JSON::Object::Ptr QmpClient::receive() {
    while (true) {
        // A stream of events must not hold us beyond the deadline even if it never lets us wait.
        if (std::chrono::steady_clock::now() >= deadline_) timeOut();
        const std::size_t end = buffer_.find('\n', searched_);
        if (end != std::string::npos) {
            const std::string line = buffer_.substr(0, end);
            buffer_.erase(0, end + 1);
            searched_ = 0;
            try {
                return json::parseObject(trim(line), messageLimits);
            } catch (const Error& error) {
                fail("it sent something else than QMP: " + std::string(error.what()));
            }
        }
        searched_ = buffer_.size();
        if (buffer_.size() > maxMessageBytes)
            fail("it sent more than " + std::to_string(maxMessageBytes) + " bytes in one message");

        std::array<char, 16384> chunk;
        const ssize_t received = ::recv(connection_.get(), chunk.data(), chunk.size(), MSG_DONTWAIT);
        if (received > 0) {
            buffer_.append(chunk.data(), static_cast<std::size_t>(received));
        } else if (received == 0) {
            fail("it closed the connection");
        } else if (errno == EAGAIN) {
            waitFor(POLLIN);
        } else if (errno != EINTR) {
            fail(errnoText(errno));
        }
    }
}

void QmpClient::waitFor(short events) {
    while (true) {
        const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline_ - std::chrono::steady_clock::now());
        if (left.count() <= 0) timeOut();
        pollfd entry{connection_.get(), events, 0};
        const int ready = ::poll(&entry, 1, static_cast<int>(std::min<std::int64_t>(left.count(), INT_MAX)));
        if (ready > 0) return;
        if (ready < 0 && errno != EINTR) fail(errnoText(errno));
    }
}

void QmpClient::fail(std::string_view what) const {
    throw cannotTalk(socket_, what, ErrorKind::Unavailable);
}

void QmpClient::timeOut() const {
    throw cannotTalk(socket_, "it does not answer in time", ErrorKind::Timeout);
}

}  // namespace mergen::vmm
