#pragma once

#include <string>
#include <vector>

/// Sees, and can fail, the calls that durability hangs on: this test program defines fsync, fdatasync, renameat2,
/// linkat and mkdirat itself, and its definitions stand before the C library's. Threads: one.
namespace mergen::test::spy {

/// Forgets the calls so far and the failure that was asked for.
void reset();

/// The calls since reset() as "fsync <path>", "renameat2 <from> <to>", ..., with paths as they were before the call.
[[nodiscard]] std::vector<std::string> calls();

/// Lets the `nth` (from 1) coming call of `function` fail with `errnum` and do nothing.
void failNth(const std::string& function, unsigned nth, int errnum);

/// Whether the failure that was asked for has happened.
[[nodiscard]] bool failed();

}  // namespace mergen::test::spy
