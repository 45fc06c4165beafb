#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include <mergen/base/fd.hpp>
#include <mergen/base/folder_watches.hpp>
#include <mergen/sdk/types.hpp>

/// Talking over a unix socket to a program that is not trusted, within a deadline.
namespace mergen {

/// sun_path of unix(7) without its final NUL.
inline constexpr std::size_t maxSocketPath = 107;

/// Throws InvalidArgument unless `socket` is absolute and short enough for unix(7).
void checkSocketPath(const std::filesystem::path& socket);

/// One connection. Threads: one. Errors: Unavailable if the connection ends or breaks, Timeout when the deadline
/// passes; both name the other side and the socket.
class UnixConnection {
public:
    /// Nothing if nobody listens. `peer`: the user that must have made the socket; whoever else made it is told
    /// nothing, for its folder may belong to a user who could put a link to somebody else's socket in its place.
    /// `who`: what the other side is called in errors.
    [[nodiscard]] static std::optional<UnixConnection> tryConnect(const std::filesystem::path& socket,
                                                                  std::uint32_t peer, SteadyTime deadline,
                                                                  std::string_view who);

    /// The same, but Unavailable if nobody listens.
    [[nodiscard]] static UnixConnection connect(const std::filesystem::path& socket, std::uint32_t peer,
                                                SteadyTime deadline, std::string_view who);

    [[nodiscard]] SteadyTime deadline() const noexcept { return deadline_; }
    /// For what is sent and received from now on.
    void setDeadline(SteadyTime deadline) noexcept { deadline_ = deadline; }

    /// Sends all of it.
    void send(std::string_view bytes);
    /// Waits until there is something to read and appends it to `buffer`. Throws Timeout once the deadline has passed,
    /// also if there always is something: a stream without end does not hold us.
    void receive(std::string& buffer);

    /// Throws Unavailable: "cannot talk to <who> on <socket>: <what>".
    [[noreturn]] void fail(std::string_view what) const;

private:
    UnixConnection(std::filesystem::path socket, UniqueFd connection, SteadyTime deadline, std::string_view who)
        : socket_(std::move(socket)), connection_(std::move(connection)), deadline_(deadline), who_(who) {}

    void waitFor(short events);
    [[noreturn]] void timeOut() const;

    std::filesystem::path socket_;
    UniqueFd connection_;
    SteadyTime deadline_;
    std::string who_;
};

/// Awaits a program that is about to listen on `socket`: calls `attempt`, which connects, says what it has to say and
/// gives true, or false where nobody listens yet; again whenever something appears in the socket's folder. `alive`
/// tells whether the program is still there; once it is not, this ends with Unavailable. Throws Timeout at the
/// deadline, and what `attempt` throws.
void awaitSocket(FolderWatches& watches, const std::filesystem::path& socket, std::string_view who, SteadyTime deadline,
                 const std::function<bool()>& alive, const std::function<bool()>& attempt);

}  // namespace mergen
