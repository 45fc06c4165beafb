#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include <Poco/JSON/Object.h>

#include <mergen/base/unix_socket.hpp>
#include <mergen/sdk/error.hpp>
#include <mergen/sdk/types.hpp>
#include <mergen/sdk/vmm.hpp>

namespace mergen::vmm {

/// One conversation with a Firecracker over its API socket: one connection that is kept, one call after the other.
///
/// The other side is not trusted: a guest that has broken out of its machine speaks here. What it sends is bounded in
/// size and time, lengths that it states are checked, and an answer is taken for nothing but its type. Firecracker
/// serves ten connections, one call at a time, so a conversation is short: one operation, then the connection is
/// closed. Threads: one. Errors: FailedPrecondition with Firecracker's own words if it refuses ("PUT /drives/rootfs:
/// …"), ResourceExhausted if something is too large for it, Unavailable if nobody listens, it is busy with others, the
/// connection ends or the answer is none; Timeout when a deadline passes.
class ApiClient {
public:
    /// Limits of its server (micro-http): of the request line, of a header's line, and of a body. What is longer is
    /// refused here with ResourceExhausted, because there it ends the connection.
    static constexpr std::size_t maxLineBytes = 1024;
    static constexpr std::size_t maxBodyBytes = 51200;
    /// No answer that is asked for here comes near them.
    static constexpr std::size_t maxHeadBytes = 8U << 10U;
    static constexpr std::size_t maxAnswerBytes = 64U << 10U;

    /// `deadline` holds for the whole conversation, `patience` for each call. `peer`: the user that must have made the
    /// socket.
    [[nodiscard]] static ApiClient connect(const std::filesystem::path& socket, std::uint32_t peer, SteadyTime deadline,
                                           std::chrono::milliseconds patience);

    /// The same, but nothing if nobody listens on the socket.
    [[nodiscard]] static std::optional<ApiClient> tryConnect(const std::filesystem::path& socket, std::uint32_t peer,
                                                             SteadyTime deadline, std::chrono::milliseconds patience);

    /// The object that `GET path` answers.
    [[nodiscard]] Poco::JSON::Object::Ptr get(const std::string& path);
    void put(const std::string& path, const Poco::JSON::Object& body);
    void patch(const std::string& path, const Poco::JSON::Object& body);

    struct Instance {
        GuestState state;
        std::string version;  ///< as it says it; nobody has looked at it
    };
    /// What `GET /` tells.
    [[nodiscard]] Instance instance();

private:
    ApiClient(UnixConnection connection, SteadyTime deadline, std::chrono::milliseconds patience)
        : connection_(std::move(connection)), deadline_(deadline), patience_(patience) {}

    struct Reply {
        unsigned status = 0;
        std::string body;
    };

    /// Sends a request and takes its answer; throws unless that is a success.
    Reply call(std::string_view method, const std::string& path, const std::string& body);
    [[nodiscard]] Reply receive();
    void change(std::string_view method, const std::string& path, const Poco::JSON::Object& body);

    UnixConnection connection_;
    SteadyTime deadline_;
    std::chrono::milliseconds patience_;
    std::string buffer_;  ///< received, not yet read
};

}  // namespace mergen::vmm
