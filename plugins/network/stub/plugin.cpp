#include "stub_network.hpp"

MERGEN_PLUGIN(mergen::NetworkBackend, mergen::network::StubNetwork, "network", "stub", "1.0.0",
              mergen::network::StubNetwork::keys)
