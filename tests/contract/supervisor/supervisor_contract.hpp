#pragma once

#include <chrono>
#include <condition_variable>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <mergen/base/fd.hpp>
#include <mergen/base/process.hpp>
#include <mergen/sdk/supervisor.hpp>

#include "backend_under_test.hpp"
#include "test_host.hpp"

namespace mergen {

/// One supervisor backend as the suite sees it.
using SupervisorUnderTest = BackendUnderTest<SupervisorBackend>;

/// How long a test waits for what must happen. No test passes because of it.
inline constexpr std::chrono::seconds patience{60};

/// Collects exit events. Threads: any.
class ExitCollector final : public ExitListener {
public:
    void onExit(const ProcessStatus& status) noexcept override;
    void onRestart(const OwnerTag& owner) noexcept override;
    /// The first event of this owner, awaited; a failure of the test if none comes.
    [[nodiscard]] ProcessStatus await(const OwnerTag& owner);
    [[nodiscard]] std::size_t count(const OwnerTag& owner) const;
    /// Waits until `condition` holds, asking again whenever a restart of this owner is told; a failure of the test if
    /// it never does.
    void awaitRestart(const OwnerTag& owner, const std::function<bool()>& condition);

private:
    mutable std::mutex mutex_;
    std::condition_variable arrived_;
    std::vector<ProcessStatus> events_;      // guarded by mutex_
    std::map<OwnerTag, unsigned> restarts_;  // how many were told; guarded by mutex_
};

/// A backend in folders of its own, with a supervised program, `probe`, that does what it is told. At the end of each
/// test no process that bears the tag of a VM of this test may live.
class SupervisorFixture : public ::testing::Test {
protected:
    explicit SupervisorFixture(const SupervisorUnderTest& backend);
    ~SupervisorFixture() override;

    [[nodiscard]] SupervisorBackend& supervisor() { return *supervisor_; }
    [[nodiscard]] test::TestHost& host() { return host_; }
    [[nodiscard]] ExitCollector& exits() { return exits_; }
    [[nodiscard]] const std::filesystem::path& probe() const { return probe_; }

    /// Another server on the same folders: stops and destroys the backend; or only the first or second half of it.
    void restart();
    void stopServer();
    void startServer();
    /// A backend, configured and started, that is not the fixture's.
    [[nodiscard]] BackendPtr<SupervisorBackend> makeServer();

    /// A new VM's, remembered for the end of the test.
    [[nodiscard]] OwnerTag newOwner();
    /// The probe with these words, its own console file, and the ids of this process.
    [[nodiscard]] ProcessSpec specOf(const OwnerTag& owner, std::vector<std::string> words) const;
    [[nodiscard]] std::filesystem::path consoleOf(const OwnerTag& owner) const;
    /// FILE.1 and FILE.
    [[nodiscard]] std::string consoleText(const OwnerTag& owner) const;
    /// Waits until the console has `text` in it, or is as `condition` wants it.
    void awaitConsole(const OwnerTag& owner, const std::string& text) const;
    void awaitConsole(const OwnerTag& owner, const std::function<bool(const std::string&)>& condition) const;
    /// Launches a probe that says "ready" and lives on, and waits for that.
    ProcessStatus launchLingering(const OwnerTag& owner, std::vector<std::string> before = {});
    /// Launches a probe that does `first`, says "ready" and lives on, and is started again as a probe that does
    /// `again`. Restarts are permitted when this returns.
    ProcessStatus launchRestarting(const OwnerTag& owner, RestartPlan plan, std::vector<std::string> first,
                                   std::vector<std::string> again);
    /// Launches, waits for its end and gives that.
    ProcessStatus launchToEnd(const ProcessSpec& spec);
    /// What the probe printed when it did `words`, as its lines.
    [[nodiscard]] std::vector<std::string> linesOf(std::vector<std::string> words);

    /// The kind of the Error that `action` throws, its text in `text`; a failure of the test if it throws none.
    static std::optional<ErrorKind> kindOf(const std::function<void()>& action, std::string* text = nullptr);

    /// Processes whose argument list bears the owner's tag, zombies left out.
    [[nodiscard]] static std::vector<pid_t> processesOf(const OwnerTag& owner);

private:
    const SupervisorUnderTest& backend_;
    test::TestHost host_;
    ExitCollector exits_;
    std::filesystem::path probe_;
    std::vector<OwnerTag> owners_;
    BackendPtr<SupervisorBackend> supervisor_;
};

/// The promises of `SupervisorBackend`. A backend runs them by one line in a test of its own, in namespace mergen or
/// below:
///
///     INSTANTIATE_TEST_SUITE_P(Process, SupervisorContract, ::testing::Values(backendUnderTest()));
class SupervisorContract : public SupervisorFixture, public ::testing::WithParamInterface<SupervisorUnderTest> {
protected:
    SupervisorContract() : SupervisorFixture(GetParam()) {}
};

/// Awaits the end of any process that is not our child.
[[nodiscard]] bool endsInTime(pid_t pid);

}  // namespace mergen
