#include <gtest/gtest.h>

#include "borrowed_disks.hpp"

/// What the folder of a VM whose record does not survive its server says of the disks that it is lent.
namespace mergen::engine {
namespace {

VmRecord nobody() {
    return {RecordId::parse("web"), Uuid::random()};
}

TEST(LoansText, IsReadAsItWasWritten) {
    VmRecord record = nobody();
    record.dataDisk = "/images/data.ext4";
    record.drives = {{.id = "logs", .path = "/images/logs of it.ext4"},
                     {.id = "tools", .path = "/images/tools.ext4", .readOnly = true},
                     {.id = "spare", .path = "/images/spare.ext4"}};
    record.diskOwners = {{"data", {1000, 6, 0664, 12}}, {"logs", {1001, 7, 0600, 0xfffffffffffffffe}}};
    VmRecord read = nobody();
    readLoans(loansText(record), read);
    EXPECT_EQ(read.diskOwners, record.diskOwners);
    EXPECT_EQ(read.dataDisk, record.dataDisk);
    ASSERT_EQ(read.drives.size(), 1U) << "only what is lent";
    EXPECT_EQ(read.drives.front(), record.drives.front());
}

TEST(LoansText, OfEarlierVersionsIsReadToo) {
    VmRecord read = nobody();
    readLoans("1000 6 436 /images/data 1.ext4\n", read);
    readLoans("7 1001 7 384 /images/logs.ext4\n", read);
    const std::map<std::string, DiskOwner> expected{{"data", {1000, 6, 0664, 0}}, {"7", {1001, 7, 0600, 0}}};
    EXPECT_EQ(read.diskOwners, expected);
    EXPECT_EQ(read.dataDisk, "/images/data 1.ext4");
    ASSERT_EQ(read.drives.size(), 1U);
    EXPECT_EQ(read.drives.front().path, "/images/logs.ext4");
}

TEST(LoansText, ALineThatIsNoneIsLeftOut) {
    VmRecord read = nobody();
    readLoans(
        "\n/\nnonsense\n1 2 /x\nlogs 1 2 3 4 5 /x\nlogs -1 2 3 4 /x\nlogs 1 2 4294967296 4 /x\nlogs 1 2 3 0x4 /x\n"
        "logs 1 2 3 4 relative\n",
        read);
    EXPECT_TRUE(read.diskOwners.empty());
    EXPECT_TRUE(read.drives.empty());
    EXPECT_FALSE(read.dataDisk.has_value());
}

}  // namespace
}  // namespace mergen::engine
