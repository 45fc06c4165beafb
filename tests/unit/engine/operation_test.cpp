#include "operation.hpp"

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include <gtest/gtest.h>

#include <mergen/engine/asked_by.hpp>

#include "world.hpp"

/// Two steps at once: what is undone and what is told, whichever of them fails.
namespace mergen::engine::test {
namespace {

class Both : public ::testing::Test {
protected:
    Both() : op_(vm_, "start", nullLog(), {}) {}

    /// One of two parts. It ends only when the other one has begun, so that none is over before both are at work.
    Operation::Part part(std::string_view step, const std::string& failure = {}) {
        return {step,
                [this, failure] {
                    ++begun_;
                    ASSERT_TRUE(eventually([this] { return begun_ == 2; }));
                    if (!failure.empty()) throw Error(ErrorKind::Unavailable, failure);
                },
                [this, step] { undone_ += std::string(step) + " "; }};
    }

    /// "step:outcome" of each event, and how it was told why.
    std::string told() const {
        std::string text;
        for (const Event& event : vm_->timeline.events()) {
            text += event.step + ":" + event.outcome + (event.cause.empty() ? "" : "(" + event.cause + ")") + " ";
        }
        return text;
    }

    const std::shared_ptr<Vm> vm_ = std::make_shared<Vm>(VmRecord(RecordId::parse("web"), Uuid::random()), 100);
    Operation op_;
    std::atomic<int> begun_{0};
    std::string undone_;
};

std::string errorOf(const std::function<void()>& action) {
    try {
        action();
    } catch (const Error& error) {
        return error.what();
    }
    return {};
}

TEST_F(Both, RunAtOnceAndEachHasItsEvent) {
    {
        const AskedBy asked("token:ci");
        op_.both(part("one"), part("two"));
    }
    for (const Event& event : vm_->timeline.events()) {
        EXPECT_EQ(event.outcome, "ok");
        EXPECT_EQ(event.by, "token:ci") << event.step;
    }
    EXPECT_EQ(vm_->timeline.events().size(), 2);
    op_.commit();
    op_.undoAll();
    EXPECT_EQ(undone_, "");
}

TEST_F(Both, UndosAreKeptFromBeforeAndRunNewestFirst) {
    op_.step(
        "zero", [] {}, [this] { undone_ += "zero "; });
    op_.both(part("one"), part("two"));
    op_.undoAll();
    EXPECT_EQ(undone_, "two one zero ");
}

TEST_F(Both, FailureOfEitherIsToldAndBothAreUndone) {
    for (const bool second : {false, true}) {
        begun_ = 0;
        undone_.clear();
        EXPECT_EQ(errorOf([&] { op_.both(part("one", second ? "" : "no"), part("two", second ? "no" : "")); }), "no");
        op_.undoAll();
        EXPECT_EQ(undone_, "two one ");
    }
    const std::string text = told();
    EXPECT_NE(text.find("one:failed(no)"), std::string::npos) << text;
    EXPECT_NE(text.find("two:failed(no)"), std::string::npos) << text;
    EXPECT_NE(text.find("one:ok"), std::string::npos) << text;
    EXPECT_NE(text.find("two:ok"), std::string::npos) << text;
}

TEST_F(Both, FailureOfBothIsTheFirstOneInTimeAndTheOtherIsInItsEvent) {
    for (const bool second : {false, true}) {
        begun_ = 0;
        undone_.clear();
        Operation::Part late = part("late");
        late.action = [this] {
            const std::size_t before = vm_->timeline.events().size();
            ++begun_;
            // The event of the other one is the sign that it has failed.
            ASSERT_TRUE(eventually([&] { return vm_->timeline.events().size() > before; }));
            throw Error(ErrorKind::Unavailable, "later");
        };
        Operation::Part early = part("early", "sooner");
        const auto failing = [&] {
            second ? op_.both(std::move(late), std::move(early)) : op_.both(std::move(early), std::move(late));
        };
        EXPECT_EQ(errorOf(failing), "sooner");
        op_.undoAll();
        EXPECT_EQ(undone_, second ? "early late " : "late early ");
    }
    EXPECT_NE(told().find("late:failed(later)"), std::string::npos);
}

TEST_F(Both, AnUndoThatFailsKeepsTheOtherFromNothing) {
    Operation::Part two = part("two");
    two.undo = [] { throw Error(ErrorKind::Unavailable, "cannot"); };
    EXPECT_EQ(errorOf([&] { op_.both(part("one", "no"), std::move(two)); }), "no");
    op_.undoAll();
    EXPECT_EQ(undone_, "one ");
}

TEST_F(Both, WhatIsNoErrorIsThrownOnToo) {
    struct Crash {};
    Operation::Part two = part("two");
    two.action = [this] {
        ++begun_;
        throw Crash();
    };
    EXPECT_THROW(op_.both(part("one"), std::move(two)), Crash);
}

}  // namespace
}  // namespace mergen::engine::test
