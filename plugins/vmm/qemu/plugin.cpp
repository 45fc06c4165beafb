#include <mergen/sdk/plugin.hpp>

#include "qemu_vmm.hpp"

MERGEN_PLUGIN(mergen::VmmBackend, mergen::vmm::QemuVmm, "vmm", "qemu", "1.0.0", mergen::vmm::QemuVmm::keys)
