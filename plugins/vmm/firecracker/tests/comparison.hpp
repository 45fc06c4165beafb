#pragma once

#include <cstddef>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "called_program.hpp"

/// The fake Firecracker held against a real one. What was compared is counted; the count is printed when the program
/// ends, and is a table of the test run (MERGEN_TABLES).
namespace mergen::vmm {

/// The real programs of this host.
struct RealPrograms {
    std::optional<std::filesystem::path> firecracker;
    std::optional<std::filesystem::path> jailer;  ///< the one beside it
    std::string lacking;                          ///< why there is no Firecracker, in one line
};

/// Looks for them as the stories of the group `firecracker` do (tests/e2e/real_firecracker.py): MERGEN_FIRECRACKER_BIN,
/// or the first one in the PATH. None is real where KVM does not open. A variable that names none fails the test.
RealPrograms realPrograms();

/// Makes the same calls on a real one and on the fake, one after the other, and expects the same answers. Skips the
/// test without a real one.
void expectAnswersOfTheRealOne(const std::vector<Call>& calls);

void countComparison(std::size_t calls);

}  // namespace mergen::vmm
