#pragma once

#include <sys/types.h>

#include <mergen/base/fd.hpp>

namespace mergen::launcher {

/// A process-id namespace for the children that we make while it is there, with an init process that does nothing.
///
/// What is in it ends with us, whatever it did with its credentials: a change of ids clears PR_SET_PDEATHSIG of a
/// program, but not that of init, which has no program, and when init ends the kernel kills the namespace. We stay the
/// parent of what we put in, so its status and its signals are as without a namespace: it is not process 1, which
/// would be deaf to SIGTERM. The jailer's own `--new-pid-ns` gives neither.
///
/// Each run has a namespace of its own, so that nothing of a run is left when the next begins. Threads: one.
class PidNamespace {
public:
    /// From here on our children are born in it. Throws PermissionDenied unless we are root.
    PidNamespace();
    PidNamespace(const PidNamespace&) = delete;
    PidNamespace& operator=(const PidNamespace&) = delete;
    /// Ends all that is in it and waits for that. Children of ours in it must have been reaped: the kernel waits for
    /// them first.
    ~PidNamespace();

private:
    /// In the child: becomes init. `orders`: a byte comes when all is well; `ready` tells that the death of our parent
    /// is ours.
    [[noreturn]] static void becomeInit(int orders, int ready);

    UniqueFd init_;  // a pidfd: its number may be another's once somebody has reaped it
};

}  // namespace mergen::launcher
