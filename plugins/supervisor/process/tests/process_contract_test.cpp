#include "process_under_test.hpp"

namespace mergen::supervisor {

INSTANTIATE_TEST_SUITE_P(Process, SupervisorContract, ::testing::Values(processUnderTest()));

}  // namespace mergen::supervisor
