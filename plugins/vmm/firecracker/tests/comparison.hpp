#pragma once

#include <cstddef>
#include <filesystem>
#include <optional>
#include <vector>

#include "called_program.hpp"

/// The fake Firecracker held against a real one. What was compared is counted; the count is printed when the program
/// ends, and is a table of the test run (MERGEN_TABLES).
namespace mergen::vmm {

/// A real Firecracker, if there is one: MERGEN_FIRECRACKER_BIN, or where programs are. A variable that names none fails
/// the test.
std::optional<std::filesystem::path> realProgram();

/// Makes the same calls on a real one and on the fake, one after the other, and expects the same answers. Skips the
/// test without a real one.
void expectAnswersOfTheRealOne(const std::vector<Call>& calls);

void countComparison(std::size_t calls);

}  // namespace mergen::vmm
