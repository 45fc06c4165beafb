#include <map>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <mergen/sdk/error.hpp>
#include <mergen/server/vmm_choice.hpp>

#include "server_test_support.hpp"

namespace mergen::server {
namespace {

using pluginhost::PluginInfo;
using testing::ElementsAre;
using testing::HasSubstr;

/// A VMM that only says whether it fits.
class Candidate final : public VmmBackend {
public:
    explicit Candidate(VmmFitness fitness) : fitness_(std::move(fitness)) {}
    void configure(Host&) override {}
    void start() override {}
    void stop() noexcept override {}
    [[nodiscard]] VmmTraits traits() const noexcept override { return {}; }
    [[nodiscard]] VmmFitness fitness() const override { return fitness_; }
    void check(const GuestSpec&) const override {}
    [[nodiscard]] LaunchPlan plan(const GuestSpec&, const VmmPlace&) const override { return {}; }
    void boot(const VmmPlace&, const GuestSpec&, std::chrono::milliseconds, const std::function<bool()>&) override {}
    [[nodiscard]] GuestState query(const VmmPlace&, std::chrono::milliseconds) const override { return {}; }
    void requestStop(const VmmPlace&, std::chrono::milliseconds) override {}
    void pause(const VmmPlace&, std::chrono::milliseconds) override {}
    void resume(const VmmPlace&, std::chrono::milliseconds) override {}
    void cleanUp(const VmmPlace&) override {}

private:
    VmmFitness fitness_;
};

TEST(VmmChoice, FirecrackerIsTakenWhereItFits) {
    Candidate firecracker({.fit = true, .reason = "KVM runs guests"}), qemu({});
    const VmmChoice choice = chooseVmm({{"firecracker", &firecracker}, {"qemu", &qemu}});
    EXPECT_EQ(choice.name, "firecracker");
    EXPECT_EQ(choice.reason, "auto: firecracker, because KVM runs guests");
}

TEST(VmmChoice, QemuIsTakenElsewhereAndTheReasonIsSaid) {
    Candidate firecracker({.fit = false, .reason = "/dev/kvm: it emulates"}), qemu({});
    const VmmChoice choice = chooseVmm({{"firecracker", &firecracker}, {"qemu", &qemu}});
    EXPECT_EQ(choice.name, "qemu");
    EXPECT_THAT(choice.reason, HasSubstr("/dev/kvm: it emulates"));
}

TEST(VmmChoice, TheOnlyOneIsTakenWhateverItSays) {
    Candidate firecracker({.fit = false, .reason = "it emulates"}), qemu({});
    EXPECT_EQ(chooseVmm({{"firecracker", &firecracker}}).name, "firecracker");
    EXPECT_EQ(chooseVmm({{"qemu", &qemu}}).name, "qemu");
}

ServerConfig configured(const std::string& vmm) {
    Problems problems;
    Notes notes;
    ServerConfig config =
        parseConfig(fileInput("[backends]\nvmm = " + vmm + "\n"), {"/plugins", "/libexec"}, problems, notes);
    EXPECT_THAT(problems, testing::IsEmpty());
    return config;
}

PluginInfo found(const std::string& name, pluginhost::PluginState state = pluginhost::PluginState::Available) {
    PluginInfo info;
    info.kind = "vmm";
    info.name = name;
    info.state = state;
    return info;
}

std::vector<std::string> vmms(const ServerConfig& config, const std::vector<PluginInfo>& plugins) {
    std::vector<std::string> names;
    for (const auto& [kind, name] : pluginsToLoad(config, plugins)) {
        if (kind == "vmm") names.push_back(name);
    }
    return names;
}

TEST(VmmChoice, AutoLoadsThoseOfTheTwoThatAreThere) {
    using enum pluginhost::PluginState;
    EXPECT_THAT(vmms(configured("auto"), {found("other"), found("qemu"), found("firecracker")}),
                ElementsAre("firecracker", "qemu"));
    EXPECT_THAT(vmms(configured("auto"), {found("qemu"), found("firecracker", Failed)}), ElementsAre("qemu"));
    EXPECT_THROW(static_cast<void>(vmms(configured("auto"), {found("other")})), Error);
}

TEST(VmmChoice, NamesAreLoadedAsTheyStand) {
    EXPECT_THAT(vmms(configured("qemu, firecracker"), {}), ElementsAre("qemu", "firecracker"));
}

}  // namespace
}  // namespace mergen::server
