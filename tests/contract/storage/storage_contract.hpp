#pragma once

#include <functional>
#include <initializer_list>
#include <memory>
#include <optional>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <mergen/sdk/storage.hpp>

#include "backend_under_test.hpp"
#include "test_host.hpp"

namespace mergen {

/// One storage backend as the suite sees it.
using StorageUnderTest = BackendUnderTest<StorageBackend>;

/// How GoogleTest shows one.
inline void PrintTo(const Revision& revision, std::ostream* out) {
    *out << "revision " << revision.value;
}

/// The promises of `StorageBackend`. A backend runs them by one line in a test of its own, in namespace mergen or
/// below:
///
///     INSTANTIATE_TEST_SUITE_P(Memory, StorageContract, backendUnderTest<MemoryStorage>());
///
/// where the class has a static `keys`, its manifest's table.
class StorageContract : public ::testing::TestWithParam<StorageUnderTest> {
protected:
    StorageContract();
    ~StorageContract() override;

    [[nodiscard]] StorageBackend& storage() { return *storage_; }
    [[nodiscard]] test::TestHost& host() { return host_; }
    /// Another server on the same folders: stops the backend and starts a new object.
    void restart();
    /// A backend of the kind that is neither configured nor started.
    [[nodiscard]] BackendPtr<StorageBackend> make() const { return GetParam().create(); }

    /// Ids of all records, read in pages of `pageSize`.
    [[nodiscard]] std::vector<std::string> ids(std::size_t pageSize = 1000);
    /// The kind of the Error that `action` throws; a failure of the test, and nothing, if it throws none.
    [[nodiscard]] static std::optional<ErrorKind> kindOf(const std::function<void()>& action);

private:
    test::TestHost host_;
    BackendPtr<StorageBackend> storage_;
};

template <typename Backend>
[[nodiscard]] auto backendUnderTest() {
    return ::testing::Values(
        StorageUnderTest{.keys = Backend::keys, .create = [] { return std::make_unique<Backend>(); }});
}

}  // namespace mergen
