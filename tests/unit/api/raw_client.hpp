#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <Poco/JSON/Object.h>

#include <mergen/api/api_server.hpp>
#include <mergen/base/fd.hpp>

#include "fake_service.hpp"

namespace mergen::api::test {

/// One reply as it came.
struct Reply {
    int status = 0;
    std::map<std::string, std::string> headers;  ///< names in lower case
    std::string body;

    /// The body, which must be a JSON object.
    [[nodiscard]] Poco::JSON::Object::Ptr json() const;
    /// A string member of it; "" if it is missing.
    [[nodiscard]] std::string text(const std::string& member) const;
};

/// A client that sends exactly the bytes that it is given. Waits at most ten seconds for anything, and then throws.
class RawClient {
public:
    /// TCP, to 127.0.0.1.
    explicit RawClient(std::uint16_t port);
    /// A unix socket.
    explicit RawClient(const std::filesystem::path& socket);
    /// Sends all; a peer that has closed already is no error, as the server may refuse before the end.
    void send(std::string_view bytes);
    void finishSending();
    /// The next reply; nothing if the connection ended before one began. `toHead`: it has no body.
    [[nodiscard]] std::optional<Reply> receive(bool toHead = false);
    /// Waits until the server closes; false if it sends something first.
    [[nodiscard]] bool closed();
    /// Waits until a reply (or the end) has come to one of them.
    static void awaitAny(const std::vector<std::unique_ptr<RawClient>>& clients);

private:
    bool fill();  // false at the end
    UniqueFd fd_;
    std::string buffer_;
};

/// A real server on a port of the kernel's choice, with a fake engine behind it.
class ServerFixture {
public:
    explicit ServerFixture(ApiConfig config = {}, Log& log = nullLog());
    [[nodiscard]] FakeState& state() { return *state_; }
    [[nodiscard]] ApiServer& server() { return *server_; }
    void end() { server_.reset(); }
    [[nodiscard]] std::uint16_t port() const { return server_->port(); }

    /// One request on a connection of its own.
    Reply request(const std::string& method, const std::string& target, const std::string& body = "",
                  const std::string& headers = "");

private:
    std::shared_ptr<FakeState> state_ = std::make_shared<FakeState>();
    std::unique_ptr<ApiServer> server_;
};

/// The bytes of a whole request with Host, and Content-Length and Content-Type where there is a body or a POST.
std::string requestText(const std::string& method, const std::string& target, const std::string& body = "",
                        const std::string& headers = "");

}  // namespace mergen::api::test
