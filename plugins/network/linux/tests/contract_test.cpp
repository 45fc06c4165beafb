#include "linux_network.hpp"
#include "network_contract.hpp"

namespace mergen::network {

INSTANTIATE_TEST_SUITE_P(Linux, NetworkContract, backendUnderTest<LinuxNetwork>());

}  // namespace mergen::network
