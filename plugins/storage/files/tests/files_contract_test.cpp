#include <gtest/gtest.h>

#include "files_storage.hpp"
#include "storage_contract.hpp"

namespace mergen::storage {

INSTANTIATE_TEST_SUITE_P(Files, StorageContract, backendUnderTest<FilesStorage>());

}  // namespace mergen::storage
