#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include <mergen/sdk/supervisor.hpp>

namespace mergen::launcher {

/// What the command line of mergen-vm says:
///
///     mergen-vm --dir D --owner mergen:<instance>:<uuid> [--netns PATH] --uid N --gid N [--groups A,B]
///               [--tap NAME=FD]... --console FILE --console-limit BYTES --cwd DIR [--env KEY=VALUE]...
///               -- PROGRAM ARGUMENT...
///
/// It is words, not a file, so that `ps` shows whose process it is and what it runs, even when the server is gone.
struct Command {
    std::filesystem::path directory;  ///< D: the state that the server reads; absolute, exists, root only
    ProcessSpec spec;
};

/// Reads the words after the program's name. Throws Error(InvalidArgument) that names the option: unknown, given twice,
/// without a value, missing, or breaking a rule of ProcessSpec.
[[nodiscard]] Command parseCommand(const std::vector<std::string>& words);

}  // namespace mergen::launcher
