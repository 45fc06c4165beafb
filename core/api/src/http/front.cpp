#include "front.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <exception>
#include <memory>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <tuple>
#include <utility>

#include <Poco/Net/HTTPRequest.h>
#include <Poco/Net/HTTPRequestHandler.h>

#include <mergen/api/tokens.hpp>
#include <mergen/sdk/error.hpp>

#include "message.hpp"

namespace mergen::api::http {

namespace {

/// RFC 9112, 2.2, wants one to be passed over; each costs the loop a little.
constexpr unsigned maxEmptyLines = 8;

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr std::uint64_t wakeupId = 0;
constexpr std::uint64_t firstListenerId = 1;
constexpr milliseconds tick{100};                // how exactly deadlines are kept
constexpr milliseconds closingTime{2000};        // for the client to take the last reply
constexpr std::size_t closingBytes = 4U << 20U;  // that it may still send meanwhile
constexpr std::size_t chunk = 64U << 10U;

bool isLooking(const std::string& method) {
    return method == "GET" || method == "HEAD";
}

}  // namespace

Front::Front(FrontConfig config, std::vector<Listener> listeners, Poco::Net::HTTPRequestHandlerFactory::Ptr handlers,
             Gate gate, Refuse refuse, Log& log)
    : config_(config),
      handlers_(std::move(handlers)),
      gate_(std::move(gate)),
      refuse_(std::move(refuse)),
      log_(log),
      maxChanging_(std::max(1U, config_.threads - config_.threads / 4)),
      epoll_(::epoll_create1(EPOLL_CLOEXEC)),
      wakeup_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      listeners_(std::move(listeners)),
      nextId_(firstListenerId + listeners_.size()) {
    for (const Listener& listener : listeners_) port_ = std::max(port_, listener.address().port());
    if (!epoll_ || !wakeup_) throw Error::fromErrno(errno, "cannot make the API's event queue");
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.u64 = wakeupId;
    if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, wakeup_.get(), &event) != 0) {
        throw Error::fromErrno(errno, "cannot watch the API's event queue");
    }
    resumeAccepting();
    for (unsigned i = 0; i < std::max(1U, config_.threads); ++i) {
        workers_.emplace_back([this](const std::stop_token& stop) { work(stop); });
    }
    loopThread_ = std::jthread([this] { loop(); });
}

Front::~Front() {
    stop(milliseconds(0));
}

void Front::stop(milliseconds limit) {
    const std::lock_guard one(stopMutex_);
    if (loopThread_.joinable()) {
        {
            const std::lock_guard lock(mutex_);
            stopAt_ = steady_clock::now() + limit;
        }
        wake();
        loopThread_.join();
    }
    {
        const std::lock_guard lock(mutex_);
        looking_.clear();
        changing_.clear();
    }
    for (std::jthread& worker : workers_) worker.request_stop();
}

void Front::wake() noexcept {
    const std::uint64_t one = 1;
    // Fails only if the counter is full, and then the loop wakes up anyhow.
    static_cast<void>(!::write(wakeup_.get(), &one, sizeof one));
}

std::optional<SteadyTime> Front::stopAt() {
    const std::lock_guard lock(mutex_);
    return stopAt_;
}

void Front::loop() {
    std::array<epoll_event, 64> events{};
    for (;;) {
        const SteadyTime now = steady_clock::now();
        const std::optional<SteadyTime> end = stopAt();
        if (end && !stopBegun_) beginStop();
        if (end && (connections_.empty() || now >= *end)) break;
        if (now >= nextSweep_) {
            nextSweep_ = now + tick;
            expire(now);
        }
        const bool nothingToExpire = connections_.empty() && accepting_ && !end;
        const int timeout = nothingToExpire ? -1 : static_cast<int>(tick.count());
        const int count = ::epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), timeout);
        for (int i = 0; i < count; ++i) {
            const epoll_event& event = events[static_cast<std::size_t>(i)];
            if (event.data.u64 == wakeupId) {
                std::uint64_t drained = 0;
                static_cast<void>(!::read(wakeup_.get(), &drained, sizeof drained));
                takeDone();
            } else if (event.data.u64 - firstListenerId < listeners_.size()) {
                accept(listeners_[event.data.u64 - firstListenerId]);
            } else {
                onEvent(event.data.u64, event.events);
            }
        }
    }
    connections_.clear();
}

void Front::resumeAccepting() {
    accepting_ = true;
    for (std::size_t i = 0; i < listeners_.size(); ++i) {
        epoll_event event{};
        event.events = EPOLLIN;
        event.data.u64 = firstListenerId + i;
        const bool watched = ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, listeners_[i].fd(), &event) == 0;
        if (!watched && errno != EEXIST) accepting_ = false;  // tried again at the next tick
    }
}

void Front::pauseAccepting() {
    for (const Listener& listener : listeners_) ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, listener.fd(), nullptr);
    accepting_ = false;
}

void Front::beginStop() {
    stopBegun_ = true;
    listeners_.clear();
    accepting_ = false;
    std::erase_if(connections_, [](const auto& entry) {
        const Phase phase = entry.second.phase;
        return phase != Phase::Busy && phase != Phase::Writing;
    });
}

void Front::accept(const Listener& listener) {
    // A few at a time, so that a flood of new connections does not keep the others waiting.
    for (int i = 0; i < 16; ++i) {
        if (connections_.size() >= config_.maxConnections && !makeRoom()) {
            pauseAccepting();  // the kernel queues them meanwhile
            return;
        }
        Peer peer;
        UniqueFd fd = listener.accept(peer);
        if (!fd) {
            const bool exhausted = errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM;
            if (exhausted && !makeRoom()) pauseAccepting();
            return;  // nobody there, or gone again already
        }
        const std::uint64_t id = nextId_++;
        Connection& connection = connections_[id];
        connection.fd = std::move(fd);
        connection.peer = std::move(peer);
        connection.since = steady_clock::now();
        connection.deadline = connection.since + config_.requestTimeout;
        watch(id, connection, EPOLLIN);
    }
}

/// Closes the connection that can best be done without; false if all are being answered. First those over TCP, so that
/// strangers cannot shut the unix socket; of these the ones without a whole request, then those that do not take their
/// reply; of these the oldest.
bool Front::makeRoom() {
    const auto rank = [](const Connection& connection) {
        return std::tuple(connection.peer.local, connection.phase == Phase::Writing, connection.since);
    };
    auto oldest = connections_.end();
    for (auto entry = connections_.begin(); entry != connections_.end(); ++entry) {
        const Connection& connection = entry->second;
        const bool taken = connection.peer.local && connection.phase == Phase::Writing;
        if (connection.phase == Phase::Busy || taken) continue;
        if (oldest == connections_.end() || rank(connection) < rank(oldest->second)) oldest = entry;
    }
    if (oldest == connections_.end()) return false;
    log_.debug("http.connection.evicted", {{"peer", oldest->second.peer.text}});
    close(oldest->first);
    return true;
}

void Front::watch(std::uint64_t id, Connection& connection, std::uint32_t events) {
    if (connection.events == events) return;
    epoll_event event{};
    event.events = events;
    event.data.u64 = id;
    // Not registered at all while a handler works: EPOLLHUP cannot be masked and would spin.
    const int operation = events == 0 ? EPOLL_CTL_DEL : connection.events == 0 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;
    if (::epoll_ctl(epoll_.get(), operation, connection.fd.get(), &event) != 0) {
        // Only memory or the user's limit of watches; the deadline then ends the connection.
        log_.warning("http.watch.failed", {{"errno", errno}});
        return;
    }
    connection.events = events;
}

void Front::close(std::uint64_t id) {
    connections_.erase(id);
}

void Front::onEvent(std::uint64_t id, std::uint32_t events) {
    const auto entry = connections_.find(id);
    if (entry == connections_.end()) return;  // closed by an earlier event of this round
    Connection& connection = entry->second;
    switch (connection.phase) {
        case Phase::Idle:
        case Phase::Head:
        case Phase::Body:
            receive(id, connection);
            return;
        case Phase::Writing:
            if ((events & EPOLLOUT) != 0) {
                write(id, connection);
            } else {
                close(id);  // error or hang-up
            }
            return;
        case Phase::Closing:
            drop(id, connection);
            return;
        case Phase::Busy:
            return;
    }
}

void Front::receive(std::uint64_t id, Connection& connection) {
    std::array<char, chunk> buffer;  // NOLINT: filled by recv
    const ssize_t count = ::recv(connection.fd.get(), buffer.data(), buffer.size(), 0);
    if (count < 0) {
        if (errno != EAGAIN && errno != EINTR) close(id);
        return;
    }
    if (count == 0) connection.inputEnded = true;
    connection.input.append(buffer.data(), static_cast<std::size_t>(count));
    advance(id, connection);
}

void Front::advance(std::uint64_t id, Connection& connection) {
    if (connection.phase == Phase::Idle) {
        if (connection.input.empty()) {
            if (connection.inputEnded) {
                close(id);
            } else {
                watch(id, connection, EPOLLIN);
            }
            return;
        }
        connection.phase = Phase::Head;
        connection.emptyLines = 0;
        connection.deadline = steady_clock::now() + config_.requestTimeout;
        connection.scanner = HeadScanner();
    }
    if (connection.phase == Phase::Head && !readHead(id, connection)) return;
    if (connection.phase == Phase::Body && !readBody(id, connection)) return;
    dispatch(id, connection);
}

/// True when the head is there; else more must arrive, or the request was refused.
bool Front::readHead(std::uint64_t id, Connection& connection) {
    for (;;) {
        const auto scanned = connection.scanner.scan(connection.input);
        if (const auto* refusal = std::get_if<Refusal>(&scanned)) {
            refuse(id, connection, *refusal);
            return false;
        }
        const std::size_t length = std::get<std::size_t>(scanned);
        if (length == 0) {
            if (!connection.inputEnded) {
                watch(id, connection, EPOLLIN);
            } else if (connection.input.empty()) {
                close(id);
            } else {
                refuse(id, connection, {400, "the request ended within its head"});
            }
            return false;
        }
        if (length == 2) {  // an empty line before the request line: RFC 9112, 2.2
            if (++connection.emptyLines > maxEmptyLines) {
                refuse(id, connection, {400, "too many empty lines before the request line"});
                return false;
            }
            connection.input.erase(0, 2);
            connection.scanner = HeadScanner();
            continue;
        }
        auto parsed = parseHead(std::string_view(connection.input).substr(0, length));
        if (const auto* refusal = std::get_if<Refusal>(&parsed)) {
            refuse(id, connection, *refusal);
            return false;
        }
        connection.head = std::get<http::Head>(std::move(parsed));
        connection.headBytes = length;
        auto entered = gate_(connection.head, connection.peer);
        if (const auto* refusal = std::get_if<Refusal>(&entered)) {
            refuse(id, connection, *refusal);
            return false;
        }
        connection.caller = std::get<Caller>(std::move(entered));
        if (connection.head.contentLength > config_.maxBody) {
            refuse(id, connection,
                   {413, "the body has " + std::to_string(connection.head.contentLength) + " bytes; at most " +
                             std::to_string(config_.maxBody) + " are taken"});
            return false;
        }
        connection.phase = Phase::Body;
        return true;
    }
}

/// True when the body is there, likewise.
bool Front::readBody(std::uint64_t id, Connection& connection) {
    const std::size_t arrived = connection.input.size() - connection.headBytes;
    const auto expected = static_cast<std::size_t>(connection.head.contentLength);
    if (arrived >= expected) return true;
    if (connection.inputEnded) {
        refuse(id, connection,
               {400, "the body ended after " + std::to_string(arrived) + " of " + std::to_string(expected) + " bytes"});
        return false;
    }
    if (connection.head.expectsContinue && arrived == 0) {
        connection.head.expectsContinue = false;
        constexpr std::string_view goOn = "HTTP/1.1 100 Continue\r\n\r\n";
        // The socket's buffer is empty: earlier replies have left. A client that does not even take this is gone.
        const ssize_t sent = ::send(connection.fd.get(), goOn.data(), goOn.size(), MSG_NOSIGNAL);
        if (sent != static_cast<ssize_t>(goOn.size())) {
            close(id);
            return false;
        }
    }
    watch(id, connection, EPOLLIN);
    return false;
}

void Front::dispatch(std::uint64_t id, Connection& connection) {
    const auto bodyBytes = static_cast<std::size_t>(connection.head.contentLength);
    Job job{id, std::exchange(connection.head, {}), connection.input.substr(connection.headBytes, bodyBytes),
            connection.peer, std::move(connection.caller)};
    connection.input.erase(0, connection.headBytes + bodyBytes);
    bool queued = false;
    {
        const std::lock_guard lock(mutex_);
        queued = looking_.size() + changing_.size() < config_.maxQueued;
        if (queued) (isLooking(job.head.method) ? looking_ : changing_).push_back(std::move(job));
    }
    if (!queued) {
        connection.head = std::move(job.head);
        refuse(id, connection, {503, "too many requests wait already; try again in a moment"});
        return;
    }
    jobsChanged_.notify_one();
    connection.phase = Phase::Busy;
    watch(id, connection, 0);
}

std::string Front::refusalText(const Refusal& refusal, const http::Head& head) {
    MemoryResponse response;
    refuse_(refusal, head, response);
    response.setKeepAlive(false);
    return response.serialise(/*toHead=*/head.method == Poco::Net::HTTPRequest::HTTP_HEAD);
}

void Front::refuse(std::uint64_t id, Connection& connection, const Refusal& refusal) {
    log_.debug("http.refused",
               {{"peer", connection.peer.text}, {"status", refusal.status}, {"cause", withoutTokens(refusal.detail)}});
    reply(id, connection, refusalText(refusal, connection.head), /*keepAlive=*/false);
}

void Front::reply(std::uint64_t id, Connection& connection, std::string output, bool keepAlive) {
    connection.phase = Phase::Writing;
    connection.deadline = steady_clock::now() + config_.requestTimeout;
    connection.output = std::move(output);
    connection.written = 0;
    connection.keepAlive = keepAlive && !stopBegun_;
    write(id, connection);
}

void Front::write(std::uint64_t id, Connection& connection) {
    while (connection.written < connection.output.size()) {
        const std::string_view rest = std::string_view(connection.output).substr(connection.written);
        const ssize_t count = ::send(connection.fd.get(), rest.data(), rest.size(), MSG_NOSIGNAL);
        if (count < 0 && errno == EINTR) continue;
        if (count < 0) {
            if (errno == EAGAIN) {
                watch(id, connection, EPOLLOUT);
            } else {
                close(id);
            }
            return;
        }
        connection.written += static_cast<std::size_t>(count);
    }
    connection.output = std::string();
    connection.since = steady_clock::now();
    if (connection.keepAlive) {
        connection.phase = Phase::Idle;
        connection.deadline = connection.since + config_.idleTimeout;
        advance(id, connection);  // what was pipelined; that goes to a handler, so this does not nest
        return;
    }
    ::shutdown(connection.fd.get(), SHUT_WR);
    if (connection.inputEnded || stopBegun_) {
        close(id);
        return;
    }
    connection.phase = Phase::Closing;
    connection.deadline = connection.since + closingTime;
    watch(id, connection, EPOLLIN);
}

void Front::drop(std::uint64_t id, Connection& connection) {
    std::array<char, chunk> buffer;  // NOLINT: filled by recv
    const ssize_t count = ::recv(connection.fd.get(), buffer.data(), buffer.size(), 0);
    if (count < 0 && (errno == EAGAIN || errno == EINTR)) return;
    connection.dropped += count > 0 ? static_cast<std::size_t>(count) : 0;
    if (count <= 0 || connection.dropped > closingBytes) close(id);
}

void Front::takeDone() {
    std::vector<Done> done;
    {
        const std::lock_guard lock(mutex_);
        done.swap(done_);
    }
    for (Done& one : done) {
        const auto entry = connections_.find(one.connection);
        if (entry != connections_.end()) reply(entry->first, entry->second, std::move(one.output), one.keepAlive);
    }
}

void Front::expire(SteadyTime now) {
    if (!accepting_ && !stopBegun_) resumeAccepting();
    std::vector<std::uint64_t> late;
    for (const auto& [id, connection] : connections_) {
        if (connection.phase != Phase::Busy && connection.deadline <= now) late.push_back(id);
    }
    for (const std::uint64_t id : late) {
        Connection& connection = connections_.at(id);
        if (connection.phase == Phase::Head || connection.phase == Phase::Body) {
            refuse(id, connection, {408, "the request did not arrive whole in time"});
        } else {
            close(id);
        }
    }
}

void Front::work(const std::stop_token& stop) {
    while (std::optional<Job> job = takeJob(stop)) {
        const bool changing = !isLooking(job->head.method);
        Done done = handle(*job);
        {
            const std::lock_guard lock(mutex_);
            done_.push_back(std::move(done));
            if (changing) --busyChanging_;
        }
        wake();
    }
}

std::optional<Front::Job> Front::takeJob(const std::stop_token& stop) {
    std::unique_lock lock(mutex_);
    const auto mayChange = [this] { return !changing_.empty() && busyChanging_ < maxChanging_; };
    jobsChanged_.wait(lock, stop, [&] { return !looking_.empty() || mayChange(); });
    if (stop.stop_requested()) return std::nullopt;
    const bool change = looking_.empty();
    std::deque<Job>& queue = change ? changing_ : looking_;
    Job job = std::move(queue.front());
    queue.pop_front();
    if (change) ++busyChanging_;
    return job;
}

Front::Done Front::handle(Job& job) {
    const bool toHead = job.head.method == Poco::Net::HTTPRequest::HTTP_HEAD;
    const bool keepAlive = job.head.keepAlive;
    std::string cause;
    try {
        MemoryResponse response;
        MemoryRequest request(job.head, std::move(job.body), job.peer, std::move(job.caller), response);
        response.setKeepAlive(keepAlive);
        const std::unique_ptr<Poco::Net::HTTPRequestHandler> handler(handlers_->createRequestHandler(request));
        if (handler != nullptr) handler->handleRequest(request, response);
        if (response.sent()) {
            const bool goesOn = keepAlive && response.getKeepAlive() && !stopAt();
            response.setKeepAlive(goesOn);
            return {job.connection, response.serialise(toHead), goesOn};
        }
        cause = "the handler sent no reply";
    } catch (const std::exception& error) {
        cause = error.what();
    } catch (...) {  // this thread's entry point: whatever a handler throws ends its request, not the server
        cause = "an exception of an unknown type";
    }
    log_.error(
        "http.handler.failed",
        {{"method", job.head.method}, {"target", withoutTokens(job.head.target)}, {"cause", withoutTokens(cause)}});
    return {job.connection, refusalText({500, "the request could not be handled"}, job.head), false};
}

}  // namespace mergen::api::http
