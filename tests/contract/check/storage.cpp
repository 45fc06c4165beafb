#include "storage_contract.hpp"
#include "suite.hpp"

namespace mergen::check {

namespace {

std::vector<StorageUnderTest> libraries;  // read when GoogleTest is initialised

GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(StorageContract);  // when another kind is checked
INSTANTIATE_TEST_SUITE_P(Library, StorageContract, ::testing::ValuesIn(libraries));

}  // namespace

void useStorage(const Subject& subject) {
    libraries = {backendOf<StorageBackend>(subject)};
}

}  // namespace mergen::check
