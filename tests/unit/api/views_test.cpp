#include "views.hpp"

#include <gtest/gtest.h>

#include <mergen/base/json.hpp>

#include "fake_service.hpp"

namespace mergen::api {
namespace {

Poco::JSON::Object::Ptr summaryOf(const engine::VmView& vm, const std::string& unitPrefix) {
    return json::parseObject(summary(vm, unitPrefix));
}

TEST(ApiViews, ASummaryHasEveryMemberOfMergenFireAndOurs) {
    EXPECT_EQ(json::render(*summaryOf(test::sampleVm("web"), "fc"), 2), R"({
  "id": "web",
  "uuid": "7f3a9c01-1b2c-4d3e-8f40-0123456789ab",
  "name": "web 1",
  "createdAt": "2026-11-22T04:52:00.123Z",
  "state": "failed",
  "failure": "the VMM ended with exit status 1",
  "lastExit": {
    "signalled": true,
    "code": 9,
    "at": "2026-11-22T05:00:00.000Z"
  },
  "lastEnd": {
    "by": "mergen",
    "status": null,
    "signal": 9,
    "operation": "stop",
    "at": "2026-11-22T05:00:00.000Z",
    "detail": "ended by stop"
  },
  "unresponsive": {
    "since": "2026-11-22T04:58:00.000Z",
    "cause": "no answer within 2000 ms"
  },
  "restarts": 2,
  "operation": {
    "name": "start",
    "id": "op-1",
    "since": "2026-11-22T05:00:01.000Z"
  },
  "vmm": "qemu",
  "vcpu": 2,
  "memMiB": 256,
  "rootfs": "/srv/rootfs.ext4",
  "kernel": "/srv/vmlinux",
  "initrd": "/srv/initrd.img",
  "dataDisk": "/srv/data.img",
  "bootArgs": "console=ttyS0",
  "httpPort": 80,
  "autoStart": true,
  "restartPolicy": "on-failure",
  "maxRestarts": 5,
  "onUnresponsive": "restart",
  "machineConfig": {
    "vcpuCount": 2,
    "memSizeMib": 256,
    "smt": false,
    "hugePages": "2M",
    "cpuTemplate": "None"
  },
  "drives": [
    {
      "driveId": "rootfs",
      "isRootDevice": true,
      "isReadOnly": true,
      "cacheType": "Writeback",
      "ioEngine": "Async",
      "rateLimiter": {
        "bandwidth": {
          "size": 1000,
          "oneTimeBurst": 10,
          "refillTime": 100
        }
      }
    }
  ],
  "networkInterfaces": [
    {
      "ifaceId": "eth0"
    }
  ],
  "vsock": {
    "guestCid": 7,
    "udsPath": "/run/firecracker/web/vsock.sock"
  },
  "balloon": {
    "amountMib": 64,
    "deflateOnOom": true,
    "statsPollingIntervalS": 0
  },
  "entropy": {},
  "mmds": {
    "ipv4Address": "169.254.169.254",
    "imdsCompat": false
  },
  "metrics": true,
  "systemd": {
    "available": false,
    "unit": "fc@web.service",
    "active": false,
    "activeState": "inactive",
    "subState": "dead",
    "mainPID": 4711
  },
  "firecracker": {
    "socketPath": "/run/firecracker/web/mergen.socket",
    "socketPresent": true
  },
  "network": {
    "guestIP": "172.30.0.2",
    "ports": [
      {
        "guest": 80,
        "host": 20000,
        "protocol": "tcp"
      },
      {
        "guest": 53,
        "host": 20001,
        "protocol": "udp"
      }
    ],
    "tapName": "tap-7f3a9c01",
    "netns": "mergen-7f3a9c01",
    "mac": "02:fc:7f:3a:9c:01",
    "interfaces": [
      {
        "ifaceId": "eth0",
        "guestIP": "172.30.0.2",
        "mac": "02:fc:7f:3a:9c:01",
        "tapName": "tap-7f3a9c01"
      },
      {
        "ifaceId": "eth1",
        "guestIP": "172.30.0.3",
        "mac": "02:fc:7f:3a:9c:02",
        "tapName": "tap1-7f3a9c01"
      }
    ]
  },
  "paths": {
    "configDir": "/etc/firecracker/vm.d/web",
    "vmConfigPath": "/etc/firecracker/vm.d/web/vm.json",
    "metaPath": "/etc/firecracker/vm.d/web/meta.json",
    "hooksPath": "/etc/firecracker/vm.d/web/hooks.json",
    "envPath": "/etc/firecracker/vm.d/web/env",
    "runDir": "/run/firecracker/web",
    "socketPath": "/run/firecracker/web/mergen.socket",
    "lockPath": "/run/firecracker/web.lock",
    "dataDir": "/var/lib/firecracker/web",
    "logsDir": "/var/lib/firecracker/web/logs"
  },
  "tags": {
    "app": "web"
  },
  "metadata": {
    "owner": {
      "team": "a"
    },
    "n": 1
  }
}
)");
}

TEST(ApiViews, WhatAVmDoesNotHaveIsNullOrEmptyAndNeverMissing) {
    const auto body = summaryOf(engine::VmView{}, "fc");
    for (const char* member : {"failure", "lastExit", "lastEnd", "unresponsive", "operation", "dataDisk", "vsock",
                               "balloon", "entropy", "mmds"})
        EXPECT_TRUE(body->isNull(member)) << member;
    EXPECT_EQ(json::render(*body->getObject("metadata")), "{}");
    EXPECT_EQ(json::render(*body->getObject("tags")), "{}");
    EXPECT_EQ(json::render(*body->getObject("network")->getArray("ports")), "[]");
    EXPECT_EQ(body->getNames(), summaryOf(test::sampleVm("a"), "fc")->getNames());
}

TEST(ApiViews, NothingOfTheEnvironmentIsShown) {
    EXPECT_EQ(json::render(*summaryOf(test::sampleVm("a"), "fc")).find("s3cret"), std::string::npos);
}

TEST(ApiViews, BrokenMetadataDoesNotHideTheVm) {
    engine::VmView vm = test::sampleVm("a");
    vm.metadata = "{broken";
    EXPECT_EQ(json::render(*summaryOf(vm, "fc")->getObject("metadata")), "{}");
}

TEST(ApiViews, AnEventTellsStepOutcomeAndCause) {
    engine::Event event;
    event.sequence = 7;
    event.vm = "a";
    event.operation = "start";
    event.operationId = "op";
    event.step = "network";
    event.outcome = "failed";
    event.duration = std::chrono::microseconds(1500);
    event.cause = "no tap";
    event.by = "token:ci";
    EXPECT_EQ(json::render(*eventView(event)),
              R"({"sequence":7,"at":"1970-01-01T00:00:00.000Z","vm":"a","operation":"start","operationId":"op",)"
              R"("step":"network","outcome":"failed","durationUs":1500,"cause":"no tap","by":"token:ci"})");
}

}  // namespace
}  // namespace mergen::api
