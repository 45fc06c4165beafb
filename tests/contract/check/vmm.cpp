#include "suite.hpp"
#include "vmm_contract.hpp"

namespace mergen::check {

namespace {

std::vector<VmmUnderTest> libraries;  // read when GoogleTest is initialised

GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(VmmContract);  // when another kind is checked
INSTANTIATE_TEST_SUITE_P(Library, VmmContract, ::testing::ValuesIn(libraries));

}  // namespace

void useVmm(const Subject& subject) {
    libraries = {backendOf<VmmBackend>(subject)};
}

}  // namespace mergen::check
