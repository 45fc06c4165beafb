#pragma once

#include <chrono>
#include <filesystem>
#include <string>
#include <vector>

#include <mergen/sdk/supervisor.hpp>

namespace mergen::launcher {

/// How long a VMM that ended is waited with before it is started again: `first`, then twice as long each time, at most
/// `most`. After a run of `lasting` it is `first` again, and the restarts in a row are counted anew.
struct Backoff {
    std::chrono::milliseconds first{100};
    std::chrono::milliseconds most{30000};
    std::chrono::milliseconds lasting{60000};
};

/// What the command line of mergen-vm says:
///
///     mergen-vm --dir D --owner mergen:<instance>:<uuid> [--netns PATH] [--pid-namespace new]
///               --uid N --gid N [--groups A,B] [--tap NAME=FD]... --console FILE --console-limit BYTES --cwd DIR
///               [--env KEY=VALUE]...
///               [--restart on-failure|always --again WORD... [--max-restarts N] [--stale PATH]...
///                [--restart-delay MS] [--restart-delay-max MS] [--restart-reset MS]]
///               -- PROGRAM ARGUMENT...
///
/// `--again` once for each word of the command line with which the program is started again.
///
/// It is words, not a file, so that `ps` shows whose process it is and what it runs, even when the server is gone.
struct Command {
    std::filesystem::path directory;  ///< D: the state that the server reads; absolute, exists, root only
    ProcessSpec spec;
    Backoff backoff;
};

/// Reads the words after the program's name. Throws Error(InvalidArgument) that names the option: unknown, given twice,
/// without a value, missing, or breaking a rule of ProcessSpec.
[[nodiscard]] Command parseCommand(const std::vector<std::string>& words);

}  // namespace mergen::launcher
