#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <string_view>

#include <mergen/base/fd.hpp>

namespace mergen::engine {

/// The lock file of one VM (`<run>/<id>.lock`, flock(2)): how a program beside this server keeps it from changing a VM,
/// and learns that it does. Operations of this server exclude each other before they come here.
///
/// Who may open the file may lock it, so it is 0640 and belongs to us: a VM's own uid, which may pass through the run
/// root, cannot. No other program inherits it. A program that waits for the lock and gets it after the VM was deleted
/// holds a file that has no name any more: as we do here, it must compare what it holds with what the name says.
/// Threads: one.
class VmLock {
public:
    /// Takes the lock without waiting; `owner` (OwnerTag) is written into a file that is made here. Throws
    /// Error(Conflict) that names the holder as far as /proc/locks tells it; FailedPrecondition if something else than
    /// a plain file is there.
    VmLock(std::filesystem::path file, std::string_view owner);
    ~VmLock();
    VmLock(const VmLock&) = delete;
    VmLock& operator=(const VmLock&) = delete;

    /// Removes the file; the lock is held on, and nobody who waits for it is deceived.
    void remove() noexcept;

private:
    std::filesystem::path file_;
    UniqueFd fd_;
};

/// Removes the lock files in `runRoot` that this instance's VMs have left and that belong to no VM which `isKnown`. One
/// that a program holds stays.
void removeStrayLocks(const std::filesystem::path& runRoot, const std::string& instance,
                      const std::function<bool(const std::string& id)>& isKnown);

}  // namespace mergen::engine
