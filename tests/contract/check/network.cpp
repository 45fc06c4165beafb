#include "network_contract.hpp"
#include "suite.hpp"

namespace mergen::check {

namespace {

std::vector<NetworkUnderTest> libraries;  // read when GoogleTest is initialised

GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(NetworkContract);  // when another kind is checked
INSTANTIATE_TEST_SUITE_P(Library, NetworkContract, ::testing::ValuesIn(libraries));

}  // namespace

void useNetwork(const Subject& subject) {
    libraries = {backendOf<NetworkBackend>(subject)};
}

}  // namespace mergen::check
