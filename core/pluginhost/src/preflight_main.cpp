// mergen-preflight FILE: tries a plugin library out, so that one that crashes, ends the process or never returns does
// it here and not in the server. Says on standard output what it finds (report.hpp); standard error is the library's.

#include <cerrno>
#include <csignal>
#include <exception>
#include <fcntl.h>
#include <filesystem>
#include <functional>
#include <iostream>
#include <string>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <mergen/base/fd.hpp>
#include <mergen/base/file.hpp>
#include <mergen/sdk/error.hpp>

#include "guard.hpp"
#include "library.hpp"
#include "manifest.hpp"
#include "report.hpp"

#ifdef __SANITIZE_ADDRESS__
// In instrumented builds, too, a library's death is seen as what it is: the sanitizer would make exit statuses of
// signals.
extern "C" __attribute__((visibility("default"))) const char* __asan_default_options() {
    return "handle_segv=0:handle_sigbus=0:handle_sigfpe=0:handle_sigill=0:handle_abort=0:detect_leaks=0";
}
#endif

namespace mergen::pluginhost {
namespace {

/// Takes standard output away from the library, so that nothing that it prints gets between the lines.
UniqueFd takeOutput() {
    UniqueFd output(::fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3));
    if (!output || ::dup2(STDERR_FILENO, STDOUT_FILENO) < 0)
        throw Error::fromErrno(errno, "cannot set standard output aside");
    return output;
}

/// This process exists to die of other people's faults: no core file for each, and none of it outlives the server.
void prepareToDie() {
    const rlimit none{0, 0};
    if (::setrlimit(RLIMIT_CORE, &none) != 0) throw Error::fromErrno(errno, "cannot turn core files off");
    const pid_t parent = ::getppid();
    if (::prctl(PR_SET_PDEATHSIG, SIGKILL) != 0) throw Error::fromErrno(errno, "cannot tie this process to its parent");
    if (::getppid() != parent) ::raise(SIGKILL);  // it ended before the tie was made
}

using Say = std::function<void(const std::string& lines)>;

/// Throws Error with the cause alone; the step was said.
void tryOut(const std::filesystem::path& file, const Say& say) {
    say(report::stepLine(report::opening));
    boost::dll::shared_library library = openLibrary(file);

    say(report::stepLine(report::reading));
    const mergen_manifest* const manifest = findManifest(library);
    const ManifestCopy copy = readManifest(manifest);
    say(report::manifestLines(copy));

    say(report::stepLine(report::creating));
    void* const object = guarded(manifest->create);
    if (object == nullptr) throw Error(ErrorKind::FailedPrecondition, "it gives no object (NULL)");
    if (!isOfKind(copy.kind, *asPlugin(copy.kind, object), object)) {
        throw Error(ErrorKind::FailedPrecondition,
                    "what it gives is no pointer to the interface of the kind " + copy.kind);
    }

    say(report::stepLine(report::destroying));
    guarded([&] { manifest->destroy(object); });

    say(report::stepLine(report::closing));
    library.unload();
}

}  // namespace
}  // namespace mergen::pluginhost

int main(int argc, char** argv) {
    using namespace mergen;
    using namespace mergen::pluginhost;
    if (argc != 2) {
        std::cerr << "usage: mergen-preflight FILE\nTries the plugin library FILE out; mergend does so for each.\n";
        return 2;
    }
    try {
        prepareToDie();
        const UniqueFd output = takeOutput();
        const Say say = [&](const std::string& lines) { writeAll(output.get(), lines, "cannot write the report"); };
        try {
            tryOut(argv[1], say);
            say(report::doneLine());
        } catch (const Error& error) {
            say(report::refusedLine(error.what()));
        }
    } catch (const std::exception& error) {
        std::cerr << "mergen-preflight: " << error.what() << '\n';
        return 1;
    }
    // All is said: threads and exit handlers that the library left behind have no more to tell.
    ::_exit(0);
}
