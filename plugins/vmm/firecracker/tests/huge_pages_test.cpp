#include "huge_pages.hpp"

#include <filesystem>
#include <map>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <mergen/base/file.hpp>
#include <mergen/sdk/error.hpp>

#include "test_host.hpp"

namespace mergen::vmm {
namespace {

using Counters = std::map<std::string, std::string>;

/// A host whose sysfs is made up.
class HugePagesOfTheHost : public ::testing::Test {
protected:
    /// The pool has these counters; those that are not named are 0.
    void pool(const Counters& counters) {
        Counters all{{"nr_hugepages", "0"},
                     {"free_hugepages", "0"},
                     {"resv_hugepages", "0"},
                     {"surplus_hugepages", "0"},
                     {"nr_overcommit_hugepages", "0"}};
        for (const auto& [name, value] : counters) all[name] = value;
        makeDirectories(folder_, 0755);
        for (const auto& [name, value] : all) writeFileAtomically(folder_ / name, value + "\n", 0644);
    }

    struct Refusal {
        std::string text;  ///< empty: the guest is taken
        ErrorKind kind = ErrorKind::Internal;
    };
    /// What a start of a guest with so much memory in huge pages meets.
    [[nodiscard]] Refusal atStart(std::uint64_t mib) const { return met(requireFreeHugePages, mib); }
    /// The same when it is made.
    [[nodiscard]] Refusal atCreate(std::uint64_t mib) const { return met(requireHugePages, mib); }

    test::TestHost host_{nullptr};
    const std::filesystem::path folder_ = host_.root() / "sys/kernel/mm/hugepages/hugepages-2048kB";

private:
    Refusal met(void (*rule)(const GuestSpec&, const std::filesystem::path&), std::uint64_t mib) const {
        GuestSpec guest;
        guest.memory = MiB{mib};
        EXPECT_NO_THROW(rule(guest, host_.root())) << "it asks for no huge pages";
        guest.hugePages = HugePages::TwoMiB;
        try {
            rule(guest, host_.root());
        } catch (const Error& error) {
            EXPECT_EQ(error.field(), "hugePages");
            return {error.what(), error.kind()};
        }
        return {};
    }
};

TEST_F(HugePagesOfTheHost, EnoughThatAreFreeAreEnoughToThePage) {
    pool({{"nr_hugepages", "128"}, {"free_hugepages", "64"}});
    EXPECT_EQ(atStart(128).text, "");
    EXPECT_EQ(atStart(130).text,
              "130 MiB of memory need 65 huge pages of 2 MiB, and this host has 64 available; reserve more: echo "
              "129 >/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages");
    EXPECT_EQ(atStart(130).kind, ErrorKind::FailedPrecondition);
}

TEST_F(HugePagesOfTheHost, NoneAtAllIsSaidAtTheStartAndNoReasonNotToMakeAVm) {
    pool({});
    EXPECT_EQ(atCreate(256).text, "") << "they may be reserved later";
    EXPECT_EQ(atStart(256).text,
              "256 MiB of memory need 128 huge pages of 2 MiB, and this host has 0 available; reserve more: echo "
              "128 >/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages");
}

TEST_F(HugePagesOfTheHost, ThoseThatAnotherWasPromisedDoNotCount) {
    pool({{"nr_hugepages", "64"}, {"free_hugepages", "64"}, {"resv_hugepages", "1"}});
    EXPECT_EQ(atStart(126).text, "");
    EXPECT_THAT(atStart(128).text, ::testing::HasSubstr("has 63 available; reserve more: echo 65 >/sys"));
}

TEST_F(HugePagesOfTheHost, ThoseThatTheKernelMayMakeCount) {
    pool({{"nr_overcommit_hugepages", "64"}});
    EXPECT_EQ(atStart(128).text, "");
    pool({{"nr_hugepages", "48"},  // 32 of them surplus
          {"free_hugepages", "8"},
          {"surplus_hugepages", "32"},
          {"nr_overcommit_hugepages", "64"}});
    EXPECT_EQ(atStart(80).text, "");
    EXPECT_THAT(atStart(82).text, ::testing::HasSubstr("has 40 available; reserve more: echo 17 >/sys"));
}

TEST_F(HugePagesOfTheHost, CountersThatDoNotFitEachOtherCountAsNothing) {
    pool({{"nr_hugepages", "1"},
          {"free_hugepages", "1"},
          {"resv_hugepages", "5"},
          {"surplus_hugepages", "9"},
          {"nr_overcommit_hugepages", "3"}});
    EXPECT_THAT(atStart(2).text, ::testing::HasSubstr("has 0 available; reserve more: echo 1 >/sys"));
    pool({{"nr_hugepages", "1"}, {"free_hugepages", "1"}, {"nr_overcommit_hugepages", "18446744073709551615"}});
    EXPECT_EQ(atStart(1U << 20U).text, "") << "as many as the kernel can count";
}

TEST_F(HugePagesOfTheHost, AKernelWithoutThemIsARefusalAtCreateAndAtStart) {
    makeDirectories(host_.root() / "sys/kernel/mm/hugepages/hugepages-1048576kB", 0755);
    for (const Refusal& refusal : {atCreate(128), atStart(128)}) {
        EXPECT_EQ(refusal.kind, ErrorKind::NotSupported);
        EXPECT_EQ(refusal.text,
                  "this host's kernel has no huge pages of 2 MiB: there is no "
                  "/sys/kernel/mm/hugepages/hugepages-2048kB");
    }
    std::filesystem::remove_all(host_.root() / "sys/kernel/mm/hugepages");
    EXPECT_EQ(atCreate(128).kind, ErrorKind::NotSupported) << "built without any";
}

TEST_F(HugePagesOfTheHost, WhatCannotBeToldIsNotRefused) {
    EXPECT_EQ(atCreate(128).text, "") << "no sysfs is mounted";
    EXPECT_EQ(atStart(128).text, "");
    for (const char* strange : {"", "-1", "1x", "99999999999999999999999"}) {
        pool({{"free_hugepages", strange}});
        EXPECT_FALSE(readHugePagePool(host_.root()).has_value()) << strange;
        EXPECT_EQ(atStart(128).text, "") << strange;
    }
    pool({});
    std::filesystem::remove(folder_ / "surplus_hugepages");
    EXPECT_EQ(atStart(128).text, "");
    makeDirectories(folder_ / "surplus_hugepages", 0755);
    EXPECT_EQ(atStart(128).text, "");
}

}  // namespace
}  // namespace mergen::vmm
