#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <optional>
#include <stop_token>
#include <string>
#include <sys/types.h>
#include <thread>
#include <unordered_map>
#include <variant>
#include <vector>

#include <Poco/Net/HTTPRequestHandlerFactory.h>

#include <mergen/base/fd.hpp>
#include <mergen/sdk/log.hpp>
#include <mergen/sdk/types.hpp>

#include "head.hpp"
#include "listener.hpp"
#include "peer.hpp"

namespace mergen::api::http {

struct FrontConfig {
    unsigned threads = 16;                            ///< that run handlers
    std::size_t maxQueued = 128;                      ///< whole requests that wait for a thread; beyond: 503
    std::size_t maxConnections = 512;                 ///< beyond: the one that has been reading longest is closed
    std::chrono::milliseconds requestTimeout{10000};  ///< for a whole request to arrive, and for its reply to be taken
    std::chrono::milliseconds idleTimeout{2000};      ///< between two requests of one connection
    std::size_t maxBody = 1U << 20U;                  ///< bytes
};

/// Feeds Poco's request handlers with whole, unambiguous requests.
///
/// Poco 1.11's own server parses leniently, takes cut bodies for whole ones, and gives each connection a thread, so
/// that as many slow clients as it has threads stop it. Here one thread reads and writes all connections (epoll), each
/// with one deadline for the whole request; a handler's thread sees a request only when its last byte is there, and
/// leaves the reply to the first thread again. A slow or silent client costs a few kilobytes.
///
/// Several sockets may be listened on. Caps and deadlines hold for all connections together, wherever they came from.
/// As soon as a request's head is there, the gate says who sent it or why it is refused: a body is neither awaited nor
/// kept for a client that may not ask.
///
/// Requests other than GET and HEAD may hold all threads but a quarter, so that looking works while many VMs start.
/// Bodies need a Content-Length and are counted; replies have one too. Pipelined requests are answered in order.
class Front {
public:
    /// Who sent a request, or why it goes no further. Called on the loop's thread: must neither wait nor throw.
    using Gate = std::function<std::variant<Caller, Refusal>(const Head& head, const Peer& peer)>;
    /// Fills a reply for a request that never reaches a handler; `head` is empty if it was not complete or not in
    /// order.
    using Refuse =
        std::function<void(const Refusal& refusal, const Head& head, Poco::Net::HTTPServerResponse& response)>;

    /// Begins to serve. `log` is borrowed.
    Front(FrontConfig config, std::vector<Listener> listeners, Poco::Net::HTTPRequestHandlerFactory::Ptr handlers,
          Gate gate, Refuse refuse, Log& log);
    /// Waits for handlers that still run.
    ~Front();
    Front(const Front&) = delete;
    Front& operator=(const Front&) = delete;

    /// The TCP port that is listened on; 0: none.
    [[nodiscard]] std::uint16_t port() const noexcept { return port_; }

    /// Takes no more connections, closes those on which no request is complete, and lets the others be answered, at
    /// most `limit`; then closes all. Handlers are not interrupted. May be called twice; not from a handler.
    void stop(std::chrono::milliseconds limit);

private:
    enum class Phase : std::uint8_t {
        Idle,     ///< nothing of the next request has arrived
        Head,     ///< its head is arriving
        Body,     ///< its body is arriving
        Busy,     ///< a handler has it
        Writing,  ///< the reply is leaving
        Closing,  ///< the reply has left; what still arrives is dropped, lest a reset destroys the reply on its way
    };

    struct Connection {
        UniqueFd fd;
        Peer peer;
        Phase phase = Phase::Idle;
        SteadyTime deadline;
        SteadyTime since;   // when it was accepted, or its last reply had left
        std::string input;  // not yet consumed
        HeadScanner scanner;
        http::Head head;
        Caller caller;              // once the gate has let the head in
        std::size_t headBytes = 0;  // of `input`, once the head is complete
        unsigned emptyLines = 0;    // before this head
        bool inputEnded = false;    // the client has sent all that it will
        std::string output;
        std::size_t written = 0;
        bool keepAlive = false;
        std::size_t dropped = 0;   // bytes, while Closing
        std::uint32_t events = 0;  // registered with epoll; 0: not registered
    };

    struct Job {
        std::uint64_t connection = 0;
        http::Head head;
        std::string body;
        Peer peer;
        Caller caller;
    };

    struct Done {
        std::uint64_t connection = 0;
        std::string output;
        bool keepAlive = false;
    };

    // On the loop's thread only.
    void loop();
    void accept(const Listener& listener);
    bool makeRoom();
    void onEvent(std::uint64_t id, std::uint32_t events);
    void receive(std::uint64_t id, Connection& connection);
    void advance(std::uint64_t id, Connection& connection);
    bool readHead(std::uint64_t id, Connection& connection);
    bool readBody(std::uint64_t id, Connection& connection);
    void dispatch(std::uint64_t id, Connection& connection);
    void refuse(std::uint64_t id, Connection& connection, const Refusal& refusal);
    void reply(std::uint64_t id, Connection& connection, std::string output, bool keepAlive);
    void write(std::uint64_t id, Connection& connection);
    void drop(std::uint64_t id, Connection& connection);
    void watch(std::uint64_t id, Connection& connection, std::uint32_t events);
    void close(std::uint64_t id);
    void takeDone();
    void expire(SteadyTime now);
    void beginStop();
    void pauseAccepting();
    void resumeAccepting();
    [[nodiscard]] std::optional<SteadyTime> stopAt();
    std::string refusalText(const Refusal& refusal, const http::Head& head);

    // On the workers' threads.
    void work(const std::stop_token& stop);
    std::optional<Job> takeJob(const std::stop_token& stop);
    Done handle(Job& job);

    void wake() noexcept;

    const FrontConfig config_;
    Poco::Net::HTTPRequestHandlerFactory::Ptr handlers_;
    const Gate gate_;
    const Refuse refuse_;
    Log& log_;
    const unsigned maxChanging_;  // threads that requests other than GET and HEAD may hold
    UniqueFd epoll_;
    UniqueFd wakeup_;
    std::vector<Listener> listeners_;  // after construction the loop's
    std::uint16_t port_ = 0;

    // The loop's own.
    std::unordered_map<std::uint64_t, Connection> connections_;
    std::uint64_t nextId_;  // smaller ones mean the wakeup and the listeners
    bool accepting_ = true;
    bool stopBegun_ = false;
    SteadyTime nextSweep_;

    std::mutex mutex_;
    std::condition_variable_any jobsChanged_;
    std::deque<Job> looking_;           // guarded by mutex_
    std::deque<Job> changing_;          // guarded by mutex_
    unsigned busyChanging_ = 0;         // guarded by mutex_
    std::vector<Done> done_;            // guarded by mutex_
    std::optional<SteadyTime> stopAt_;  // guarded by mutex_

    std::mutex stopMutex_;  // one stop() at a time
    std::vector<std::jthread> workers_;
    std::jthread loopThread_;
};

}  // namespace mergen::api::http
