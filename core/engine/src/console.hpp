#pragma once

#include <filesystem>
#include <string>

#include <mergen/engine/vm.hpp>

namespace mergen::engine {

/// The end of what a VM has printed: of `newest` and of its older half, the file with ".1" after its name, which the
/// supervisor keeps. They are read as they are at one moment, also while the supervisor makes the one into the other:
/// nothing is missing in between and nothing is there twice. Empty if there is no console.
[[nodiscard]] std::string readConsole(const std::filesystem::path& newest, const ConsoleTail& tail);

}  // namespace mergen::engine
