#include <cerrno>
#include <set>

#include <gtest/gtest.h>

#include <mergen/sdk/error.hpp>

namespace mergen {
namespace {

TEST(Error, GainsContextOnItsWayUpAndKeepsTheRest) {
    const Error low = Error::fromErrno(EPERM, "cannot create tap 'tap-7f3a'").about("tap");
    const Error high = low.within("starting VM 'web'");
    EXPECT_STREQ(high.what(), "starting VM 'web': cannot create tap 'tap-7f3a': Operation not permitted");
    EXPECT_EQ(high.kind(), ErrorKind::PermissionDenied);
    EXPECT_EQ(high.errnum(), EPERM);
    EXPECT_EQ(high.field(), "tap");
}

TEST(Error, ErrnoGivesTheKind) {
    EXPECT_EQ(Error::fromErrno(ENOENT, "x").kind(), ErrorKind::NotFound);
    EXPECT_EQ(Error::fromErrno(EEXIST, "x").kind(), ErrorKind::AlreadyExists);
    EXPECT_EQ(Error::fromErrno(ENOSPC, "x").kind(), ErrorKind::ResourceExhausted);
    EXPECT_EQ(Error::fromErrno(EMFILE, "x").kind(), ErrorKind::ResourceExhausted);
    EXPECT_EQ(Error::fromErrno(EOPNOTSUPP, "x").kind(), ErrorKind::NotSupported);
    EXPECT_EQ(Error::fromErrno(ETIMEDOUT, "x").kind(), ErrorKind::Timeout);
    EXPECT_EQ(Error::fromErrno(EIO, "x").kind(), ErrorKind::Unavailable);
    EXPECT_EQ(Error::fromErrno(EXDEV, "x").kind(), ErrorKind::Internal);
}

TEST(Error, EveryKindHasAWordOfItsOwn) {
    std::set<std::string_view> words;
    for (int kind = 0; kind <= static_cast<int>(ErrorKind::Internal); ++kind) {
        words.insert(toString(static_cast<ErrorKind>(kind)));
    }
    EXPECT_EQ(words.size(), static_cast<std::size_t>(ErrorKind::Internal) + 1);
}

TEST(Error, IsStillReadableAfterItWasMovedFrom) {
    Error first(ErrorKind::Conflict, "held");
    const Error second = std::move(first);
    EXPECT_STREQ(first.what(), "held");  // NOLINT(bugprone-use-after-move): that is the point
    EXPECT_STREQ(second.what(), "held");
}

}  // namespace
}  // namespace mergen
