#include "linux_network.hpp"
#include "network_contract.hpp"

namespace mergen::network {

INSTANTIATE_TEST_SUITE_P(LinuxNetns, NetworkContract, backendUnderTest<LinuxNetwork>());
INSTANTIATE_TEST_SUITE_P(LinuxTap, NetworkContract, backendUnderTest<LinuxNetwork>({{"topology", "tap"}}));

}  // namespace mergen::network
