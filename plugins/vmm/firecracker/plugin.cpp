#include <mergen/sdk/plugin.hpp>

#include "firecracker_vmm.hpp"

MERGEN_PLUGIN(mergen::VmmBackend, mergen::vmm::FirecrackerVmm, "vmm", "firecracker", "1.0.0",
              mergen::vmm::FirecrackerVmm::keys)
