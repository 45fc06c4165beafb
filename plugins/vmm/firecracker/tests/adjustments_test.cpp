#include "adjustments.hpp"

#include <gtest/gtest.h>

#include <mergen/base/json.hpp>
#include <mergen/sdk/error.hpp>

namespace mergen::vmm {
namespace {

constexpr const char* present = R"({"balloon":{"amount_mib":16,"deflate_on_oom":true,"stats_polling_interval_s":1},
"drives":[{"drive_id":"rootfs","path_on_host":"/d","rate_limiter":{"bandwidth":{"size":9,"one_time_burst":null,
"refill_time":3},"ops":null},"io_engine":"Sync"}],"network-interfaces":[],"vsock":null})";

GuestSpec wanted() {
    GuestSpec guest;
    guest.disks.push_back(
        {.id = "rootfs", .file = "/d", .limit = {.bandwidth = TokenBucket{9, 0, std::chrono::milliseconds(3)}}});
    guest.balloon = BalloonSpec{MiB{16}, true, std::chrono::seconds(1)};
    return guest;
}

std::string textOf(const std::vector<Adjustment>& changes) {
    std::string text;
    for (const Adjustment& change : changes) text += change.path + " " + json::render(*change.body) + "\n";
    return text;
}

TEST(FirecrackerAdjustments, NothingIsAskedForThatIsSoAlready) {
    EXPECT_EQ(textOf(adjustments(*json::parseObject(present), wanted())), "");
}

TEST(FirecrackerAdjustments, OnlyWhatDiffersIsAskedForAndNoLimitIsABucketOfSizeZero) {
    GuestSpec guest = wanted();
    guest.disks[0].limit = {.operations = TokenBucket{5, 2, std::chrono::milliseconds(1)}};
    guest.balloon->amount = MiB{32};
    EXPECT_EQ(textOf(adjustments(*json::parseObject(present), guest)),
              R"(/drives/rootfs {"rate_limiter":{"bandwidth":{"size":0,"refill_time":0},)"
              R"("ops":{"size":5,"one_time_burst":2,"refill_time":1}},"drive_id":"rootfs"})"
              "\n"
              R"(/balloon {"amount_mib":32})"
              "\n");
}

TEST(FirecrackerAdjustments, AFileThatIsToBeReadAgainIsNamedAgain) {
    GuestSpec guest = wanted();
    guest.disks[0].reread = true;
    EXPECT_EQ(textOf(adjustments(*json::parseObject(present), guest)),
              "/drives/rootfs {\"path_on_host\":\"" + guest.disks[0].file.string() + "\",\"drive_id\":\"rootfs\"}\n");
}

TEST(FirecrackerAdjustments, AnAnswerThatIsNoneIsSaidToBeSo) {
    for (const char* answer : {R"({"drives":7})", R"({"drives":[{}]})",
                               R"({"drives":[],"network-interfaces":[],"balloon":{"amount_mib":"x"}})"}) {
        try {
            static_cast<void>(adjustments(*json::parseObject(answer), wanted()));
            ADD_FAILURE() << answer << " is taken";
        } catch (const Error& error) {
            EXPECT_EQ(error.kind(), ErrorKind::Unavailable) << error.what();
        }
    }
}

}  // namespace
}  // namespace mergen::vmm
