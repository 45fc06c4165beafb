#include "qemu_vmm.hpp"

#include <atomic>
#include <chrono>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <signal.h>
#include <string>
#include <unistd.h>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <mergen/base/file.hpp>
#include <mergen/sdk/error.hpp>

#include "fake_qmp_server.hpp"
#include "test_host.hpp"

namespace mergen::vmm {
namespace {

using namespace std::chrono_literals;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Given = std::map<std::string, std::string, std::less<>>;

constexpr auto plenty = 60s;    // never reached
constexpr auto moment = 100ms;  // always reached

std::optional<ErrorKind> kindOf(const std::function<void()>& action) {
    try {
        action();
    } catch (const Error& error) {
        return error.kind();
    }
    return std::nullopt;
}

TEST(QemuSettings, WordsOutsideTheListAreRefusedByName) {
    for (const char* key : {"accel", "machine"}) {
        test::TestHost host(QemuVmm::keys, Given{{key, "fast"}});
        QemuVmm vmm;
        try {
            vmm.configure(host);
            ADD_FAILURE() << key << " = fast was taken";
        } catch (const Error& error) {
            EXPECT_EQ(error.kind(), ErrorKind::InvalidArgument);
            EXPECT_EQ(error.field(), key);
            EXPECT_THAT(error.what(), HasSubstr("auto"));
        }
    }
}

TEST(QemuSettings, ProgramAndDeviceAreAbsolutePaths) {
    for (const char* key : {"binary", "kvm_device"}) {
        test::TestHost host(QemuVmm::keys, Given{{key, "qemu"}});
        QemuVmm vmm;
        EXPECT_EQ(kindOf([&] { vmm.configure(host); }), ErrorKind::InvalidArgument) << key;
    }
}

TEST(QemuStart, WithoutKvmAPlainPcIsEmulated) {
    test::TestHost host(QemuVmm::keys, {{"kvm_device", "/nonexistent/kvm"}, {"binary", "/bin/true"}});
    QemuVmm vmm;
    vmm.configure(host);
    vmm.start();
    EXPECT_TRUE(vmm.health().ok);
    EXPECT_EQ(vmm.health().detail, "guests run by tcg on a q35 machine (/nonexistent/kvm: No such file or directory)");
}

TEST(QemuStart, KvmThatIsAskedForAndMissingIsNotSupported) {
    test::TestHost host(QemuVmm::keys, {{"kvm_device", "/nonexistent/kvm"}, {"accel", "kvm"}});
    QemuVmm vmm;
    vmm.configure(host);
    EXPECT_EQ(kindOf([&] { vmm.start(); }), ErrorKind::NotSupported);
}

TEST(QemuStart, WithKvmTheMicrovmIsTaken) {
    test::TestHost host(QemuVmm::keys, {{"binary", "/bin/true"}, {"kvm_device", "/dev/null"}});
    std::filesystem::create_symlink("/bin/true", host.paths().libexec / "mergen-kvm-probe");
    QemuVmm vmm;
    vmm.configure(host);
    vmm.start();
    EXPECT_THAT(vmm.health().detail, HasSubstr("guests run by kvm on a microvm machine"));
}

TEST(QemuStart, SettingsDecideWithoutAskingTheHost) {
    test::TestHost host(QemuVmm::keys, {{"accel", "tcg"}, {"machine", "microvm"}, {"binary", "/bin/true"}});
    QemuVmm vmm;
    vmm.configure(host);
    vmm.start();
    EXPECT_EQ(vmm.health().detail, "guests run by tcg on a microvm machine (as the settings say)");
}

/// A backend whose QEMU is played by a script.
class QemuConversation : public ::testing::Test {
protected:
    QemuConversation() {
        vmm_.configure(host_);
        vmm_.start();
        makeDirectories(place_.runDirectory, 0700);
    }

    /// Serves QMP: query-status gives `status`, everything else an empty result. `commands_` has what was asked for.
    void serve(const std::string& status) {
        server_.emplace(place_.controlSocket, [this, status](FakePeer& peer) {
            peer.greet();
            while (true) {
                const std::string command = peer.answer(R"("return": {"status": ")" + status + "\"}");
                if (command.empty()) return;
                if (command.find("query-status") == std::string::npos) commands_.push_back(command);
            }
        });
    }
    /// What was asked for, as the script saw it.
    const std::vector<std::string>& commands() {
        server_.reset();
        return commands_;
    }

    test::TestHost host_{QemuVmm::keys, {{"accel", "tcg"}, {"binary", "/nonexistent/qemu"}}};
    QemuVmm vmm_;
    VmmPlace place_{OwnerTag{host_.instance(), Uuid::parse("7f3a9c01-5e4d-4b2a-9c8d-112233445566")},
                    host_.paths().runRoot / "7f3a9c01", host_.paths().runRoot / "7f3a9c01" / "control.sock",
                    Credentials{::geteuid(), ::getegid()}};
    GuestSpec guest_ = [] {
        GuestSpec guest;
        guest.kernel = "/k";
        guest.disks = {{.id = "rootfs", .file = "/d", .root = true}};
        return guest;
    }();
    std::vector<std::string> commands_;
    std::optional<FakeQmpServer> server_;
};

constexpr auto lives = [] { return true; };

TEST_F(QemuConversation, MissingProgramIsSaidByPlanAndHealth) {
    EXPECT_FALSE(vmm_.health().ok);
    EXPECT_THAT(vmm_.health().detail, HasSubstr("/nonexistent/qemu"));
    EXPECT_EQ(kindOf([&] { static_cast<void>(vmm_.plan(guest_, place_)); }), ErrorKind::FailedPrecondition);
    guest_.vcpus = 0;
    EXPECT_EQ(kindOf([&] { static_cast<void>(vmm_.plan(guest_, place_)); }), ErrorKind::InvalidArgument);
}

TEST_F(QemuConversation, BootLetsAGuestRunThatHasNotRunYet) {
    serve("prelaunch");
    vmm_.boot(place_, guest_, plenty, lives);
    EXPECT_THAT(commands(), ElementsAre(HasSubstr("\"cont\"")));
}

TEST_F(QemuConversation, BootLeavesARunningGuestAlone) {
    serve("running");
    vmm_.boot(place_, guest_, plenty, lives);
    EXPECT_THAT(commands(), ElementsAre());
}

TEST_F(QemuConversation, BootWaitsForTheSocketToAppear) {
    int asked = 0;
    vmm_.boot(place_, guest_, plenty, [&] {
        if (++asked == 3) serve("prelaunch");
        return true;
    });
    EXPECT_THAT(commands(), ElementsAre(HasSubstr("\"cont\"")));
}

TEST_F(QemuConversation, BootPassesOverTheSocketThatAPredecessorLeft) {
    {
        const FakeQmpServer gone(place_.controlSocket, [](FakePeer&) {});
    }
    int asked = 0;
    vmm_.boot(place_, guest_, plenty, [&] {
        if (++asked == 3) {
            std::filesystem::remove(place_.controlSocket);  // as QEMU does before it binds
            serve("prelaunch");
        }
        return true;
    });
    EXPECT_THAT(commands(), ElementsAre(HasSubstr("\"cont\"")));
}

TEST_F(QemuConversation, BootEndsWhenTheProcessIsGone) {
    EXPECT_EQ(kindOf([&] { vmm_.boot(place_, guest_, plenty, [] { return false; }); }), ErrorKind::Unavailable);
}

TEST_F(QemuConversation, BootEndsWhenTheProcessDiesWhileItIsAsked) {
    std::atomic<bool> living = true;
    server_.emplace(place_.controlSocket, [&](FakePeer& peer) {
        peer.greet();
        living = false;
    });
    EXPECT_EQ(kindOf([&] { vmm_.boot(place_, guest_, plenty, [&] { return living.load(); }); }),
              ErrorKind::Unavailable);
}

TEST_F(QemuConversation, BootTimesOutWithoutASocket) {
    EXPECT_EQ(kindOf([&] { vmm_.boot(place_, guest_, moment, lives); }), ErrorKind::Timeout);
}

TEST_F(QemuConversation, BootTimesOutOverSilence) {
    server_.emplace(place_.controlSocket, [](FakePeer& peer) { peer.awaitEnd(); });
    EXPECT_EQ(kindOf([&] { vmm_.boot(place_, guest_, moment, lives); }), ErrorKind::Timeout);
}

TEST_F(QemuConversation, WhoStaysConnectedToTheControlSocketIsNotInTheWay) {
    const FakeQmpServer taken(place_.controlSocket, [](FakePeer& peer) { peer.awaitEnd(); });  // serves somebody else
    server_.emplace(serverSocket(place_), [](FakePeer& peer) {
        peer.greet();
        while (!peer.answer(R"("return": {"status": "running"})").empty()) {
        }
    });
    EXPECT_EQ(vmm_.query(place_, plenty), GuestState::Running);
    EXPECT_NO_THROW(vmm_.pause(place_, plenty));
    server_.reset();
    vmm_.cleanUp(place_);
    EXPECT_FALSE(std::filesystem::exists(serverSocket(place_)));
    EXPECT_FALSE(std::filesystem::exists(place_.controlSocket));
}

TEST_F(QemuConversation, QemusStatesAreTold) {
    const std::map<std::string, GuestState> states = {
        {"prelaunch", GuestState::NotStarted}, {"running", GuestState::Running}, {"paused", GuestState::Paused},
        {"io-error", GuestState::Paused},      {"shutdown", GuestState::Ended},  {"internal-error", GuestState::Ended},
    };
    for (const auto& [word, state] : states) {
        serve(word);
        EXPECT_EQ(vmm_.query(place_, plenty), state) << word;
        server_.reset();
        vmm_.cleanUp(place_);
    }
    serve("dreaming");
    EXPECT_EQ(kindOf([&] { static_cast<void>(vmm_.query(place_, plenty)); }), ErrorKind::Unavailable);
}

TEST_F(QemuConversation, PauseAndResumeDoNothingTwice) {
    serve("paused");
    vmm_.pause(place_, plenty);
    EXPECT_THAT(commands(), ElementsAre());
    vmm_.cleanUp(place_);
    serve("running");
    vmm_.resume(place_, plenty);
    EXPECT_THAT(commands(), ElementsAre());
}

TEST_F(QemuConversation, PauseStopsAndResumeContinues) {
    serve("running");
    vmm_.pause(place_, plenty);
    EXPECT_THAT(commands(), ElementsAre(HasSubstr("\"stop\"")));
    commands_.clear();
    vmm_.cleanUp(place_);
    serve("paused");
    vmm_.resume(place_, plenty);
    EXPECT_THAT(commands(), ElementsAre(HasSubstr("\"cont\"")));
}

TEST_F(QemuConversation, GuestThatHasNotRunCannotBePausedResumedOrAsked) {
    serve("prelaunch");
    EXPECT_EQ(kindOf([&] { vmm_.pause(place_, plenty); }), ErrorKind::FailedPrecondition);
    EXPECT_EQ(kindOf([&] { vmm_.resume(place_, plenty); }), ErrorKind::FailedPrecondition);
    EXPECT_EQ(kindOf([&] { vmm_.requestStop(place_, plenty); }), ErrorKind::FailedPrecondition);
    EXPECT_THAT(commands(), ElementsAre());
}

constexpr auto ctrlAltDel =
    R"("send-key","arguments":{"keys":[{"type":"qcode","data":"ctrl"},{"type":"qcode","data":"alt"},)"
    R"({"type":"qcode","data":"delete"}]})";

TEST_F(QemuConversation, RequestToStopIsCtrlAltDel) {
    serve("running");
    vmm_.requestStop(place_, plenty);
    EXPECT_THAT(commands(), ElementsAre(HasSubstr(ctrlAltDel)));
}

TEST_F(QemuConversation, PausedGuestIsWokenToHearTheRequest) {
    serve("paused");
    vmm_.requestStop(place_, plenty);
    EXPECT_THAT(commands(), ElementsAre(HasSubstr("\"cont\""), HasSubstr(ctrlAltDel)));
}

TEST_F(QemuConversation, GuestThatHasEndedNeedsNoRequest) {
    serve("shutdown");
    vmm_.requestStop(place_, plenty);
    EXPECT_THAT(commands(), ElementsAre());
}

}  // namespace
}  // namespace mergen::vmm
