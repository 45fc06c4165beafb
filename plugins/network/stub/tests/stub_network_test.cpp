#include "stub_network.hpp"

#include <gtest/gtest.h>

#include "network_contract.hpp"

namespace mergen::network {

INSTANTIATE_TEST_SUITE_P(Stub, NetworkContract, backendUnderTest<StubNetwork>());

namespace {

TEST(StubNetwork, AttachmentsNeitherNameANamespaceNorATap) {
    test::TestHost host(StubNetwork::keys);
    StubNetwork network;
    network.configure(host);
    network.start();
    const NetworkAttachment made = network.attach(test::networkSpec(host.instance(), 2));
    EXPECT_FALSE(made.netns);
    EXPECT_FALSE(made.tap);
    EXPECT_FALSE(network.traits().touchesHost);
}

TEST(StubNetwork, PublishesUdpBesideTcpOnOnePort) {
    test::TestHost host(StubNetwork::keys);
    StubNetwork network;
    network.configure(host);
    network.start();
    NetworkSpec spec = test::networkSpec(host.instance(), 2);
    spec.ports = {{20001, Protocol::Tcp, 80}, {20001, Protocol::Udp, 53}};
    network.attach(spec);
    network.publish(spec);
    const auto findings = network.list();
    ASSERT_EQ(findings.size(), 1U);
    EXPECT_EQ(findings.front().objects.size(), 3U) << "the wire and two ports";
}

}  // namespace

}  // namespace mergen::network
