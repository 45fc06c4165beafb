#pragma once

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <mergen/sdk/network.hpp>

#include "backend_under_test.hpp"
#include "network_fixture.hpp"
#include "test_host.hpp"

namespace mergen {

/// One network backend as the suite sees it.
using NetworkUnderTest = BackendUnderTest<NetworkBackend>;

/// The promises of `NetworkBackend`. A backend runs them by one line in a test of its own, in namespace mergen or
/// below:
///
///     INSTANTIATE_TEST_SUITE_P(Stub, NetworkContract, backendUnderTest<StubNetwork>());
///
/// where the class has a static `keys`, its manifest's table. A backend that touches the host needs PRIVATE_NETWORK;
/// one that works in several ways by its settings runs the suite once for each.
class NetworkContract : public ::testing::TestWithParam<NetworkUnderTest> {
protected:
    NetworkContract();
    ~NetworkContract() override;

    [[nodiscard]] NetworkBackend& network() { return *network_; }
    [[nodiscard]] test::TestHost& host() { return host_; }
    /// Another server on the same folders: stops the backend and starts a new object.
    void restart();
    [[nodiscard]] BackendPtr<NetworkBackend> make() const { return GetParam().create(); }

    /// A new VM with these ports and so many network cards, which is detached at the end.
    [[nodiscard]] NetworkSpec vm(std::uint32_t number, std::vector<PortBinding> ports = {}, std::uint8_t cards = 1);
    /// Whether a port leads to some VM: another one that publishes it is refused.
    [[nodiscard]] bool published(std::uint16_t port, Protocol protocol = Protocol::Tcp);

    /// The host before start() and after it.
    const std::string& untouched() const { return untouched_; }
    const std::string& started() const { return started_; }

private:
    test::TestHost host_;
    std::string untouched_, started_;
    BackendPtr<NetworkBackend> network_;
    std::vector<NetworkSpec> vms_;
};

template <typename Backend>
[[nodiscard]] auto backendUnderTest(std::map<std::string, std::string, std::less<>> settings = {}) {
    return ::testing::Values(NetworkUnderTest{
        .keys = Backend::keys, .create = [] { return std::make_unique<Backend>(); }, .settings = std::move(settings)});
}

}  // namespace mergen
