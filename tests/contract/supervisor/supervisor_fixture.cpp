#include <algorithm>
#include <array>
#include <cctype>
#include <cerrno>
#include <fcntl.h>
#include <fstream>
#include <iterator>
#include <poll.h>
#include <signal.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <mergen/base/file.hpp>
#include <mergen/base/text.hpp>

#include "supervisor_contract.hpp"

namespace mergen {

namespace fs = std::filesystem;

void ExitCollector::onExit(const ProcessStatus& status) noexcept {
    const std::lock_guard lock(mutex_);
    events_.push_back(status);
    arrived_.notify_all();
}

void ExitCollector::onRestart(const OwnerTag& owner) noexcept {
    const std::lock_guard lock(mutex_);
    ++restarts_[owner];
    arrived_.notify_all();
}

void ExitCollector::awaitRestart(const OwnerTag& owner, const std::function<bool()>& condition) {
    unsigned told = 0;
    while (!condition()) {
        std::unique_lock lock(mutex_);
        if (!arrived_.wait_for(lock, patience, [&] { return restarts_[owner] > told; })) {
            ADD_FAILURE() << "no restart of " << owner.str() << " is told";
            return;
        }
        told = restarts_[owner];
    }
}

ProcessStatus ExitCollector::await(const OwnerTag& owner) {
    std::unique_lock lock(mutex_);
    auto at = events_.end();
    const bool came = arrived_.wait_for(lock, patience, [&] {
        at = std::ranges::find(events_, owner, &ProcessStatus::owner);
        return at != events_.end();
    });
    if (came) return *at;
    ADD_FAILURE() << "no exit event of " << owner.str();
    return {};
}

std::size_t ExitCollector::count(const OwnerTag& owner) const {
    const std::lock_guard lock(mutex_);
    return static_cast<std::size_t>(std::ranges::count(events_, owner, &ProcessStatus::owner));
}

SupervisorFixture::SupervisorFixture(const SupervisorUnderTest& backend)
    : backend_(backend), host_(backend.keys, backend.settings, backend.libexec), probe_(host_.root() / "probe") {
    // Another user must be able to execute it: the build's folder may be closed to him.
    fs::copy_file(backend.probe.empty() ? fs::path(MERGEN_TEST_PROBE) : backend.probe, probe_);
    fs::permissions(probe_, fs::perms(0755));
    startServer();
}

SupervisorFixture::~SupervisorFixture() {
    if (!supervisor_) startServer();
    for (const OwnerTag& owner : owners_) {
        try {
            supervisor_->permitRestarts(owner, false);
            supervisor_->signal(owner, SIGKILL, "test");
            EXPECT_NE(supervisor_->waitExit(owner, patience).state, ProcessState::Running);
            supervisor_->forget(owner);
        } catch (const Error& error) {
            ADD_FAILURE() << error.what();
        }
    }
    EXPECT_TRUE(supervisor_->list().empty());
    stopServer();
    for (const OwnerTag& owner : owners_) EXPECT_TRUE(processesOf(owner).empty()) << owner.str();
}

BackendPtr<SupervisorBackend> SupervisorFixture::makeServer() {
    auto server = backend_.create();
    server->configure(host_);
    server->start();
    return server;
}

void SupervisorFixture::startServer() {
    supervisor_ = backend_.create();
    supervisor_->configure(host_);
    supervisor_->setExitListener(&exits_);
    supervisor_->start();
}

void SupervisorFixture::stopServer() {
    supervisor_->stop();
    supervisor_.reset();
}

void SupervisorFixture::restart() {
    stopServer();
    startServer();
}

OwnerTag SupervisorFixture::newOwner() {
    const OwnerTag owner{host_.instance(), Uuid::random()};
    makeDirectories(consoleOf(owner).parent_path(), 0755);
    owners_.push_back(owner);
    return owner;
}

fs::path SupervisorFixture::consoleOf(const OwnerTag& owner) const {
    return host_.paths().dataRoot / owner.vm.str() / "console.log";
}

ProcessSpec SupervisorFixture::specOf(const OwnerTag& owner, std::vector<std::string> words) const {
    ProcessSpec spec;
    spec.owner = owner;
    spec.arguments = {probe_.string(), owner.str()};  // a word that the probe passes over, and processesOf() finds
    spec.arguments.insert(spec.arguments.end(), words.begin(), words.end());
    spec.workingDirectory = "/";
    spec.credentials = {::geteuid(), ::getegid()};
    spec.console = consoleOf(owner);
    return spec;
}

std::string SupervisorFixture::consoleText(const OwnerTag& owner) const {
    std::string text;
    for (const char* const ending : {".1", ""}) {
        std::ifstream file(consoleOf(owner).string() + ending, std::ios::binary);
        text.append(std::istreambuf_iterator<char>(file), {});
    }
    return text;
}

void SupervisorFixture::awaitConsole(const OwnerTag& owner,
                                     const std::function<bool(const std::string&)>& condition) const {
    const UniqueFd changes(::inotify_init1(IN_CLOEXEC | IN_NONBLOCK));
    ASSERT_GE(::inotify_add_watch(changes.get(), consoleOf(owner).parent_path().c_str(), IN_MODIFY | IN_CREATE), 0);
    while (!condition(consoleText(owner))) {
        pollfd polled{changes.get(), POLLIN, 0};
        ASSERT_GT(::poll(&polled, 1, static_cast<int>(std::chrono::milliseconds(patience).count())), 0)
            << "what is awaited is not in the console: " << consoleText(owner);
        std::array<char, 4096> events{};
        while (::read(changes.get(), events.data(), events.size()) > 0) {
        }
    }
}

void SupervisorFixture::awaitConsole(const OwnerTag& owner, const std::string& text) const {
    awaitConsole(owner, [&](const std::string& console) { return console.find(text) != std::string::npos; });
}

ProcessStatus SupervisorFixture::launchLingering(const OwnerTag& owner, std::vector<std::string> before) {
    before.insert(before.end(), {"ready", "linger"});
    ProcessStatus status = supervisor_->launch(specOf(owner, std::move(before)));
    awaitConsole(owner, "ready " + std::to_string(status.pid) + "\n");
    return status;
}

ProcessStatus SupervisorFixture::launchRestarting(const OwnerTag& owner, RestartPlan plan,
                                                  std::vector<std::string> first, std::vector<std::string> again) {
    first.insert(first.end(), {"ready", "linger"});
    ProcessSpec spec = specOf(owner, std::move(first));
    plan.arguments = specOf(owner, std::move(again)).arguments;
    spec.restart = std::move(plan);
    ProcessStatus status = supervisor_->launch(spec);
    awaitConsole(owner, "ready " + std::to_string(status.pid) + "\n");
    supervisor_->permitRestarts(owner, true);
    return status;
}

ProcessStatus SupervisorFixture::launchToEnd(const ProcessSpec& spec) {
    supervisor_->launch(spec);
    return supervisor_->waitExit(spec.owner, patience);
}

std::vector<std::string> SupervisorFixture::linesOf(std::vector<std::string> words) {
    const OwnerTag owner = newOwner();
    EXPECT_EQ(launchToEnd(specOf(owner, std::move(words))).state, ProcessState::Exited);
    std::vector<std::string> lines = split(consoleText(owner), '\n');
    if (!lines.empty() && lines.back().empty()) lines.pop_back();
    return lines;
}

std::optional<ErrorKind> SupervisorFixture::kindOf(const std::function<void()>& action, std::string* text) {
    try {
        action();
    } catch (const Error& error) {
        if (text != nullptr) *text = error.what();
        return error.kind();
    }
    ADD_FAILURE() << "nothing was thrown";
    return std::nullopt;
}

std::vector<pid_t> SupervisorFixture::processesOf(const OwnerTag& owner) {
    std::vector<pid_t> found;
    for (const fs::directory_entry& entry : fs::directory_iterator("/proc")) {
        const std::string name = entry.path().filename().string();
        if (!std::ranges::all_of(name, [](unsigned char c) { return std::isdigit(c) != 0; })) continue;
        std::string words;
        try {
            words = readFile(entry.path() / "cmdline", 1U << 20U).value_or("");
        } catch (const Error& error) {
            if (error.errnum() != ESRCH) throw;  // ended while we were looking
        }
        if (words.find(owner.str()) != std::string::npos) found.push_back(std::stoi(name));
    }
    return found;
}

bool endsInTime(pid_t pid) {
    const UniqueFd process(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
    if (!process) return errno == ESRCH;
    pollfd polled{process.get(), POLLIN, 0};
    return ::poll(&polled, 1, static_cast<int>(std::chrono::milliseconds(patience).count())) > 0;
}

}  // namespace mergen
