#include "syscall_spy.hpp"

#include <array>
#include <cerrno>
#include <cstdio>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace mergen::test::spy {

namespace {

struct State {
    std::vector<std::string> calls;
    std::string function;
    unsigned left = 0;
    int errnum = 0;
    bool failed = false;
};

State& state() {
    static State instance;
    return instance;
}

std::string pathOf(int fd) {
    std::array<char, 4096> target{};
    const ssize_t size = ::readlink(("/proc/self/fd/" + std::to_string(fd)).c_str(), target.data(), target.size());
    return size < 0 ? "?" : std::string(target.data(), static_cast<std::size_t>(size));
}

std::string pathOf(int folder, const char* name) {
    return pathOf(folder) + "/" + name;
}

/// Notes the call; true, with errno set, if it is the one that must fail.
bool refuses(const std::string& function, const std::string& arguments) {
    State& now = state();
    now.calls.push_back(function + " " + arguments);
    if (now.failed || function != now.function || --now.left != 0) return false;
    now.failed = true;
    errno = now.errnum;
    return true;
}

}  // namespace

void reset() {
    state() = {};
}
std::vector<std::string> calls() {
    return state().calls;
}
void failNth(const std::string& function, unsigned nth, int errnum) {
    state() = {{}, function, nth, errnum, false};
}
bool failed() {
    return state().failed;
}

}  // namespace mergen::test::spy

namespace spy = mergen::test::spy;

extern "C" {

int fsync(int fd) {
    if (spy::refuses("fsync", spy::pathOf(fd))) return -1;
    return static_cast<int>(::syscall(SYS_fsync, fd));
}

int fdatasync(int fd) {
    if (spy::refuses("fdatasync", spy::pathOf(fd))) return -1;
    return static_cast<int>(::syscall(SYS_fdatasync, fd));
}

int renameat2(int fromFolder, const char* from, int toFolder, const char* to, unsigned flags) noexcept {
    if (spy::refuses("renameat2", spy::pathOf(fromFolder, from) + " " + spy::pathOf(toFolder, to))) return -1;
    return static_cast<int>(::syscall(SYS_renameat2, fromFolder, from, toFolder, to, flags));
}

int linkat(int fromFolder, const char* from, int toFolder, const char* to, int flags) noexcept {
    if (spy::refuses("linkat", spy::pathOf(fromFolder, from) + " " + spy::pathOf(toFolder, to))) return -1;
    return static_cast<int>(::syscall(SYS_linkat, fromFolder, from, toFolder, to, flags));
}

int mkdirat(int folder, const char* name, mode_t mode) noexcept {
    if (spy::refuses("mkdirat", spy::pathOf(folder, name))) return -1;
    return static_cast<int>(::syscall(SYS_mkdirat, folder, name, mode));
}

}  // extern "C"
