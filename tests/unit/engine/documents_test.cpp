#include "documents.hpp"

#include <gtest/gtest.h>

#include <mergen/base/json.hpp>
#include <mergen/sdk/error.hpp>

#include "request_names.hpp"

namespace mergen::engine {
namespace {

VmRecord sample() {
    VmRecord vm(RecordId::parse("web"), Uuid::parse("0a1b2c3d-4e5f-4a6b-8c7d-9e0f1a2b3c4d"));
    vm.name = "Web 1";
    vm.createdAt = SystemTime(std::chrono::milliseconds(1'795'000'000'123));
    vm.state = VmState::Stopping;
    vm.failure = "none";
    vm.operation = "stop";
    vm.operationId = "9e0f1a2b-4e5f-4a6b-8c7d-9e0f1a2b3c4d";
    vm.operationSince = vm.createdAt;
    vm.vmm = "qemu";
    vm.rootfs = "/images/root.ext4";
    vm.kernel = "/images/vmlinuz";
    vm.initrd = "/images/initrd.img";
    vm.dataDisk = "/images/data.ext4";
    vm.diskOwners = {{"data", {1000, 6, 0664, 12}}, {"logs", {1001, 7, 0600, 0xfffffffffffffffe}}};
    vm.vcpus = 2;
    vm.memory = MiB{256};
    vm.httpPort = 8080;
    vm.autoStart = true;
    vm.bootArguments = "console=ttyS0  quiet";
    vm.extraEnv = {{"A", "it's"}, {"B", ""}};
    vm.tags = {{"app", "shop"}};
    vm.metadata = R"({"owner":{"team":"a"},"n":3})";
    vm.hooks = R"({"onStart":[]})";
    vm.network = Ipv4Network::parse("172.30.0.0/16");
    vm.guest = Ipv4Address::parse("172.30.1.2");
    vm.mac = MacAddress::of(vm.uuid);
    vm.tap = "tap-0a1b2c3d";
    vm.netns = "mergen-0a1b2c3d";
    vm.further = {furtherNic(vm.uuid, 1, Ipv4Address::parse("172.30.1.3"))};
    vm.ports = {{20000, Protocol::Tcp, 80}, {20001, Protocol::Udp, 53}};
    vm.credentials = {1900000000, 1900000000};
    vm.bootId = "boot";
    vm.lastExit = ExitStatus{true, 9, vm.createdAt};
    vm.lastEnd = VmEnd{EndedBy::Mergen, vm.lastExit, "stop", vm.createdAt, "ended by stop"};
    vm.restartPolicy = RestartPolicy::OnFailure;
    vm.maxRestarts = 5;
    vm.onUnresponsive = OnUnresponsive::Restart;
    vm.restarts = 2;
    vm.restartsWithdrawn = true;
    const RateLimiter limit{.bandwidth = TokenBucket{1000, 10, std::chrono::milliseconds(100)},
                            .operations = TokenBucket{5, 0, std::chrono::milliseconds(1)}};
    vm.drives = {{.id = "rootfs", .path = {}, .readOnly = true, .limit = limit},
                 {.id = "tools", .path = "/images/tools.squashfs", .readOnly = true},
                 {.id = "logs", .path = "/images/logs.ext4", .cache = DiskCache::Unsafe, .engine = IoEngine::Async}};
    vm.nics = {{.id = "eth0", .receive = limit}, {.id = "eth1", .transmit = limit}};
    vm.options = {.smt = true,
                  .hugePages = HugePages::TwoMiB,
                  .cpuTemplate = "T2",
                  .vsock = VsockSpec{7},
                  .balloon = BalloonSpec{MiB{16}, true, std::chrono::seconds(2)},
                  .entropy = EntropySpec{limit},
                  .mmds = MmdsSpec{Ipv4Address::parse("169.254.1.2"), true, R"({"a":[1,"x"]})"},
                  .metrics = true};
    return vm;
}

EngineConfig config() {
    EngineConfig config;
    config.configRoot = "/c";
    config.dataRoot = "/d";
    config.runRoot = "/r";
    return config;
}

TEST(Documents, RecordReadsBackAsItWasWritten) {
    const VmRecord before = sample();
    const Record documents = toDocuments(config(), before);
    const VmRecord after = fromDocuments(documents);
    EXPECT_EQ(toDocuments(config(), after).documents, documents.documents);
    EXPECT_EQ(after.name, before.name);
    EXPECT_EQ(after.state, before.state);
    EXPECT_EQ(after.createdAt, before.createdAt);
    EXPECT_EQ(after.operationId, before.operationId);
    EXPECT_EQ(after.initrd, before.initrd);
    EXPECT_EQ(after.dataDisk, before.dataDisk);
    EXPECT_EQ(after.diskOwners, before.diskOwners);
    EXPECT_EQ(after.bootArguments, before.bootArguments);
    EXPECT_EQ(after.drives, before.drives);
    EXPECT_EQ(after.nics, before.nics);
    EXPECT_EQ(after.options, before.options);
    EXPECT_EQ(after.extraEnv, before.extraEnv);
    EXPECT_EQ(after.metadata, before.metadata);
    EXPECT_EQ(after.guest, before.guest);
    EXPECT_EQ(after.mac, before.mac);
    ASSERT_EQ(after.further.size(), 1U);
    EXPECT_EQ(after.further[0].tap, before.further[0].tap);
    EXPECT_EQ(after.further[0].mac, before.further[0].mac);
    EXPECT_EQ(after.further[0].guest, before.further[0].guest);
    EXPECT_EQ(after.ports, before.ports);
    EXPECT_EQ(after.credentials, before.credentials);
    EXPECT_EQ(after.lastExit, before.lastExit);
    ASSERT_TRUE(after.lastEnd);
    EXPECT_EQ(after.lastEnd->by, EndedBy::Mergen);
    EXPECT_EQ(after.lastEnd->exit, before.lastEnd->exit);
    EXPECT_EQ(after.restartPolicy, RestartPolicy::OnFailure);
    EXPECT_EQ(after.maxRestarts, 5U);
    EXPECT_EQ(after.onUnresponsive, OnUnresponsive::Restart);
    EXPECT_EQ(after.restarts, 2U);
    EXPECT_TRUE(after.restartsWithdrawn);
}

TEST(Documents, ARecordOfATimeBeforeRestartPoliciesHasNone) {
    Record documents = toDocuments(config(), sample());
    std::string& meta = documents.documents.at("meta.json");
    for (const std::string member :
         {"restartPolicy", "maxRestarts", "onUnresponsive", "restarts", "restartsWithdrawn"}) {
        const std::size_t at = meta.find("  \"" + member + "\"");
        ASSERT_NE(at, std::string::npos) << member;
        meta.erase(at, meta.find('\n', at) - at + 1);
    }
    const VmRecord record = fromDocuments(documents);
    EXPECT_EQ(record.restartPolicy, RestartPolicy::No);
    EXPECT_EQ(record.onUnresponsive, OnUnresponsive::Nothing);
    EXPECT_EQ(record.restarts, 0U);
    EXPECT_FALSE(record.restartsWithdrawn);
}

TEST(Documents, ARecordOfATimeBeforeFurtherCardsHasOne) {
    VmRecord before = sample();
    before.nics.clear();
    before.further.clear();
    const Record documents = toDocuments(config(), before);
    EXPECT_EQ(documents.documents.at("meta.json").find("furtherInterfaces"), std::string::npos);
    EXPECT_TRUE(fromDocuments(documents).further.empty());
}

TEST(Documents, FurtherCardsThatDoNotFitTheRecordAreRefused) {
    const std::string good = toDocuments(config(), sample()).documents.at("meta.json");
    struct Case {
        std::string from, to, says;
    };
    for (const Case& each :
         {Case{"\"172.30.1.3\"", "\"172.30.1.2\"", "is that of two network cards"},
          Case{"\"172.30.1.3\"", "\"10.0.0.3\"", "furtherInterfaces[0].guestIP"},
          Case{"\"02:fc:0a:1b:2c:02\"", "\"02:fc\"", "02:fc"}, Case{"\"tap1-0a1b2c3d\"", "\"../tap\"", "../tap"},
          Case{"\"furtherInterfaces\"", "\"others\"", "do not fit the 2 network cards"}}) {
        SCOPED_TRACE(each.to);
        std::string meta = good;
        const std::size_t at = meta.find(each.from);
        ASSERT_NE(at, std::string::npos);
        meta.replace(at, each.from.size(), each.to);
        try {
            static_cast<void>(fromDocuments(Record{RecordId::parse("web"), {{"meta.json", meta}}}));
            ADD_FAILURE() << "it was read";
        } catch (const Error& error) {
            EXPECT_EQ(error.kind(), ErrorKind::InvalidArgument);
            EXPECT_NE(std::string(error.what()).find(each.says), std::string::npos) << error.what();
        }
    }
}

TEST(Documents, AGuestHasItsCardsInTheirOrderEachWithItsLimits) {
    const VmRecord vm = sample();
    const GuestSpec guest = guestSpec(config(), vm, /*tap=*/true);
    ASSERT_EQ(guest.nics.size(), 2U);
    EXPECT_EQ(guest.nics[0].id, "eth0");
    EXPECT_EQ(guest.nics[0].tap.str(), vm.tap);
    EXPECT_EQ(guest.nics[0].receive, vm.nics[0].receive);
    EXPECT_EQ(guest.nics[0].transmit, RateLimiter{});
    EXPECT_EQ(guest.nics[1].id, "eth1");
    EXPECT_EQ(guest.nics[1].tap.str(), "tap1-0a1b2c3d");
    EXPECT_EQ(guest.nics[1].mac.str(), "02:fc:0a:1b:2c:02");
    EXPECT_EQ(guest.nics[1].receive, RateLimiter{});
    EXPECT_EQ(guest.nics[1].transmit, vm.nics[1].transmit);
    EXPECT_TRUE(guestSpec(config(), vm, /*tap=*/false).nics.empty());
    const NetworkSpec wire = networkSpec(config(), vm);
    ASSERT_EQ(wire.further.size(), 1U);
    EXPECT_EQ(wire.further[0].guest.str(), "172.30.1.3");
}

TEST(Documents, KernelIsToldOfFurtherCardsUnlessTheCallerDoes) {
    VmRecord vm = sample();
    vm.further.push_back(furtherNic(vm.uuid, 2, Ipv4Address::parse("172.30.1.9")));
    vm.bootArguments = "quiet";
    EXPECT_EQ(
        bootArguments(config(), vm),
        "quiet ip=172.30.1.2::172.30.0.1:255.255.0.0::eth0:off mergen.ip1=172.30.1.3/16 mergen.ip2=172.30.1.9/16");
    vm.bootArguments = "ip=off mergen.ip1=none";
    EXPECT_EQ(bootArguments(config(), vm), "ip=off mergen.ip1=none mergen.ip2=172.30.1.9/16");
}

TEST(Documents, EnvHasFurtherCardsAndTellsThemOfARecordThatCannotBeRead) {
    VmRecord vm = sample();
    vm.further.push_back(furtherNic(vm.uuid, 2, Ipv4Address::parse("172.30.1.9")));
    Record documents = toDocuments(config(), vm);
    std::string& env = documents.documents.at("env");
    EXPECT_NE(env.find("MGN_GUEST_IP='172.30.1.2'\nMGN_GUEST_IP_1='172.30.1.3'\nMGN_GUEST_IP_2='172.30.1.9'\n"),
              std::string::npos)
        << env;
    EXPECT_NE(env.find("MGN_TAP_NAME_1='tap1-0a1b2c3d'\n"), std::string::npos) << env;
    env +=
        "MGN_GUEST_IP_0='172.30.1.77'\nMGN_GUEST_IP_9='172.30.1.77'\nMGN_GUEST_IP_3x='172.30.1.77'\n"
        "MGN_GUEST_IP_3='nonsense'\n";
    VmRecord found(vm.id, vm.uuid);
    salvage(documents, found);
    ASSERT_EQ(found.further.size(), 2U);
    EXPECT_EQ(found.further[0].guest.str(), "172.30.1.3");
    EXPECT_EQ(found.further[1].guest.str(), "172.30.1.9");
    EXPECT_EQ(found.further[1].mac, vm.further[1].mac);
}

TEST(Documents, EnvIsSortedAndQuotedSoThatAShellReadsItBack) {
    const std::string env = toDocuments(config(), sample()).documents.at("env");
    EXPECT_NE(env.find("A='it'\\''s'\nB=''\nMGN_CONFIG_DIR='/c/web'\n"), std::string::npos) << env;
    EXPECT_NE(env.find("MGN_HTTP_PORT='8080'\n"), std::string::npos);
    EXPECT_NE(env.find("MGN_PUBLISH_53='20001/udp'\nMGN_PUBLISH_80='20000/tcp'\n"), std::string::npos) << env;
    EXPECT_NE(env.find("MGN_SOCKET_PATH='/r/0a1b2c3d-4e5f-4a6b-8c7d-9e0f1a2b3c4d/mergen.socket'\n"), std::string::npos);
    for (const char* key : {"MGN_VM_ID", "MGN_VM_JSON", "MGN_META_JSON", "MGN_HOOKS_JSON", "MGN_RUN_DIR",
                            "MGN_TAP_NAME", "MGN_NETNS", "MGN_GUEST_IP", "MGN_DATA_DIR", "MGN_LOG_DIR"}) {
        EXPECT_NE(env.find(std::string(key) + "='"), std::string::npos) << key;
    }
}

TEST(Documents, MetaHasEveryMemberOfMergenFire) {
    const auto meta = json::parseObject(toDocuments(config(), sample()).documents.at("meta.json"));
    for (const char* name : {"id", "createdAt", "rootfs", "kernel", "dataDisk", "ports", "httpPort", "guestIP",
                             "tapName", "netns", "metadata", "tags", "paths", "hooks"}) {
        EXPECT_TRUE(meta->has(name)) << name;
    }
    const auto port = meta->getArray("ports")->getObject(0);
    EXPECT_EQ(port->getValue<int>("guest"), 80);
    EXPECT_EQ(port->getValue<int>("host"), 20000);
    EXPECT_EQ(port->getValue<std::string>("protocol"), "tcp");
    for (const char* name : {"configDir", "vmConfigPath", "metaPath", "hooksPath", "envPath", "runDir", "socketPath",
                             "lockPath", "dataDir", "logsDir"}) {
        EXPECT_TRUE(meta->getObject("paths")->has(name)) << name;
    }
}

TEST(Documents, HooksHaveADocumentOnlyIfThereAreAny) {
    VmRecord vm = sample();
    EXPECT_TRUE(toDocuments(config(), vm).documents.contains("hooks.json"));
    vm.hooks.clear();
    EXPECT_FALSE(toDocuments(config(), vm).documents.contains("hooks.json"));
}

TEST(Documents, VmConfigIsWhatFirecrackerReads) {
    const auto whole = json::parseObject(toDocuments(config(), sample()).documents.at("vm.json"));
    EXPECT_EQ(whole->getObject("boot-source")->getValue<std::string>("kernel_image_path"), "/d/web/kernel");
    EXPECT_EQ(whole->getObject("boot-source")->getValue<std::string>("initrd_path"), "/d/web/initrd") << "its own copy";
    EXPECT_EQ(whole->getObject("machine-config")->getValue<int>("vcpu_count"), 2);
    EXPECT_TRUE(whole->getObject("machine-config")->getValue<bool>("smt"));
    EXPECT_EQ(whole->getObject("vsock")->getValue<std::string>("uds_path"),
              "/r/0a1b2c3d-4e5f-4a6b-8c7d-9e0f1a2b3c4d/vsock.sock");
    EXPECT_TRUE(whole->getArray("drives")->getObject(0)->getValue<bool>("is_read_only"));
    const auto drives = whole->getArray("drives");
    ASSERT_EQ(drives->size(), 4U);
    EXPECT_EQ(drives->getObject(0)->getValue<std::string>("drive_id"), "rootfs");
    EXPECT_TRUE(drives->getObject(0)->getValue<bool>("is_root_device"));
    EXPECT_EQ(drives->getObject(1)->getValue<std::string>("path_on_host"), "/images/data.ext4");
    EXPECT_EQ(drives->getObject(2)->getValue<std::string>("path_on_host"), "/d/web/drives/tools") << "its own copy";
    EXPECT_TRUE(drives->getObject(2)->getValue<bool>("is_read_only"));
    EXPECT_EQ(drives->getObject(3)->getValue<std::string>("drive_id"), "logs");
    EXPECT_EQ(drives->getObject(3)->getValue<std::string>("path_on_host"), "/images/logs.ext4") << "used in place";
    const auto nic = whole->getArray("network-interfaces")->getObject(0);
    EXPECT_EQ(nic->getValue<std::string>("iface_id"), "eth0");
    EXPECT_EQ(nic->getValue<std::string>("guest_mac"), "02:fc:0a:1b:2c:01");
}

TEST(Documents, WhatAVmDoesNotHaveIsNotInThem) {
    VmRecord vm = sample();
    vm.initrd.reset();
    vm.dataDisk.reset();
    vm.diskOwners.clear();
    const Record documents = toDocuments(config(), vm);
    EXPECT_EQ(documents.documents.at("meta.json").find("initrd"), std::string::npos);
    EXPECT_EQ(documents.documents.at("meta.json").find("dataDisk"), std::string::npos);
    EXPECT_EQ(documents.documents.at("vm.json").find("initrd"), std::string::npos);
    EXPECT_FALSE(guestSpec(config(), fromDocuments(documents), true).initrd.has_value());
}

TEST(Documents, ARecordOfAServerThatKnewOneBorrowedDiskIsRead) {
    VmRecord vm = sample();
    vm.diskOwners.clear();
    Record documents = toDocuments(config(), vm);
    std::string& meta = documents.documents.at("meta.json");
    meta.insert(meta.find('{') + 1, R"("dataDiskOwner": {"uid": 1000, "gid": 6, "mode": 436},)");
    const std::map<std::string, DiskOwner> expected{{"data", {1000, 6, 0664}}};
    EXPECT_EQ(fromDocuments(documents).diskOwners, expected);
}

TEST(Documents, AnInodeThatIsNoNumberIsRefusedByItsName) {
    Record documents = toDocuments(config(), sample());
    std::string& meta = documents.documents.at("meta.json");
    const std::string inode = "18446744073709551614";  // of the drive "logs"
    meta.replace(meta.find(inode), inode.size(), "18446744073709551616");
    try {
        static_cast<void>(fromDocuments(documents));
        ADD_FAILURE() << "read";
    } catch (const Error& error) {
        EXPECT_NE(std::string(error.what()).find("diskOwners.logs.inode"), std::string::npos) << error.what();
    }
}

TEST(BootArguments, AreTheDefaultOnesWithTheGuestsAddress) {
    VmRecord vm = sample();
    vm.further.clear();
    vm.bootArguments.reset();
    // The mask is that of the network, not always a /24 (W14).
    EXPECT_EQ(bootArguments(config(), vm),
              "console=ttyS0 reboot=k panic=1 pci=off ip=172.30.1.2::172.30.0.1:255.255.0.0::eth0:off");
}

TEST(BootArguments, KeepTheCallersAddressAndNormaliseBlanks) {
    VmRecord vm = sample();
    vm.further.clear();
    vm.bootArguments = "  console=ttyS0\t ip=10.0.0.2::10.0.0.1:255.255.255.0::eth0:off  ";
    EXPECT_EQ(bootArguments(config(), vm), "console=ttyS0 ip=10.0.0.2::10.0.0.1:255.255.255.0::eth0:off");
    vm.bootArguments = "quiet";
    EXPECT_EQ(bootArguments(config(), vm), "quiet ip=172.30.1.2::172.30.0.1:255.255.0.0::eth0:off");
}

TEST(BootArguments, TellTheGuestOfNameServersOnlyWhereThereAreAny) {
    VmRecord vm = sample();
    vm.further.clear();
    vm.bootArguments = "quiet";
    EngineConfig told = config();
    told.guestSettings.dns = {Ipv4Address::parse("9.9.9.9"), Ipv4Address::parse("1.1.1.1")};
    EXPECT_EQ(bootArguments(told, vm), "quiet ip=172.30.1.2::172.30.0.1:255.255.0.0::eth0:off:9.9.9.9:1.1.1.1");
    vm.bootArguments = "ip=off";
    EXPECT_EQ(bootArguments(told, vm), "ip=off");
}

TEST(GuestOfARecord, HasTheMtuOfItsWire) {
    EngineConfig told = config();
    EXPECT_EQ(guestSpec(told, sample(), /*tap=*/true).nics.at(0).mtu, 0U);
    told.guestSettings.mtu = 1400;
    EXPECT_EQ(guestSpec(told, sample(), /*tap=*/true).nics.at(0).mtu, 1400U);
}

TEST(Documents, EveryTruncationOfTheRecordIsRefusedAndNoneCrashes) {
    Record documents = toDocuments(config(), sample());
    const std::string whole = documents.documents["meta.json"];
    for (std::size_t length = 0; length + 2 < whole.size(); ++length) {
        documents.documents["meta.json"] = whole.substr(0, length);
        EXPECT_THROW(static_cast<void>(fromDocuments(documents)), Error) << length;
    }
}

TEST(Documents, ARecordThatLiesIsRefusedWithTheReason) {
    const auto with = [](const std::string& from, const std::string& to) {
        Record documents = toDocuments(config(), sample());
        std::string& meta = documents.documents["meta.json"];
        const auto at = meta.find(from);
        EXPECT_NE(at, std::string::npos) << from;
        meta.replace(at, from.size(), to);
        try {
            static_cast<void>(fromDocuments(documents));
        } catch (const Error& error) {
            return std::string(error.what());
        }
        return std::string("accepted");
    };
    EXPECT_NE(with(R"("id": "web")", R"("id": "other")").find("'other'"), std::string::npos);
    EXPECT_NE(with(R"("format": 1)", R"("format": 2)").find("newer Mergen"), std::string::npos);
    EXPECT_NE(with(R"("state": "stopping")", R"("state": "corrupt")").find("not known"), std::string::npos);
    EXPECT_NE(with(R"("guestIP": "172.30.1.2")", R"("guestIP": "10.0.0.1")").find("not in"), std::string::npos);
    EXPECT_NE(with(R"("host": 20000)", R"("host": 0)").find("host"), std::string::npos);
    EXPECT_NE(with(R"("tapName": "tap-0a1b2c3d")", R"("tapName": "a/../../b")").find("interface name"),
              std::string::npos);
}

TEST(RequestNames, AreThoseOfTheMemberThatIsMeant) {
    const std::pair<const char*, const char*> names[] = {
        {"vcpus", "vcpu"},
        {"mmds.content", "mmds.data"},
        {"disks", "drives"},
        {"disks[0].limit", "drives[0].rateLimiter"},
        {"disks[1].file", "dataDisk"},
        {"disks[2].readOnly", "drives[1].isReadOnly"},
        {"nics[1].transmit", "networkInterfaces[1].txRateLimiter"},
        {"nics[1].mtu", "networkInterfaces"},
    };
    for (const auto& [field, member] : names) {
        const Error error = inRequestWords(Error(ErrorKind::NotSupported, "no").about(field), sample());
        EXPECT_EQ(error.field(), member);
    }
}

}  // namespace
}  // namespace mergen::engine
