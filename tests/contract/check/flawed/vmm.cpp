// A VMM backend that waits for ever where nobody listens.
#include <unistd.h>

#include "qemu_vmm.hpp"

namespace {

class WaitsForEver final : public mergen::vmm::QemuVmm {
public:
    [[nodiscard]] mergen::GuestState query(const mergen::VmmPlace& place,
                                           std::chrono::milliseconds timeout) const override {
        try {
            return QemuVmm::query(place, timeout);
        } catch (const mergen::Error&) {
            for (;;) ::pause();
        }
    }
};

}  // namespace

MERGEN_PLUGIN(mergen::VmmBackend, WaitsForEver, "vmm", "flawed", "1.0.0", WaitsForEver::keys)
