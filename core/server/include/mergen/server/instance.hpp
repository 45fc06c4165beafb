#pragma once

#include <filesystem>
#include <string>

#include <mergen/base/fd.hpp>

namespace mergen::server {

/// The right to work on a data root or a run root, for as long as the object lives: flock(2) on `<root>/.lock`. The
/// kernel gives it back however the process ends; children do not inherit it.
class RootLock {
public:
    /// `what`: "data root". Throws Error(Conflict) at once if another process holds it, with that process's pid.
    RootLock(const std::filesystem::path& root, const std::string& what);

private:
    UniqueFd fd_;
};

/// The instance mark of this data root, eight hexadecimal digits (Host::instance()): read from `<dataRoot>/instance`,
/// or drawn at random and written there durably. Call under the lock. Throws Error(FailedPrecondition) if the file
/// holds something else: a new mark would leave what bears the old one on the host without an owner.
[[nodiscard]] std::string loadInstance(const std::filesystem::path& dataRoot);

/// The same, without making it: "00000000" if there is none yet. For --check-config, which touches nothing.
[[nodiscard]] std::string peekInstance(const std::filesystem::path& dataRoot);

}  // namespace mergen::server
