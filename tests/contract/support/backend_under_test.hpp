#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <ostream>
#include <string>

#include <mergen/sdk/manifest.h>

namespace mergen {

/// Ends a backend as whoever made it wants: one that came out of a library by its manifest's destroy(), any other by
/// delete.
class BackendEnd {
public:
    BackendEnd() = default;
    explicit BackendEnd(void (*destroy)(void*)) noexcept : destroy_(destroy) {}
    template <typename Backend>
    BackendEnd(const std::default_delete<Backend>& /*ends by delete*/) noexcept {}  // NOLINT: what make_unique gives

    template <typename Backend>
    void operator()(Backend* backend) const noexcept {
        if (destroy_ != nullptr) {
            destroy_(backend);
        } else {
            delete backend;
        }
    }

private:
    void (*destroy_)(void*) = nullptr;
};

template <typename Interface>
using BackendPtr = std::unique_ptr<Interface, BackendEnd>;

/// What can be seen of the guest that a VMM boots in a test.
struct GuestSigns {
    std::string ready = "mergen-guest: ready";                 ///< on the console once it is up
    std::string shuttingDown = "mergen-guest: shutting down";  ///< on the console once it has heard Ctrl-Alt-Del
    bool writesDisks = true;  ///< it counts its boots on the root disk, and scribbles on the second one if told to
};

/// One backend as a contract suite sees it: linked with the suite, or out of a library (mergen-plugin-check).
template <typename Interface>
struct BackendUnderTest {
    const mergen_key* keys = nullptr;  ///< its manifest's table
    std::function<BackendPtr<Interface>()> create = {};
    std::map<std::string, std::string, std::less<>> settings = {};  ///< what it needs to be told for a test
    std::filesystem::path program = {};  ///< what it starts; tests that need it are skipped where it is missing
    std::filesystem::path libexec = {};  ///< programs of Mergen's own that it starts; empty: none
    std::filesystem::path guest = {};    ///< folder of vmlinuz and rootfs.ext4; empty: those of this build's tests
    GuestSigns signs = {};               ///< of that guest
    std::filesystem::path probe = {};    ///< mergen-probe, for supervisors; empty: the one of this build
};

template <typename Interface>
void PrintTo(const BackendUnderTest<Interface>& /*backend*/, std::ostream* out) {
    *out << "backend";
}

}  // namespace mergen
