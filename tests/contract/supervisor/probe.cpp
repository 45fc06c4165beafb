/// A stand-in for a VMM: does what its words say, one after the other, and prints what it finds.
///
///     probe ready linger            says "ready" and lives until a signal ends it
///     probe show ids exit 3         prints its ids and ends
///
/// Words that it does not know are passed over.
#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dirent.h>
#include <fcntl.h>
#include <fstream>
#include <signal.h>
#include <string>
#include <string_view>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

extern char** environ;  // NOLINT: POSIX names it so

namespace {

void say(const std::string& line) {
    const std::string text = line + "\n";
    for (std::size_t at = 0; at < text.size();) {
        const ssize_t wrote = ::write(STDOUT_FILENO, text.data() + at, text.size() - at);
        if (wrote <= 0) std::_Exit(99);
        at += static_cast<std::size_t>(wrote);
    }
}

std::string linkOf(const std::string& path) {
    std::array<char, 4096> target{};
    const ssize_t length = ::readlink(path.c_str(), target.data(), target.size());
    return {target.data(), length > 0 ? static_cast<std::size_t>(length) : 0};
}

void showDescriptors() {
    DIR* folder = ::opendir("/proc/self/fd");
    std::vector<int> numbers;
    while (const dirent* entry = ::readdir(folder)) {
        if (entry->d_name[0] != '.' && std::atoi(entry->d_name) != ::dirfd(folder)) {
            numbers.push_back(std::atoi(entry->d_name));
        }
    }
    ::closedir(folder);
    std::ranges::sort(numbers);
    for (const int number : numbers) {
        std::string target = linkOf("/proc/self/fd/" + std::to_string(number));
        say("fd " + std::to_string(number) + " " + target.substr(0, target.find(':')));
    }
}

void showIds() {
    uid_t uid = 0;
    uid_t effectiveUid = 0;
    uid_t savedUid = 0;
    gid_t gid = 0;
    gid_t effectiveGid = 0;
    gid_t savedGid = 0;
    ::getresuid(&uid, &effectiveUid, &savedUid);
    ::getresgid(&gid, &effectiveGid, &savedGid);
    say("uids " + std::to_string(uid) + " " + std::to_string(effectiveUid) + " " + std::to_string(savedUid));
    say("gids " + std::to_string(gid) + " " + std::to_string(effectiveGid) + " " + std::to_string(savedGid));
    std::array<gid_t, 256> groups{};
    const int count = ::getgroups(static_cast<int>(groups.size()), groups.data());
    std::sort(groups.begin(), groups.begin() + std::max(count, 0));
    std::string line = "groups";
    for (int i = 0; i < count; ++i) line += " " + std::to_string(groups[static_cast<std::size_t>(i)]);
    say(line);
}

/// What the kernel says of it: privileges, signals.
void showStatus() {
    std::ifstream status("/proc/self/status");
    for (std::string line; std::getline(status, line);) {
        for (const char* const wanted : {"NoNewPrivs:", "SigBlk:", "SigIgn:", "CapEff:", "CapPrm:"}) {
            if (line.starts_with(wanted)) say(line);
        }
    }
    int signal = 0;
    ::prctl(PR_GET_PDEATHSIG, &signal);
    say("pdeathsig " + std::to_string(signal));
}

void showInterfaces() {
    std::ifstream devices("/proc/self/net/dev");
    for (std::string line; std::getline(devices, line);) {
        const std::size_t colon = line.find(':');
        const std::size_t begin = line.find_first_not_of(' ');
        if (colon != std::string::npos) say("interface " + line.substr(begin, colon - begin));
    }
}

void show(std::string_view what) {
    if (what == "env") {
        for (char** variable = environ; *variable != nullptr; ++variable) say("env " + std::string(*variable));
    } else if (what == "fds") {
        showDescriptors();
    } else if (what == "ids") {
        showIds();
    } else if (what == "status") {
        showStatus();
    } else if (what == "netns") {
        say("netns " + linkOf("/proc/self/ns/net"));
        showInterfaces();
    } else if (what == "place") {
        say("cwd " + linkOf("/proc/self/cwd"));
        say("session-leader " + std::to_string(static_cast<int>(::getsid(0) == ::getpid())));
        say("group-leader " + std::to_string(static_cast<int>(::getpgrp() == ::getpid())));
    }
}

/// Numbered lines of 64 bytes, so that a reader can tell what is missing.
void flood(long long bytes) {
    std::string block;
    long long number = 0;
    for (long long written = 0; written < bytes; written += 64) {
        std::array<char, 65> line{};
        std::snprintf(line.data(), line.size(), "%-63lld\n", number++);
        block += line.data();
        if (block.size() >= 65536 || written + 64 >= bytes) {
            block.pop_back();
            say(block);
            block.clear();
        }
    }
}

/// A descendant that has left our process group and session and would outlive us.
void makeDescendant() {
    std::array<int, 2> ready{};
    if (::pipe(ready.data()) != 0) std::_Exit(98);
    if (::fork() == 0) {
        ::setsid();
        if (::fork() == 0) {
            say("descendant " + std::to_string(::getpid()));
            static_cast<void>(!::write(ready[1], "r", 1));
            for (;;) ::pause();
        }
        std::_Exit(0);
    }
    char byte = 0;
    static_cast<void>(!::read(ready[0], &byte, 1));
    ::wait(nullptr);
}

}  // namespace

int main(int argc, char** argv) {
    const std::vector<std::string> words(argv + 1, argv + argc);
    for (std::size_t at = 0; at < words.size(); ++at) {
        const std::string& word = words[at];
        const auto argument = [&]() -> const std::string& { return ++at < words.size() ? words[at] : words.front(); };
        if (word == "ready") say("ready " + std::to_string(::getpid()));
        if (word == "say") say(argument());
        if (word == "complain") std::fprintf(stderr, "%s\n", argument().c_str());
        if (word == "show") show(argument());
        if (word == "flood") flood(std::atoll(argument().c_str()));
        if (word == "deaf") ::signal(SIGTERM, SIG_IGN);
        if (word == "obey") ::signal(SIGTERM, [](int) { std::_Exit(0); });
        if (word == "descend") makeDescendant();
        if (word == "cling") ::prctl(PR_SET_PDEATHSIG, 0);  // does not die with its parent
        if (word == "hush") {
            ::close(STDOUT_FILENO);
            ::close(STDERR_FILENO);
        }
        if (word == "read-end") {  // standard input has nothing to say
            char byte = 0;
            say("read " + std::to_string(::read(STDIN_FILENO, &byte, 1)));
        }
        if (word == "exit") std::_Exit(std::atoi(argument().c_str()));
        if (word == "die") {
            ::raise(std::atoi(argument().c_str()));
        }
        while (word == "linger") ::pause();
    }
    return 0;
}
