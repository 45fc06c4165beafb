// A network that takes a wire away once, and calls it an error when there is none: a delete that failed half way can
// never be finished.
#include "stub_network.hpp"

namespace {

class DetachesOnce final : public mergen::network::StubNetwork {
public:
    void detach(const mergen::NetworkSpec& spec) override {
        if (!inspect(spec)) throw mergen::Error(mergen::ErrorKind::NotFound, "there is no wire of this VM");
        StubNetwork::detach(spec);
    }
};

}  // namespace

MERGEN_PLUGIN(mergen::NetworkBackend, DetachesOnce, "network", "flawed", "1.0.0", DetachesOnce::keys)
