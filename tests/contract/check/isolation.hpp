#pragma once

namespace mergen::check {

/// Puts this process into network and mount namespaces of its own, with an empty /run and the loopback interface up, so
/// that whatever a network backend makes is gone with the process, however that ends. As root, while the process has
/// one thread. Throws Error.
void isolateNetwork();

}  // namespace mergen::check
