#include <atomic>
#include <latch>
#include <thread>

#include "world.hpp"

namespace mergen::engine::test {
namespace {

TEST(Allocation, FirstAddressIsHostNumberTwoAndAFreedOneIsGivenAgain) {
    World world;
    const auto engine = world.boot();
    const VmView first = engine->create(world.request()).vm;
    const VmView second = engine->create(world.request()).vm;
    EXPECT_EQ(first.guestAddress, "172.30.0.2");
    EXPECT_EQ(second.guestAddress, "172.30.0.3");
    engine->remove(first.id, false);
    EXPECT_EQ(engine->create(world.request()).vm.guestAddress, "172.30.0.2");
}

TEST(Allocation, AddressesEndBeforeTheBroadcastAddress) {
    World world;
    world.config.guestNetwork = Ipv4Network::parse("10.9.8.0/29");
    const auto engine = world.boot();
    std::string last;
    for (int i = 0; i < 5; ++i) last = engine->create(world.request()).vm.guestAddress;
    EXPECT_EQ(last, "10.9.8.6");
    try {
        static_cast<void>(engine->create(world.request()));
        FAIL() << "a sixth address was given out";
    } catch (const Error& error) {
        EXPECT_EQ(error.kind(), ErrorKind::ResourceExhausted);
        EXPECT_NE(std::string(error.what()).find("10.9.8.0/29"), std::string::npos);
    }
    EXPECT_EQ(world.contradictions(*engine), "");
}

TEST(Allocation, AddressThatTheHostRoutesElsewhereIsPassedOver) {
    World world;
    world.foreignAddresses = {Ipv4Address::parse("172.30.0.2"), Ipv4Address::parse("172.30.0.3")};
    const auto engine = world.boot();
    EXPECT_EQ(engine->create(world.request()).vm.guestAddress, "172.30.0.4");
    world.foreignAddresses.clear();
    EXPECT_EQ(engine->create(world.request()).vm.guestAddress, "172.30.0.2");
}

TEST(Allocation, PortsAreTheFirstFreeOnesAndSorted) {
    World world;
    world.busyPorts = {20001};
    const auto engine = world.boot();
    CreateRequest request = world.request();
    request.ports = {{80, 0, Protocol::Tcp}, {443, 30000, Protocol::Tcp}, {22, 0, Protocol::Tcp}};
    const VmView vm = engine->create(request).vm;
    const std::vector<PortBinding> expected{
        {20000, Protocol::Tcp, 80}, {20002, Protocol::Tcp, 22}, {30000, Protocol::Tcp, 443}};
    EXPECT_EQ(vm.ports, expected);
}

TEST(Allocation, PortAskedForByNumberIsNotTakenByOneChosenInTheSameRequest) {
    World world;
    const auto engine = world.boot();
    CreateRequest request = world.request();
    request.ports = {{80, 0, Protocol::Tcp}, {443, 20000, Protocol::Tcp}};
    const std::vector<PortBinding> expected{{20000, Protocol::Tcp, 443}, {20001, Protocol::Tcp, 80}};
    EXPECT_EQ(engine->create(request).vm.ports, expected);
}

TEST(Allocation, TcpAndUdpPortsAreCountedApart) {
    World world;
    const auto engine = world.boot();
    CreateRequest request = world.request();
    request.ports = {{53, 0, Protocol::Tcp}, {53, 0, Protocol::Udp}};
    const std::vector<PortBinding> expected{{20000, Protocol::Tcp, 53}, {20000, Protocol::Udp, 53}};
    EXPECT_EQ(engine->create(request).vm.ports, expected);
}

TEST(Allocation, ProtocolThatTheNetworkLacksIsRefusedBeforeAnythingIsMade) {
    World world;
    world.udp = false;
    const auto engine = world.boot();
    CreateRequest request = world.request();
    request.ports = {{80, 0, Protocol::Tcp}, {53, 0, Protocol::Udp}};
    try {
        static_cast<void>(engine->create(request));
        FAIL() << "it could never be started";
    } catch (const Error& error) {
        EXPECT_EQ(error.kind(), ErrorKind::NotSupported);
        EXPECT_EQ(error.field(), "ports[1].protocol");
    }
    EXPECT_EQ(world.contradictions(*engine), "");
}

struct Refusal {
    ErrorKind kind;
    std::string field, text;
};

Refusal refusalOf(Engine& engine, const CreateRequest& request) {
    try {
        static_cast<void>(engine.create(request));
    } catch (const Error& error) {
        return {error.kind(), error.field(), error.what()};
    }
    return {ErrorKind::Internal, "", "accepted"};
}

TEST(Allocation, WhatAnotherVmHoldsIsRefusedWithItsName) {
    World world;
    const auto engine = world.boot();
    CreateRequest first = world.request();
    first.id = RecordId::parse("first");
    first.name = "db";
    first.ports = {{80, 25000, Protocol::Tcp}};
    static_cast<void>(engine->create(first));

    CreateRequest port = world.request();
    port.ports = {{80, 0, Protocol::Tcp}, {81, 25000, Protocol::Tcp}};
    const Refusal portRefusal = refusalOf(*engine, port);
    EXPECT_EQ(portRefusal.kind, ErrorKind::AlreadyExists);
    EXPECT_EQ(portRefusal.field, "ports[1].host");
    EXPECT_NE(portRefusal.text.find("'first'"), std::string::npos) << portRefusal.text;

    CreateRequest name = world.request();
    name.name = "db";
    EXPECT_EQ(refusalOf(*engine, name).field, "name");

    CreateRequest id = world.request();
    id.id = RecordId::parse("first");
    id.ports = {{80, 25000, Protocol::Tcp}};  // which that very VM holds: the id is what is wrong
    EXPECT_EQ(refusalOf(*engine, id).field, "id");

    // Nothing of the refused ones is held: the next gets what they would have got.
    EXPECT_EQ(engine->create(world.request()).vm.guestAddress, "172.30.0.3");
    EXPECT_EQ(world.contradictions(*engine), "");
}

TEST(Allocation, PortTwiceInOneRequestOrInUseOnTheHostIsRefused) {
    World world;
    world.busyPorts = {26000};
    const auto engine = world.boot();
    CreateRequest twice = world.request();
    twice.ports = {{80, 25000, Protocol::Tcp}, {81, 25000, Protocol::Tcp}};
    EXPECT_EQ(refusalOf(*engine, twice).kind, ErrorKind::InvalidArgument);
    CreateRequest busy = world.request();
    busy.ports = {{80, 26000, Protocol::Tcp}};
    const Refusal refusal = refusalOf(*engine, busy);
    EXPECT_EQ(refusal.kind, ErrorKind::AlreadyExists);
    EXPECT_NE(refusal.text.find("another program"), std::string::npos);
    EXPECT_TRUE(engine->list().empty());
}

TEST(Allocation, PortRangeThatIsUsedUpSaysSo) {
    World world;
    world.config.portStart = 20000;
    world.config.portEnd = 20001;
    const auto engine = world.boot();
    static_cast<void>(engine->create(world.request()));
    const VmView second = engine->create(world.request()).vm;
    const Refusal refusal = refusalOf(*engine, world.request());
    EXPECT_EQ(refusal.kind, ErrorKind::ResourceExhausted);
    EXPECT_NE(refusal.text.find("20000 to 20001"), std::string::npos);
    engine->remove(second.id, false);
    EXPECT_EQ(engine->create(world.request()).vm.ports.front().host, 20001);
}

TEST(Allocation, ConcurrentCreatesShareNothing) {
    World world;
    const auto engine = world.boot();
    {
        std::vector<std::jthread> clients;
        for (int i = 0; i < 16; ++i) {
            clients.emplace_back([&] {
                for (int n = 0; n < 8; ++n) static_cast<void>(engine->create(world.request()));
            });
        }
    }
    std::set<std::string> addresses, macs, taps, netns, ids;
    std::set<std::uint16_t> ports;
    for (const VmView& vm : engine->list()) {
        EXPECT_TRUE(addresses.insert(vm.guestAddress).second) << vm.guestAddress;
        EXPECT_TRUE(macs.insert(vm.mac).second);
        EXPECT_TRUE(taps.insert(vm.tapName).second);
        EXPECT_TRUE(netns.insert(vm.netns).second);
        EXPECT_TRUE(ids.insert(vm.id).second);
        EXPECT_TRUE(ports.insert(vm.ports.front().host).second);
    }
    EXPECT_EQ(ids.size(), 128U);
    EXPECT_EQ(world.contradictions(*engine), "");
}

CreateRequest withCards(CreateRequest request, int count) {
    for (int i = 0; i < count; ++i) request.nics.push_back({.id = "eth" + std::to_string(i)});
    return request;
}

TEST(Allocation, FurtherCardsHaveNamesOfTheVmAndTheNextAddresses) {
    World world;
    const auto engine = world.boot();
    const VmView vm = engine->create(withCards(world.request(), 3)).vm;
    const std::string digits = vm.uuid.substr(0, 8);
    const std::string mac = vm.mac.substr(0, 15);
    EXPECT_EQ(vm.interfaces, (std::vector<VmInterface>{{"eth0", "172.30.0.2", mac + "01", "tap-" + digits},
                                                       {"eth1", "172.30.0.3", mac + "02", "tap1-" + digits},
                                                       {"eth2", "172.30.0.4", mac + "03", "tap2-" + digits}}));
    EXPECT_EQ(engine->create(world.request()).vm.guestAddress, "172.30.0.5");
    engine->remove(vm.id, false);
    EXPECT_EQ(engine->create(withCards(world.request(), 2)).vm.interfaces[1].guestAddress, "172.30.0.3");
    EXPECT_EQ(world.contradictions(*engine), "");
}

TEST(Allocation, OfManyVmsWithThreeCardsNoTwoCardsShareAnything) {
    World world;
    world.config.guestNetwork = Ipv4Network::parse("172.30.0.0/22");
    const auto engine = world.boot();
    {
        std::vector<std::jthread> clients;
        for (int i = 0; i < 10; ++i) {
            clients.emplace_back([&] {
                for (int n = 0; n < 10; ++n) static_cast<void>(engine->create(withCards(world.request(), 3)));
            });
        }
    }
    std::set<std::string> addresses, macs, taps;
    for (const VmView& vm : engine->list()) {
        for (const VmInterface& card : vm.interfaces) {
            EXPECT_TRUE(addresses.insert(card.guestAddress).second) << card.guestAddress;
            EXPECT_TRUE(macs.insert(card.mac).second) << card.mac;
            EXPECT_TRUE(taps.insert(card.tapName).second) << card.tapName;
        }
    }
    EXPECT_EQ(addresses.size(), 300U);
    EXPECT_EQ(world.contradictions(*engine), "");
}

TEST(Allocation, AFurtherAddressThatTheHostRoutesElsewhereIsPassedOver) {
    World world;
    world.foreignAddresses = {Ipv4Address::parse("172.30.0.3")};
    const auto engine = world.boot();
    const VmView vm = engine->create(withCards(world.request(), 2)).vm;
    EXPECT_EQ(vm.guestAddress, "172.30.0.2");
    EXPECT_EQ(vm.interfaces[1].guestAddress, "172.30.0.4");
    world.foreignAddresses.clear();
    EXPECT_EQ(engine->create(world.request()).vm.guestAddress, "172.30.0.3");
}

TEST(Allocation, AVmForWhichThereAreTooFewAddressesGetsNone) {
    World world;
    world.config.guestNetwork = Ipv4Network::parse("10.9.8.0/29");  // five guests
    const auto engine = world.boot();
    static_cast<void>(engine->create(withCards(world.request(), 3)));
    EXPECT_EQ(refusalOf(*engine, withCards(world.request(), 3)).kind, ErrorKind::ResourceExhausted);
    const VmView last = engine->create(withCards(world.request(), 2)).vm;
    EXPECT_EQ(last.interfaces[0].guestAddress, "10.9.8.5");
    EXPECT_EQ(last.interfaces[1].guestAddress, "10.9.8.6");
    EXPECT_EQ(world.contradictions(*engine), "");
}

TEST(Allocation, FurtherAddressesAreHeldAfterARestartAlsoThoseOfARecordThatCannotBeRead) {
    World world;
    {
        const auto engine = world.boot();
        CreateRequest request = withCards(world.request(), 3);
        request.id = RecordId::parse("good");
        static_cast<void>(engine->create(request));
        request.id = RecordId::parse("bad");
        static_cast<void>(engine->create(request));
    }
    world.records.at("bad").record.documents.at("meta.json") = "{";
    const auto engine = world.boot();
    EXPECT_EQ(engine->create(world.request()).vm.guestAddress, "172.30.0.8");
    engine->remove("bad", false);
    EXPECT_EQ(engine->create(withCards(world.request(), 3)).vm.interfaces[2].guestAddress, "172.30.0.7");
    engine->remove("good", false);
    EXPECT_EQ(engine->create(world.request()).vm.guestAddress, "172.30.0.2");
    EXPECT_EQ(world.contradictions(*engine), "");
}

TEST(Allocation, OfTwoRecordsThatHoldTheSameFurtherAddressTheLaterOneHoldsNothing) {
    World world;
    {
        const auto engine = world.boot();
        CreateRequest request = withCards(world.request(), 2);
        request.id = RecordId::parse("a");
        static_cast<void>(engine->create(request));
        request.id = RecordId::parse("b");
        static_cast<void>(engine->create(request));
    }
    for (std::string* text :
         {&world.records.at("b").record.documents.at("meta.json"), &world.records.at("b").record.documents.at("env")}) {
        const std::size_t at = text->find("172.30.0.5");
        ASSERT_NE(at, std::string::npos);
        text->replace(at, 10, "172.30.0.3");
    }
    const auto engine = world.boot();
    const VmState state = engine->get("b").state;
    EXPECT_EQ(state, VmState::Corrupt);
    EXPECT_EQ(engine->create(world.request()).vm.guestAddress, "172.30.0.4");
}

TEST(Allocation, AWireHasAllCards) {
    World world;
    const auto engine = world.boot();
    const VmView vm = world.runWeb(*engine, withCards(world.request(), 3));
    const NetworkSpec& wire = world.wires.at(Uuid::parse(vm.uuid));
    ASSERT_EQ(wire.further.size(), 2U);
    EXPECT_EQ(wire.further[1].tap.str(), vm.interfaces[2].tapName);
    EXPECT_EQ(world.contradictions(*engine), "");
}

TEST(Allocation, OfManyRequestsForOneIdAndPortOneIsGrantedAndTheOthersHearThatItIsTaken) {
    World world;
    const auto engine = world.boot();
    CreateRequest request = world.request();
    request.id = RecordId::parse("the-one");
    request.ports = {{80, 25000, Protocol::Tcp}};
    constexpr int clientCount = 16;
    for (int round = 0; round < 20; ++round) {
        std::atomic<int> granted = 0, taken = 0, otherwise = 0;
        std::latch together(clientCount);
        {
            std::vector<std::jthread> clients;
            for (int i = 0; i < clientCount; ++i) {
                clients.emplace_back([&] {
                    together.arrive_and_wait();
                    try {
                        static_cast<void>(engine->create(request));
                        ++granted;
                    } catch (const Error& error) {
                        ++(error.kind() == ErrorKind::AlreadyExists ? taken : otherwise);
                    }
                });
            }
        }
        EXPECT_EQ(granted, 1);
        EXPECT_EQ(taken, clientCount - 1);
        EXPECT_EQ(otherwise, 0);
        engine->remove("the-one", false);
    }
}

TEST(Allocation, NamesOnTheHostComeFromTheInternalIdAndNotFromTheChosenOne) {
    World world;
    const auto engine = world.boot();
    CreateRequest request = world.request();
    request.id = RecordId::parse("machine-app1");
    const VmView vm = engine->create(request).vm;
    const std::string digits = vm.uuid.substr(0, 8);
    EXPECT_EQ(vm.tapName, "tap-" + digits);
    EXPECT_EQ(vm.netns, "mergen-" + digits);
    EXPECT_EQ(vm.mac, "02:fc:" + digits.substr(0, 2) + ":" + digits.substr(2, 2) + ":" + digits.substr(4, 2) + ":01");
    EXPECT_EQ(vm.paths.runDir, world.config.runRoot / vm.uuid);
    EXPECT_EQ(vm.paths.configDir, world.config.configRoot / "machine-app1");
}

TEST(Allocation, IdIsTheUuidIfNoneWasChosen) {
    World world;
    const auto engine = world.boot();
    const VmView vm = engine->create(world.request()).vm;
    EXPECT_EQ(vm.id, vm.uuid);
}

TEST(Allocation, WhatRecordsHoldIsHeldAfterARestart) {
    World world;
    {
        const auto engine = world.boot();
        CreateRequest request = world.request();
        request.name = "db";
        static_cast<void>(engine->create(request));
    }
    const auto engine = world.boot();
    const VmView next = engine->create(world.request()).vm;
    EXPECT_EQ(next.guestAddress, "172.30.0.3");
    EXPECT_EQ(next.ports.front().host, 20001);
    CreateRequest name = world.request();
    name.name = "db";
    EXPECT_EQ(refusalOf(*engine, name).field, "name");
}

TEST(Allocation, PortIsHeldFromCreateToDeleteWhateverTheVmDoes) {
    World world;
    const auto engine = world.boot();
    CreateRequest request = world.request();
    request.ports = {{80, 25000, Protocol::Tcp}, {53, 0, Protocol::Udp}};
    const std::set<std::pair<Protocol, std::uint16_t>> both{{Protocol::Tcp, 25000}, {Protocol::Udp, 20000}};
    const VmView vm = engine->create(request).vm;
    EXPECT_EQ(world.heldPorts, both);
    engine->start(vm.id);
    engine->stop(vm.id);
    EXPECT_EQ(world.heldPorts, both) << "a stopped VM keeps its ports";
    engine->remove(vm.id, false);
    EXPECT_TRUE(world.heldPorts.empty());
}

TEST(Allocation, ARefusedOrFailedCreateHoldsNoPort) {
    World world;
    const auto engine = world.boot();
    CreateRequest request = world.request();
    request.ports = {{80, 25000, Protocol::Tcp}, {81, 0, Protocol::Tcp}, {82, 26000, Protocol::Tcp}};
    world.busyPorts = {26000};
    EXPECT_EQ(refusalOf(*engine, request).kind, ErrorKind::AlreadyExists);
    EXPECT_TRUE(world.heldPorts.empty());
    world.busyPorts.clear();
    world.onEffect = [](const std::string& effect, const std::string&) {
        if (effect == "storage.put") throw Error(ErrorKind::Unavailable, "no");
    };
    EXPECT_EQ(refusalOf(*engine, request).kind, ErrorKind::Unavailable);
    world.onEffect = nullptr;
    EXPECT_TRUE(world.heldPorts.empty());
}

TEST(Allocation, GuestIsToldWhatTheNetworkSaysOfItsWire) {
    World world;
    world.guestSettings.dns = {Ipv4Address::parse("9.9.9.9")};
    const auto engine = world.boot();
    EXPECT_TRUE(engine->create(world.request()).vm.bootArguments.ends_with("::eth0:off:9.9.9.9"));
}

TEST(Allocation, LimitOfVmsIsKept) {
    World world;
    world.config.maxVms = 2;
    const auto engine = world.boot();
    static_cast<void>(engine->create(world.request()));
    static_cast<void>(engine->create(world.request()));
    EXPECT_EQ(refusalOf(*engine, world.request()).kind, ErrorKind::ResourceExhausted);
    EXPECT_EQ(world.contradictions(*engine), "");
}

}  // namespace
}  // namespace mergen::engine::test
