#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include <Poco/JSON/Object.h>

#include <mergen/base/unix_socket.hpp>
#include <mergen/sdk/types.hpp>

namespace mergen::vmm {

/// One conversation with QEMU over its control socket: the QEMU Machine Protocol, one JSON object a line
/// (https://www.qemu.org/docs/master/interop/qmp-spec.html).
///
/// The other side is not trusted: a guest that has broken out of its machine speaks here. What it sends is bounded in
/// size and time, events and answers to other questions are passed over, and no answer is taken for more than its type.
/// QEMU serves one client of a socket at a time, so a conversation is short: one operation, then the connection is
/// closed. Threads: one. Errors: Unavailable if nobody listens, the connection ends or the answer is no QMP; Timeout
/// when the deadline passes; both name the socket.
class QmpClient {
public:
    /// No message of QEMU's that is asked for here comes near it.
    static constexpr std::size_t maxMessageBytes = 256U << 10U;

    /// Connects and agrees on capabilities (none). The deadline holds for the whole conversation. `peer`: the user that
    /// must have made the socket; whoever else made it is told nothing.
    [[nodiscard]] static QmpClient connect(const std::filesystem::path& socket, std::uint32_t peer,
                                           SteadyTime deadline);

    /// The same, but nothing if nobody listens on the socket.
    [[nodiscard]] static std::optional<QmpClient> tryConnect(const std::filesystem::path& socket, std::uint32_t peer,
                                                             SteadyTime deadline);

    /// Runs a command and gives its "return" object. Throws FailedPrecondition with QEMU's words if it refuses.
    Poco::JSON::Object::Ptr execute(const std::string& command, const Poco::JSON::Object::Ptr& arguments = nullptr);

    /// The "status" of query-status: "prelaunch", "running", ... (RunState of QEMU's qapi/run-state.json).
    [[nodiscard]] std::string queryStatus();

private:
    explicit QmpClient(UnixConnection connection);

    void agree();
    [[nodiscard]] Poco::JSON::Object::Ptr receive();

    UnixConnection connection_;
    std::string buffer_;        ///< received, not yet read
    std::size_t searched_ = 0;  ///< so much of it holds no end of line
    std::int64_t lastId_ = 0;
};

}  // namespace mergen::vmm
