// The bare sequences that a start is compared with, and parts of the server in a process of their own. Reads a JSON
// object with the member "do" per line, does it and prints a JSON object with what was measured, in milliseconds.
// start.py knows what to ask for.

#include <algorithm>
#include <arpa/inet.h>
#include <array>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <fcntl.h>
#include <functional>
#include <iostream>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <poll.h>
#include <signal.h>
#include <span>
#include <string>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <vector>

#include <mergen/base/file.hpp>
#include <mergen/base/folder_watches.hpp>
#include <mergen/base/json.hpp>
#include <mergen/base/process.hpp>
#include <mergen/base/unix_socket.hpp>

#include "linux_network.hpp"
#include "raw_wire.hpp"

namespace mergen::bench {
namespace {

using Clock = std::chrono::steady_clock;
using Object = Poco::JSON::Object::Ptr;
using namespace std::chrono_literals;

constexpr auto patience = 10s;

double since(Clock::time_point begin) {
    return std::chrono::duration<double, std::milli>(Clock::now() - begin).count();
}

double timed(const std::function<void()>& work) {
    const Clock::time_point begin = Clock::now();
    work();
    return since(begin);
}

void check(bool fine, const std::string& what) {
    if (!fine) throw Error::fromErrno(errno, what);
}

std::vector<std::string> words(const Object& command, const std::string& name) {
    std::vector<std::string> all;
    for (const auto& word : *command->getArray(name)) all.push_back(word.convert<std::string>());
    return all;
}

// ---- the guest's first answer

/// Sends datagrams to a guest until it answers.
class Prober {
public:
    explicit Prober(const std::string& guest)
        : thread_([this, guest](const std::stop_token& stop) { run(guest, stop); }) {}
    /// From the construction on, in ms; throws Timeout.
    double wait() {
        thread_.join();
        if (!answered_) throw Error(ErrorKind::Timeout, "the guest does not answer");
        return *answered_;
    }

private:
    void run(const std::string& guest, const std::stop_token& stop) {
        const UniqueFd udp(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
        sockaddr_in to{};
        to.sin_family = AF_INET;
        to.sin_port = htons(7);
        ::inet_pton(AF_INET, guest.c_str(), &to.sin_addr);
        while (!stop.stop_requested() && Clock::now() - begin_ < patience) {
            // Without a route yet, or refused: again.
            static_cast<void>(!::sendto(udp.get(), "?", 1, 0, reinterpret_cast<const sockaddr*>(&to), sizeof to));
            pollfd entry{udp.get(), POLLIN, 0};
            const timespec pause{0, 500'000};
            if (::ppoll(&entry, 1, &pause, nullptr) <= 0) continue;
            char answer = 0;
            if (::recv(udp.get(), &answer, 1, MSG_DONTWAIT) < 0) continue;
            answered_ = since(begin_);
            return;
        }
    }

    const Clock::time_point begin_ = Clock::now();
    std::optional<double> answered_;
    std::jthread thread_;
};

// ---- HTTP, as little as it takes

/// One request over a connection; throws unless the status is 2xx.
void exchange(const UniqueFd& connection, const std::string& method, const std::string& path, const std::string& body) {
    const std::string text = method + " " + path +
                             " HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n" +
                             "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
    check(::send(connection.get(), text.data(), text.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(text.size()), path);
    std::string answer;
    std::array<char, 16384> buffer;  // NOLINT: recv fills it
    while (answer.find("\r\n\r\n") == std::string::npos) {
        const ssize_t got = ::recv(connection.get(), buffer.data(), buffer.size(), 0);
        check(got > 0, path);
        answer.append(buffer.data(), static_cast<std::size_t>(got));
    }
    if (answer.compare(9, 1, "2") != 0) throw Error(ErrorKind::FailedPrecondition, path + ": " + answer);
}

UniqueFd connectUnix(const std::string& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof address.sun_path - 1);
    UniqueFd connection(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (::connect(connection.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) return {};
    return connection;
}

UniqueFd connectTcp(std::uint16_t port) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    UniqueFd connection(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    check(::connect(connection.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0, "connect");
    return connection;
}

// ---- parts of the server

/// What a backend needs of a server, and a log that nobody reads.
class QuietHost final : public Host, public Log {
public:
    [[nodiscard]] const Settings& settings() const noexcept override { return settings_; }
    [[nodiscard]] Log& log() noexcept override { return *this; }
    [[nodiscard]] const HostPaths& paths() const noexcept override { return paths_; }
    [[nodiscard]] const std::string& instance() const noexcept override { return instance_; }
    [[nodiscard]] const NetworkPlan& networkPlan() const noexcept override { return plan_; }
    void write(LogLevel /*level*/, std::string_view /*event*/, std::span<const LogField> /*fields*/) noexcept override {
    }
    void setTopology(const std::string& topology) {
        settings_ = {network::LinuxNetwork::keys, {{"topology", topology}}};
    }

private:
    Settings settings_{network::LinuxNetwork::keys, {}};
    HostPaths paths_{"/run/mergen-bench", "/run/mergen-bench", "/run/mergen-bench", "/run/mergen-bench"};
    std::string instance_ = "be9c4a11";
    NetworkPlan plan_{Ipv4Network::parse("10.64.0.0/16"), 20000, 60000};
};

class Bench {
public:
    Object answer(const Object& command) {
        Object result = new Poco::JSON::Object;
        const auto what = command->getValue<std::string>("do");
        if (what == "wire")
            result->set("ms", timed([&] { wires_.make(rawWire(command)); }));
        else if (what == "unwire")
            result->set("ms", timed([&] { wires_.remove(rawWire(command)); }));
        else if (what == "attach")
            attach(command, *result);
        else if (what == "detach")
            result->set("ms", timed([&] { network().detach(spec(command)); }));
        else if (what == "settle")
            result->set("ms", timed([&] { static_cast<void>(network().list()); }));  // waits for what detach left
        else if (what == "publish")
            result->set("ms", timed([&] { network().publish(spec(command)); }));
        else if (what == "topology")
            useTopology(command->getValue<std::string>("name"));
        else if (what == "connect")
            connect(command, *result);
        else if (what == "start")
            start(command, *result);
        else if (what == "request")
            request(command, *result);
        else if (what == "end")
            end(command->getValue<int>("pid"));
        else if (what == "spawn")
            spawnFrom(command, *result);
        else if (what == "socket")
            awaitedSocket(command, *result);
        else
            throw Error(ErrorKind::InvalidArgument, "there is no '" + what + "'");
        return result;
    }

private:
    static RawWire rawWire(const Object& command) { return {.number = command->getValue<unsigned>("number")}; }

    network::LinuxNetwork& network() {
        if (!network_) {
            network_ = {new network::LinuxNetwork, [](network::LinuxNetwork* backend) {
                            backend->stop();
                            delete backend;
                        }};
            network_->configure(host_);
            network_->start();
        }
        return *network_;
    }

    /// From the next wire on; none may be there.
    void useTopology(const std::string& name) {
        network_.reset();
        host_.setTopology(name);
    }

    NetworkSpec spec(const Object& command) {
        const auto number = command->getValue<unsigned>("number");
        std::array<char, 37> uuid{};
        std::snprintf(uuid.data(), uuid.size(), "%08x-0000-4000-8000-000000000000", number);
        const OwnerTag owner{host_.instance(), Uuid::parse(uuid.data())};
        const std::string digits = owner.vm.short8();
        NetworkSpec spec{.owner = owner,
                         .netns = "mergen-" + digits,
                         .tap = IfName::parse("tap-" + digits),
                         .mac = MacAddress::parse("02:fc:00:00:00:01"),
                         .guest = Ipv4Address(0x0a400000U + number),
                         .gateway = Ipv4Address(0x0a40fffeU),
                         .network = host_.networkPlan().guests,
                         .tapOwner = 0,
                         .ports = {}};
        const auto first = command->optValue<unsigned>("port", 0);
        for (unsigned i = 0; i < command->optValue<unsigned>("ports", 0); ++i) {
            spec.ports.push_back(
                {.host = static_cast<std::uint16_t>(first + i), .protocol = Protocol::Tcp, .guest = 80});
        }
        return spec;
    }

    void attach(const Object& command, Poco::JSON::Object& result) {
        const NetworkSpec wire = spec(command);
        result.set("reserve", timed([&] { static_cast<void>(network().reserve(wire)); }));
        result.set("attach", timed([&] { network().attach(wire); }));
    }

    /// Connections to a published port, one after the other, each until it stands. Who listens is in the wire's
    /// namespace, as a guest would be behind the tap: start.py has given the namespace the guest's address.
    void connect(const Object& command, Poco::JSON::Object& result) {
        UniqueFd guest;
        within("/run/netns/" + spec(command).netns, [&] {
            guest = UniqueFd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
            sockaddr_in address{};
            address.sin_family = AF_INET;
            address.sin_port = htons(80);
            check(::bind(guest.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0, "bind");
            check(::listen(guest.get(), 1) == 0, "listen");
        });
        Poco::JSON::Array::Ptr all = new Poco::JSON::Array;
        for (unsigned i = 0; i < command->getValue<unsigned>("times"); ++i) {
            UniqueFd client;
            all->add(timed([&] { client = connectTcp(command->getValue<std::uint16_t>("port")); }));
            const UniqueFd accepted(::accept4(guest.get(), nullptr, nullptr, SOCK_CLOEXEC));
            check(static_cast<bool>(accepted), "accept");
            const linger reset{1, 0};  // neither end remembers it for minutes
            check(::setsockopt(client.get(), SOL_SOCKET, SO_LINGER, &reset, sizeof reset) == 0, "SO_LINGER");
        }
        result.set("ms", all);
    }

    /// tmp, fdatasync, rename, fsync of the folder.
    static void writeRecord(const std::filesystem::path& folder) {
        const std::filesystem::path aside = folder / ".record";
        {
            const UniqueFd file = openFile(aside, O_WRONLY | O_CREAT | O_TRUNC, 0600);
            writeAll(file.get(), std::string(2000, 'x'), "record");
            check(::fdatasync(file.get()) == 0, "fdatasync");
        }
        check(::rename(aside.c_str(), (folder / "record").c_str()) == 0, "rename");
        check(::fsync(openFile(folder, O_RDONLY | O_DIRECTORY).get()) == 0, "fsync");
    }

    static pid_t spawnVmm(const Object& command) {
        SpawnOptions options;
        options.arguments = words(command, "arguments");
        const UniqueFd console =
            openFile(command->getValue<std::string>("console"), O_WRONLY | O_CREAT | O_APPEND, 0600);
        options.standardOutput = console.get();
        options.standardError = console.get();
        pid_t pid = 0;
        if (command->has("wire") && !command->optValue("jailed", false)) {  // a jailer enters it by itself
            within(RawWire{.number = command->getValue<unsigned>("wire")}.handle(), [&] { pid = spawn(options); });
        } else {
            pid = spawn(options);
        }
        return pid;
    }

    UniqueFd awaitVmm(const std::string& path) {
        const int watch = ::inotify_add_watch(folder_.get(), std::filesystem::path(path).parent_path().c_str(),
                                              IN_CREATE | IN_ONLYDIR);
        const Clock::time_point begin = Clock::now();
        UniqueFd connection;
        while (!(connection = connectUnix(path))) {
            if (Clock::now() - begin > patience) throw Error(ErrorKind::Timeout, "no socket " + path);
            pollfd entry{folder_.get(), POLLIN, 0};
            ::poll(&entry, 1, 1);
            std::array<char, 4096> events;  // NOLINT: only emptied
            while (::read(folder_.get(), events.data(), events.size()) > 0) {
            }
        }
        ::inotify_rm_watch(folder_.get(), watch);
        return connection;
    }

    /// All of a start, one step after the other: "wire": makes that one; "record": keeps a record there; "guest": waits
    /// for its answer.
    void start(const Object& command, Poco::JSON::Object& result) {
        std::optional<Prober> prober;
        if (command->has("guest")) prober.emplace(command->getValue<std::string>("guest"));
        const auto record = command->optValue<std::string>("record", "");
        const Clock::time_point begin = Clock::now();
        if (!record.empty()) writeRecord(record);
        if (command->has("wire") && !command->optValue("wired", false)) {
            wires_.make({command->getValue<unsigned>("wire"), command->optValue<std::uint32_t>("uid", 0),
                         MacAddress::parse(command->getValue<std::string>("mac"))});
        }
        const Clock::time_point spawned = Clock::now();
        const pid_t pid = spawnVmm(command);
        const UniqueFd api = awaitVmm(command->getValue<std::string>("socket"));
        for (const auto& call : *command->getArray("calls")) {
            const auto pair = call.extract<Poco::JSON::Array::Ptr>();
            exchange(api, "PUT", pair->getElement<std::string>(0), pair->getElement<std::string>(1));
        }
        result.set("vmm", since(spawned));
        if (!record.empty()) writeRecord(record);
        result.set("ms", since(begin));
        result.set("pid", pid);
        if (prober) result.set("answer", prober->wait());
    }

    /// A request to mergend, and the answer of its guest.
    static void request(const Object& command, Poco::JSON::Object& result) {
        const UniqueFd server = connectTcp(command->getValue<std::uint16_t>("port"));
        std::optional<Prober> prober;
        if (command->has("guest")) prober.emplace(command->getValue<std::string>("guest"));
        result.set("ms", timed([&] { exchange(server, "POST", command->getValue<std::string>("path"), ""); }));
        if (prober) result.set("answer", prober->wait());
    }

    static void end(pid_t pid) {
        ::kill(pid, SIGKILL);
        while (::waitpid(pid, nullptr, 0) < 0 && errno == EINTR) {
        }
    }

    /// The median of many spawns out of a process that has so much memory and so many threads.
    static void spawnFrom(const Object& command, Poco::JSON::Object& result) {
        const std::size_t size = command->getValue<std::size_t>("mib") << 20U;
        void* const memory =
            ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
        check(memory != MAP_FAILED, "mmap");
        std::mutex mutex;
        std::condition_variable over;
        bool done = false;
        std::vector<std::jthread> threads;
        for (unsigned i = 0; i < command->getValue<unsigned>("threads"); ++i) {
            threads.emplace_back([&] {
                std::unique_lock lock(mutex);
                over.wait(lock, [&] { return done; });
            });
        }
        std::vector<double> all;
        for (int i = 0; i < 51; ++i) {
            pid_t pid = 0;
            all.push_back(timed([&] { pid = spawn({.arguments = {"/bin/true"}, .environment = {}}); }));
            end(pid);
        }
        {
            const std::lock_guard lock(mutex);
            done = true;
        }
        over.notify_all();
        threads.clear();
        ::munmap(memory, size);
        std::ranges::nth_element(all, all.begin() + 25);
        result.set("ms", all[25]);
    }

    /// From the spawn of a VMM to its first connection: waited for as VMM plugins do, or asked for without a pause.
    void awaitedSocket(const Object& command, Poco::JSON::Object& result) {
        const std::string path = command->getValue<std::string>("socket");
        const Clock::time_point begin = Clock::now();
        const pid_t pid = spawnVmm(command);
        if (command->getValue<bool>("busy")) {
            while (!connectUnix(path)) {
                if (Clock::now() - begin > patience) throw Error(ErrorKind::Timeout, "no socket " + path);
            }
        } else {
            awaitSocket(
                watches_, path, "the VMM", Clock::now() + patience, [] { return true; },
                [&] { return static_cast<bool>(connectUnix(path)); });
        }
        result.set("ms", since(begin));
        end(pid);
    }

    QuietHost host_;
    RawWires wires_;
    FolderWatches watches_;
    UniqueFd folder_{::inotify_init1(IN_CLOEXEC | IN_NONBLOCK)};
    std::unique_ptr<network::LinuxNetwork, void (*)(network::LinuxNetwork*)> network_{nullptr, nullptr};
};

}  // namespace
}  // namespace mergen::bench

int main() {
    using namespace mergen;
    constexpr json::Limits limits{.bytes = 1U << 20U, .depth = 8, .members = 10000, .stringBytes = 1U << 16U};
    bench::Bench bench;
    for (std::string line; std::getline(std::cin, line);) {
        try {
            std::cout << json::render(*bench.answer(json::parseObject(line, limits))) << std::endl;
        } catch (const Error& error) {
            Poco::JSON::Object failure;
            failure.set("error", std::string(error.what()));
            std::cout << json::render(failure) << std::endl;
        }
    }
    return 0;
}
