#include "memory_storage.hpp"

#include <memory>

#include <gtest/gtest.h>

#include "storage_contract.hpp"

namespace mergen::storage {

INSTANTIATE_TEST_SUITE_P(Memory, StorageContract, backendUnderTest<MemoryStorage>());

namespace {

Record recordOf(const char* id) {
    return {RecordId::parse(id), {{"meta.json", "{}"}}};
}

TEST(MemoryStorage, ConfigureRefusesLimitsOutOfBounds) {
    for (const auto& [key, value] : {std::pair{"document_limit", "4095"},
                                     {"document_limit", "17MiB"},
                                     {"record_limit", "0"},
                                     {"record_limit", "1000001"}}) {
        test::TestHost host(MemoryStorage::keys, {{key, value}});
        MemoryStorage storage;
        try {
            storage.configure(host);
            ADD_FAILURE() << key << " = " << value << " was taken";
        } catch (const Error& error) {
            EXPECT_EQ(error.kind(), ErrorKind::InvalidArgument);
            EXPECT_THAT(error.what(), ::testing::HasSubstr(key));
        }
    }
}

TEST(MemoryStorage, RefusesMoreRecordsThanItsLimitAndTakesOneAgainAfterAnErase) {
    test::TestHost host(MemoryStorage::keys, {{"record_limit", "2"}});
    MemoryStorage storage;
    storage.configure(host);
    storage.start();
    static_cast<void>(storage.put(recordOf("one"), std::nullopt));
    const Revision two = storage.put(recordOf("two"), std::nullopt);
    try {
        static_cast<void>(storage.put(recordOf("three"), std::nullopt));
        ADD_FAILURE() << "a third record was taken";
    } catch (const Error& error) {
        EXPECT_EQ(error.kind(), ErrorKind::ResourceExhausted);
    }
    EXPECT_NO_THROW(static_cast<void>(storage.put(recordOf("two"), two))) << "a replacement needs no room";
    EXPECT_TRUE(storage.erase(RecordId::parse("one")));
    EXPECT_NO_THROW(static_cast<void>(storage.put(recordOf("three"), std::nullopt)));
}

TEST(MemoryStorage, AnEqualDocumentOfALaterLifeHasAnotherRevision) {
    test::TestHost host(MemoryStorage::keys);
    MemoryStorage storage;
    storage.configure(host);
    storage.start();
    const Revision first = storage.put(recordOf("one"), std::nullopt);
    EXPECT_TRUE(storage.erase(RecordId::parse("one")));
    EXPECT_NE(storage.put(recordOf("one"), std::nullopt), first);
}

}  // namespace

}  // namespace mergen::storage
