#include "linux_network.hpp"

MERGEN_PLUGIN(mergen::NetworkBackend, mergen::network::LinuxNetwork, "network", "linux", "1.0.0",
              mergen::network::LinuxNetwork::keys)
