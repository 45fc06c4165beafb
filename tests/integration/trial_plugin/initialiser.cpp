// Code that runs while a library is opened or closed and does what the build defines (TRIAL_OPENING, TRIAL_CLOSING).
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <dlfcn.h>
#include <fcntl.h>
#include <stdexcept>
#include <sys/stat.h>
#include <unistd.h>

namespace {

[[maybe_unused]] void throwSomething() {
    throw std::runtime_error("the stars are not right");
}
[[maybe_unused]] void abortLoudly() {
    std::fputs("this library gives up\n", stderr);
    std::abort();
}
[[maybe_unused]] void endTheProcess() {
    ::_exit(0);
}
[[maybe_unused]] void crash() {
    std::raise(SIGSEGV);
}
[[maybe_unused]] void hang() {
    for (;;) ::pause();
}
/// Prints what looks like the report of a preflight, and more than a pipe holds.
[[maybe_unused]] void chatter() {
    std::fputs("refused\tbecause I say so\ndone\n", stdout);
    for (int line = 0; line < 10'000; ++line) std::fputs("plugin\tstorage\tfiles\t9.9.9\n", stdout);
    std::fflush(stdout);
}

/// Gives its own file another time if the environment says so: as if it were replaced at that moment.
[[maybe_unused]] void touchOwnFile() {
    Dl_info self{};
    const timespec times[2] = {{1, 0}, {1, 0}};
    if (std::getenv("TRIAL_TOUCH") == nullptr) return;
    if (::dladdr(reinterpret_cast<void*>(&touchOwnFile), &self) == 0) std::abort();
    if (::utimensat(AT_FDCWD, self.dli_fname, times, 0) != 0) std::abort();
}

struct Life {
    Life() {
#ifdef TRIAL_OPENING
        TRIAL_OPENING();
#endif
    }
    ~Life() {
#ifdef TRIAL_CLOSING
        TRIAL_CLOSING();
#endif
    }
} const life;

}  // namespace
