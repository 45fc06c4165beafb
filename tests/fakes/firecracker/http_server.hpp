#pragma once

#include <cstddef>
#include <functional>
#include <map>
#include <string>

#include <mergen/base/fd.hpp>

#include "machine.hpp"
#include "misbehaviour.hpp"

namespace mergen::fake {

/// The HTTP server below Firecracker's API (micro-http), with its limits and its words: one thread, ten connections,
/// one request after the other.
class HttpServer {
public:
    /// Makes the socket. Throws std::runtime_error with Firecracker's words if the path is taken.
    HttpServer(const std::string& socket, std::size_t maxBody, const Misbehaviour& misbehaviour);

    /// What wakes the caller's poll(2): readable when step() has something to do.
    [[nodiscard]] int descriptor() const { return epoll_.get(); }

    /// Does what there is to do now: accepts, reads, lets `handle` answer, writes.
    void step(const std::function<Reply(const Request&)>& handle);

    /// Writes what has been answered and not been sent yet, as far as the clients take it.
    void flush();

private:
    struct Connection {
        UniqueFd socket;
        std::string input, output;
        bool closing = false;  ///< once `output` is written
        bool endless = false;  ///< `output` is refilled for ever
    };

    void accept();
    void receive(Connection& connection, const std::function<Reply(const Request&)>& handle);
    /// Takes one request off the input and answers it; false if it is not whole yet.
    bool serve(Connection& connection, const std::function<Reply(const Request&)>& handle);
    void answer(Connection& connection, const Request& request, const Reply& reply);
    /// Answers what is no request, and closes; false.
    bool refuse(Connection& connection, const std::string& text);
    /// False once the connection is at its end.
    bool send(Connection& connection);

    UniqueFd listener_, epoll_;
    std::size_t maxBody_;
    const Misbehaviour& misbehaviour_;
    std::map<int, Connection> connections_;
    bool hung_ = false;
};

}  // namespace mergen::fake
