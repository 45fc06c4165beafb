#include "net_namespace.hpp"

#include <cerrno>
#include <fcntl.h>
#include <sched.h>

#include <mergen/base/file.hpp>
#include <mergen/sdk/error.hpp>

namespace mergen::network {

NetNamespace NetNamespace::current() {
    return NetNamespace(openFile("/proc/thread-self/ns/net", O_RDONLY));
}

NetNamespace NetNamespace::create(const std::function<void()>& inside) {
    return onHelperThread([&inside] {
        if (::unshare(CLONE_NEWNET) != 0) {
            const bool limited = errno == ENOSPC;  // unshare(2)
            throw Error::fromErrno(errno, limited ? "cannot make a network namespace (user.max_net_namespaces)"
                                                  : "cannot make a network namespace");
        }
        if (inside) inside();
        return current();
    });
}

void NetNamespace::enter() const {
    if (::setns(fd_.get(), CLONE_NEWNET) != 0) throw Error::fromErrno(errno, "cannot enter a network namespace");
}

}  // namespace mergen::network
