#include "nursery.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstdlib>
#include <fcntl.h>
#include <iostream>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <utility>
#include <vector>

#include <mergen/base/file.hpp>
#include <mergen/base/text.hpp>
#include <mergen/sdk/error.hpp>

namespace mergen::check {

namespace fs = std::filesystem;

namespace {

using Clock = std::chrono::steady_clock;

sigset_t ours() {
    sigset_t set;
    ::sigemptyset(&set);
    for (const int signal : {SIGCHLD, SIGINT, SIGTERM}) ::sigaddset(&set, signal);
    return set;
}

/// Whether one of the signals that came asks us to stop.
bool isAskedToStop(int signals) {
    bool asked = false;
    signalfd_siginfo info{};
    while (::read(signals, &info, sizeof(info)) == static_cast<ssize_t>(sizeof(info))) {
        asked = asked || info.ssi_signo != static_cast<unsigned>(SIGCHLD);
    }
    return asked;
}

/// Our children, orphans that came to us among them.
std::vector<pid_t> children() {
    std::vector<pid_t> found;
    const std::string self = std::to_string(::getpid());
    const std::string text = readFile("/proc/" + self + "/task/" + self + "/children", 1U << 20U).value_or("");
    for (const std::string& word : split(text, ' ')) {
        pid_t pid = 0;
        if (std::from_chars(word.data(), word.data() + word.size(), pid).ec == std::errc()) found.push_back(pid);
    }
    return found;
}

/// The last lines of a file that a process wrote, on which it may have died.
std::string lastLines(int file) {
    constexpr off_t most = 4096;
    constexpr std::ptrdiff_t lineLimit = 12;
    struct stat status {};
    if (::fstat(file, &status) != 0) return {};
    std::string text(static_cast<std::size_t>(std::min(status.st_size, most)), '\0');
    const ssize_t count = ::pread(file, text.data(), text.size(), std::max<off_t>(status.st_size - most, 0));
    text.resize(static_cast<std::size_t>(std::max<ssize_t>(count, 0)));
    std::vector<std::string> lines = split(text, '\n');
    std::erase_if(lines, [](const std::string& line) { return trim(line).empty(); });
    if (std::ssize(lines) > lineLimit) lines.erase(lines.begin(), lines.end() - lineLimit);
    std::string joined;
    for (const std::string& line : lines) joined += (joined.empty() ? "" : "\n") + line;
    return joined;
}

/// Whole lines of what a worker writes into its pipe.
class Ear {
public:
    explicit Ear(UniqueFd pipe) : pipe_(std::move(pipe)) {}
    [[nodiscard]] int fd() const noexcept { return pipe_.get(); }

    /// Reads what is there.
    void listen(const std::function<void(const Message&)>& hear) {
        std::array<char, 16384> chunk{};
        for (;;) {
            const ssize_t count = ::read(pipe_.get(), chunk.data(), chunk.size());
            if (count > 0) {
                text_.append(chunk.data(), static_cast<std::size_t>(count));
            } else if (count == 0 || errno != EINTR) {
                break;
            }
        }
        for (std::size_t end = 0; (end = text_.find('\n')) != std::string::npos; text_.erase(0, end + 1)) {
            hear(Message::parse(std::string_view(text_).substr(0, end)));
        }
    }

private:
    UniqueFd pipe_;
    std::string text_;
};

}  // namespace

Nursery::Nursery() {
    std::string name = (fs::temp_directory_path() / "mergen-check-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) throw Error::fromErrno(errno, "cannot make the folder " + name);
    folder_ = name;
    ::chmod(folder_.c_str(), 0711);  // VMs run as users of their own and must get through
    ::setenv("TMPDIR", folder_.c_str(), /*overwrite=*/1);
    output_ = openFile(folder_ / "output", O_RDWR | O_APPEND | O_CREAT | O_EXCL, 0600);
    const sigset_t set = ours();
    ::sigprocmask(SIG_BLOCK, &set, nullptr);
    signals_.reset(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
    if (!signals_) throw Error::fromErrno(errno, "cannot watch for signals");
    ::prctl(PR_SET_CHILD_SUBREAPER, 1);
}

Nursery::~Nursery() {
    try {
        removeTree(folder_);
    } catch (const Error&) {
        // What a plugin mounted or made immutable there is for its author to find: the report has been given.
    }
}

std::optional<int> Nursery::reap(pid_t worker) {
    std::optional<int> ended;
    int status = 0;
    for (pid_t pid = 0; (pid = ::waitpid(-1, &status, WNOHANG)) > 0;) {
        if (pid == worker) ended = status;
    }
    return ended;
}

void Nursery::sweep() {
    // The children of a killed child come to us in their turn.
    for (std::vector<pid_t> left = children(); !left.empty(); left = children()) {
        for (const pid_t child : left) {
            ::kill(child, SIGKILL);
            ::waitpid(child, nullptr, 0);
        }
    }
}

Nursery::End Nursery::run(const Options& options, Task task, std::chrono::milliseconds patience,
                          const std::function<void(const Message&)>& hear) {
    std::array<int, 2> ends{};
    if (::pipe2(ends.data(), O_CLOEXEC | O_NONBLOCK) != 0) throw Error::fromErrno(errno, "cannot make a pipe");
    Ear ear{UniqueFd(ends[0])};
    UniqueFd mouth(ends[1]);
    ::fcntl(mouth.get(), F_SETFL, 0);
    if (!options.verbose) task.output = output_.get();
    task.report = mouth.get();

    std::cout.flush();  // or the child would print it once more
    // Without exec: this process has one thread and maps nothing of the plugin's.
    const pid_t worker = ::fork();
    if (worker < 0) throw Error::fromErrno(errno, "cannot start a process");
    if (worker == 0) {
        const sigset_t set = ours();
        ::sigprocmask(SIG_UNBLOCK, &set, nullptr);
        work(options, task);
    }
    mouth.reset();

    End end;
    std::optional<int> status;
    bool stop = false;
    auto deadline = Clock::now() + patience;
    while (!(status = reap(worker))) {
        const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now());
        std::array<pollfd, 2> entries{{{ear.fd(), POLLIN, 0}, {signals_.get(), POLLIN, 0}}};
        const int ready =
            left.count() <= 0 ? 0 : ::poll(entries.data(), entries.size(), static_cast<int>(left.count()));
        if (ready == 0) {
            end.timedOut = true;
            break;
        }
        stop = isAskedToStop(signals_.get());
        if (stop) break;
        if ((entries[0].revents & POLLIN) != 0) {
            ear.listen(hear);
            deadline = Clock::now() + patience;
        }
    }
    if (!status) {
        ::kill(worker, SIGKILL);
        int killed = 0;
        ::waitpid(worker, &killed, 0);
        status = killed;
    }
    ear.listen(hear);
    sweep();
    if (stop) throw Error(ErrorKind::Unavailable, "stopped by a signal");
    end.status = *status;
    end.words = lastLines(output_.get());
    return end;
}

}  // namespace mergen::check
