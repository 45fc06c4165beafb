#pragma once

#include <filesystem>
#include <memory>
#include <sys/types.h>
#include <vector>

#include <mergen/base/fd.hpp>
#include <mergen/base/process.hpp>
#include <mergen/sdk/supervisor.hpp>

#include "pid_namespace.hpp"

namespace mergen::launcher {

/// The descriptors that a VMM may ask for are below this number; all of our own stand from it upwards, so that putting
/// one at its place never overwrites another.
inline constexpr int firstPrivateDescriptor = 64;

/// The same open file at firstPrivateDescriptor or above, with FD_CLOEXEC; `what` for the error.
[[nodiscard]] UniqueFd moveUp(UniqueFd fd, const char* what);

/// Takes a standard descriptor for ourselves, as moveUp() does; /dev/null stands in its place then.
[[nodiscard]] UniqueFd takeStandard(int number);

/// Enters the network namespace of this handle (setns(2)) for good: the process has one thread. Throws NotFound if it
/// is not there, InvalidArgument if it is no network namespace.
void enterNetworkNamespace(const std::filesystem::path& handle);

struct OpenTap {
    int target;  ///< the number under which the VMM finds it
    UniqueFd fd;
};

/// Attaches to existing taps of the network namespace that we are in, with IFF_VNET_HDR. Throws NotFound if one does
/// not exist: TUNSETIFF would silently make one that nobody has configured. Waits a while for one that is busy.
[[nodiscard]] std::vector<OpenTap> openTaps(const std::vector<InheritedTap>& taps);

/// The VMM, from fork(2) to exec(2). It is made in two steps, so that its identity can be written down before it does
/// anything: after the constructor it waits; execute() lets it become the program. If it is destroyed before that, or
/// execute() throws, there is no process.
class Child {
public:
    Child(const ProcessSpec& spec, std::vector<OpenTap> taps);
    Child(const Child&) = delete;
    Child& operator=(const Child&) = delete;
    ~Child();

    /// Constant from before execute(): exec(2) changes neither pid nor start time.
    [[nodiscard]] const ProcessIdentity& identity() const noexcept { return identity_; }

    /// Returns when the program has been executed. Throws the reason if it cannot be, naming program, folder or id. The
    /// caller reaps the process from now on.
    void execute();

    /// Where its standard output and error arrive; non-blocking.
    [[nodiscard]] UniqueFd takeConsole() noexcept { return std::move(console_); }
    /// The process-id namespace that it lives in; none if it has ours. What is in it ends with this object.
    [[nodiscard]] std::unique_ptr<PidNamespace> takeNamespace() noexcept { return std::move(namespace_); }

private:
    void end() noexcept;

    const ProcessSpec& spec_;
    std::unique_ptr<PidNamespace> namespace_;  // destroyed when the child has been reaped
    pid_t pid_ = -1;                           // -1 once somebody else reaps it
    ProcessIdentity identity_;
    UniqueFd console_;
    UniqueFd gate_;     // a byte written here lets it go on; closing it ends it
    UniqueFd failure_;  // it writes here why it could not execute; closed by exec(2)
};

}  // namespace mergen::launcher
