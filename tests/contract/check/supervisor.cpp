#include "suite.hpp"
#include "supervisor_contract.hpp"

namespace mergen::check {

namespace {

std::vector<SupervisorUnderTest> libraries;  // read when GoogleTest is initialised

GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(SupervisorContract);  // when another kind is checked
INSTANTIATE_TEST_SUITE_P(Library, SupervisorContract, ::testing::ValuesIn(libraries));

}  // namespace

void useSupervisor(const Subject& subject) {
    libraries = {backendOf<SupervisorBackend>(subject)};
}

}  // namespace mergen::check
