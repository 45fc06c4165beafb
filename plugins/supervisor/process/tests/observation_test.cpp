#include "observation.hpp"

#include <fcntl.h>
#include <filesystem>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <mergen/base/file.hpp>
#include <mergen/base/text.hpp>
#include <mergen/sdk/error.hpp>

#include "temp_dir.hpp"

namespace mergen::supervisor {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

/// A VM's folder with files written by hand.
class ProcessObservation : public ::testing::Test {
protected:
    void put(const char* file, const std::string& text) const { writeFileAtomically(folder_ / file, text, 0600); }
    void putOwner() const { put("owner", "mergen:0a1b2c3d:01234567-89ab-4cde-8f01-23456789abcd\n"); }
    void putGone() const {
        ProcessIdentity gone = ProcessIdentity::self();
        gone.startTime += 1;
        put("parent", gone.str());
        put("vmm", gone.str());
    }

    const mergen::test::TempDir temporary_;
    const fs::path& folder_ = temporary_.path();
};

TEST_F(ProcessObservation, AFolderWithoutOwnerIsAbsent) {
    EXPECT_EQ(observe(folder_).status.state, ProcessState::Absent);
    EXPECT_EQ(observe(folder_ / "none").status.state, ProcessState::Absent);
}

TEST_F(ProcessObservation, AnOwnerThatCannotBeReadIsAnError) {
    put("owner", "somebody");
    EXPECT_THROW(static_cast<void>(observe(folder_)), Error);
}

TEST_F(ProcessObservation, OnlyAnOwnerIsAnInterruptedLaunch) {
    putOwner();
    const Observation seen = observe(folder_);
    EXPECT_EQ(seen.status.state, ProcessState::Exited);
    EXPECT_FALSE(seen.status.exit);
    EXPECT_THAT(seen.status.note, HasSubstr("interrupted"));
}

TEST_F(ProcessObservation, LinesThatANewerParentAddsArePassedOver) {
    putOwner();
    putGone();
    put("exit", "mood serene\nsignalled 11\nat 2026-11-22T04:52:00.123Z\ndropped 42\n\nlater words");
    const Observation seen = observe(folder_);
    ASSERT_TRUE(seen.status.exit);
    EXPECT_TRUE(seen.status.exit->signalled);
    EXPECT_EQ(seen.status.exit->code, 11);
    EXPECT_EQ(rfc3339(seen.status.exit->at), "2026-11-22T04:52:00.123Z");
    EXPECT_EQ(seen.consoleDropped, 42U);
}

TEST_F(ProcessObservation, WhatAGuestSaidOfItsPanicIsNoWordOfTheParent) {
    putOwner();
    putGone();
    const std::string said = "Kernel panic - not syncing: sent 9 by nobody exited 5 note none";
    put("exit", "exited 0\nat 2026-11-22T04:52:00.123Z\npanic " + said + "\n");
    put("runs", "run 1 exited 0 at 2026-11-22T04:51:00.123Z attempt 1 delay 100 panic " + said + "\n");
    const Observation seen = observe(folder_);
    EXPECT_EQ(seen.status.panic, said);
    EXPECT_EQ(seen.status.exit->code, 0);
    EXPECT_EQ(seen.status.sent, std::nullopt);
    EXPECT_EQ(seen.status.note, "");
    const std::vector<PastRun> runs = readPastRuns(folder_);
    ASSERT_EQ(runs.size(), 1U);
    EXPECT_EQ(runs.front().panic, said);
    EXPECT_EQ(runs.front().exit.code, 0);
    EXPECT_EQ(runs.front().sent, std::nullopt);
}

TEST_F(ProcessObservation, AnEndWithoutStatusIsAnError) {
    putOwner();
    putGone();
    for (const char* const text : {"", "at 2026-11-22T04:52:00.123Z\n", "exited seven\n", "exited 1\nat noon\n"}) {
        put("exit", text);
        EXPECT_THROW(static_cast<void>(observe(folder_)), Error) << text;
    }
}

TEST_F(ProcessObservation, ALivingProcessThatIsNamedExactlyIsRunning) {
    putOwner();
    put("parent", ProcessIdentity::self().str());
    put("vmm", ProcessIdentity::self().str());
    const Observation seen = observe(folder_);
    EXPECT_EQ(seen.status.state, ProcessState::Running);
    EXPECT_TRUE(seen.next);
    EXPECT_TRUE(seen.vmm);
    EXPECT_FALSE(seen.orphan);
}

TEST_F(ProcessObservation, AHeldLockWithoutFilesIsStarting) {
    putOwner();
    const UniqueFd lock = openFile(folder_ / "parent.lock", O_RDWR | O_CREAT, 0600);
    lockLife(lock);
    const Observation seen = observe(folder_);
    EXPECT_EQ(seen.status.state, ProcessState::Running);
    EXPECT_TRUE(seen.starting);
    EXPECT_EQ(seen.status.pid, 0);
    const UniqueFd again = openFile(folder_ / "parent.lock", O_RDWR);
    try {
        lockLife(again);
        FAIL() << "locked twice";
    } catch (const Error& error) {
        EXPECT_EQ(error.kind(), ErrorKind::Conflict);
    }
}

TEST_F(ProcessObservation, AnEndIsToldThoughAnotherChildHasACopyOfTheLockForAMoment) {
    putOwner();
    putGone();
    put("exit", "exited 7\nat 2026-11-22T04:52:00.123Z\ndropped 0\n");
    const UniqueFd lock = openFile(folder_ / "parent.lock", O_RDWR | O_CREAT, 0600);
    lockLife(lock);
    const Observation seen = observe(folder_);
    EXPECT_EQ(seen.status.state, ProcessState::Exited);
    EXPECT_FALSE(seen.held);
    ASSERT_TRUE(seen.status.exit);
    EXPECT_EQ(seen.status.exit->code, 7);
}

TEST_F(ProcessObservation, ASignalThatIsNoneIsRefused) {
    putOwner();
    put("parent", ProcessIdentity::self().str());
    const UniqueFd self = openProcess(ProcessIdentity::self());
    try {
        sendSignal(self, 4096);
        FAIL() << "sent";
    } catch (const Error& error) {
        EXPECT_EQ(error.kind(), ErrorKind::InvalidArgument);
    }
    EXPECT_TRUE(sendSignal(self, 0));
}

}  // namespace
}  // namespace mergen::supervisor
