#include "suite.hpp"

#include <array>

#include <mergen/sdk/network.hpp>
#include <mergen/sdk/storage.hpp>
#include <mergen/sdk/supervisor.hpp>
#include <mergen/sdk/vmm.hpp>

namespace mergen::check {

std::span<const Suite> suites() noexcept {
    static constexpr std::array<Suite, 4> all{{
        {"storage", "room for temporary files (TMPDIR)", useStorage, tryOut<StorageBackend>},
        {"supervisor", "mergen-probe among the helpers; root, for what is promised of other users and of namespaces",
         useSupervisor, tryOut<SupervisorBackend>},
        {"network",
         "ip(8), nft(8); root, for a plugin that touches the host: each run has a network namespace of its own",
         useNetwork, tryOut<NetworkBackend>},
        {"vmm", "the VMM's program and a guest to boot (--guest); without them a few promises only", useVmm,
         tryOut<VmmBackend>},
    }};
    return all;
}

}  // namespace mergen::check
