"""All that a request may say of a guest, as Firecracker gets it: at the start, in the exported file, and changed later. On
the fake Firecracker."""

import http.client
import json
import os
import socket
import stat

import harness
from harness import CrashTest, MergenTest
from test_firecracker import OnTheFake

LIMIT = {"bandwidth": {"size": 1000000, "oneTimeBurst": 10, "refillTime": 100}}
REAL_LIMIT = {"bandwidth": {"size": 1000000, "one_time_burst": 10, "refill_time": 100}, "ops": None}
EVERYTHING = {
    "machineConfig": {"vcpuCount": 2, "memSizeMib": 192, "smt": True},
    "drives": [{"driveId": "rootfs", "ioEngine": "Async", "rateLimiter": LIMIT}],
    "networkInterfaces": [{"ifaceId": "eth0", "rxRateLimiter": LIMIT}],
    "vsock": {"guestCid": 7},
    "balloon": {"amountMib": 16, "deflateOnOom": True, "statsPollingIntervalS": 1},
    "entropy": {"rateLimiter": LIMIT},
    "mmds": {"data": {"name": "a"}, "ipv4Address": "169.254.1.2"},
    "metrics": True,
}


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=20)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Told(OnTheFake):
    """What Firecracker itself says that it has."""

    def told(self, vm, path="/vm/config"):
        connection = UnixConnection(vm.view()["firecracker"]["socketPath"])
        connection.request("GET", path)
        answer = json.loads(connection.getresponse().read())
        connection.close()
        return answer

    def make(self, **members):
        body = self.body(**{**EVERYTHING, **members})
        del body["memMiB"]
        return body

    def create_with_all(self, **members):
        reply = self.assert_status(201, "POST", "/v1/vms", self.make(**members))
        return harness.Vm(self, reply.json["id"])


class Start(Told):
    def test_everything_reaches_firecracker(self):
        vm = self.create_with_all()
        vm.start()
        told = self.told(vm)
        self.assertEqual(told["machine-config"]["vcpu_count"], 2)
        self.assertTrue(told["machine-config"]["smt"])
        self.assertEqual(told["drives"][0]["rate_limiter"], REAL_LIMIT)
        self.assertEqual(told["drives"][0]["io_engine"], "Async")
        self.assertEqual(told["network-interfaces"][0]["rx_rate_limiter"], REAL_LIMIT)
        self.assertIsNone(told["network-interfaces"][0]["tx_rate_limiter"])
        self.assertEqual(told["balloon"]["amount_mib"], 16)
        self.assertEqual(told["entropy"], {"rate_limiter": REAL_LIMIT})
        self.assertEqual(told["mmds-config"]["version"], "V2")
        self.assertEqual(told["mmds-config"]["ipv4_address"], "169.254.1.2")
        self.assertEqual(self.told(vm, "/mmds"), {"name": "a"})
        view = vm.view()
        self.assertEqual(told["vsock"], {"guest_cid": 7, "uds_path": view["vsock"]["udsPath"]})
        self.assertTrue(stat.S_ISSOCK(os.stat(view["vsock"]["udsPath"]).st_mode))
        self.assertNotIn("data", view["mmds"])
        self.assertEqual(view["machineConfig"]["memSizeMib"], 192)
        run = view["paths"]["runDir"]
        pipe = os.stat(os.path.join(run, "metrics.fifo"))
        self.assertTrue(stat.S_ISFIFO(pipe.st_mode))
        self.assertEqual(stat.S_IMODE(pipe.st_mode), 0o600)
        self.assertEqual(stat.S_IMODE(os.stat(os.path.join(run, "metadata.json")).st_mode), 0o400)

    def test_it_starts_again_although_sockets_of_the_last_run_lie_there(self):
        vm = self.create_with_all()
        vm.start()
        path = vm.view()["vsock"]["udsPath"]
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path + "_52")
        vm.stop()
        self.assertFalse(os.path.exists(path) or os.path.exists(path + "_52"))
        listener.close()
        vm.start()
        self.assertTrue(os.path.exists(path))

    def test_metrics_are_read(self):
        vm = self.create_with_all()
        self.assert_status(409, "GET", f"{vm.path}/metrics")
        vm.start()
        for _ in range(3):
            self.assertIn("vmm", self.assert_status(200, "GET", f"{vm.path}/metrics").json)
        self.assert_status(404, "GET", "/v1/vms/nobody/metrics")
        without = self.create()
        self.assert_status(501, "GET", f"{without.path}/metrics")


class Change(Told):
    def change(self, vm, status=200, **members):
        return self.assert_status(status, "PATCH", vm.path, members)

    def test_a_guest_that_runs_is_changed_at_once_and_stays_so(self):
        vm = self.create_with_all()
        vm.start()
        self.change(vm, drives=[{"driveId": "rootfs", "rateLimiter": {"ops": {"size": 5, "refillTime": 10}}}],
                    networkInterfaces=[{"ifaceId": "eth0", "rxRateLimiter": {}, "txRateLimiter": LIMIT}],
                    balloon={"amountMib": 32, "statsPollingIntervalS": 2}, mmds={"data": {"name": "b"}})

        def assert_changed():
            told = self.told(vm)
            self.assertEqual(told["drives"][0]["rate_limiter"],
                             {"bandwidth": None, "ops": {"size": 5, "one_time_burst": None, "refill_time": 10}})
            self.assertIsNone(told["network-interfaces"][0]["rx_rate_limiter"])
            self.assertEqual(told["network-interfaces"][0]["tx_rate_limiter"], REAL_LIMIT)
            self.assertEqual(told["balloon"]["amount_mib"], 32)
            self.assertEqual(told["balloon"]["stats_polling_interval_s"], 2)
            self.assertEqual(self.told(vm, "/mmds"), {"name": "b"})

        assert_changed()
        vm.stop()
        vm.start()
        assert_changed()

    def test_a_guest_that_does_not_run_starts_changed(self):
        vm = self.create_with_all()
        self.change(vm, balloon={"amountMib": 64})
        self.assertEqual(vm.view()["balloon"]["amountMib"], 64)
        vm.start()
        self.assertEqual(self.told(vm)["balloon"]["amount_mib"], 64)

    def test_a_paused_guest_is_changed_and_stays_paused(self):
        vm = self.create_with_all()
        vm.start()
        self.assert_status(200, "POST", f"{vm.path}/pause")
        self.change(vm, balloon={"amountMib": 64})
        self.assertEqual(vm.state(), "paused")
        self.assertEqual(self.told(vm)["balloon"]["amount_mib"], 64)

    def test_what_firecracker_refuses_changes_nothing(self):
        vm = self.create_with_all()
        vm.start()
        reply = self.change(vm, 409, drives=[{"driveId": "rootfs", "rateLimiter": {}}],
                            balloon={"statsPollingIntervalS": 0})
        self.assertIn("cannot be enabled/disabled", reply.json["detail"])
        self.assertEqual(self.told(vm)["drives"][0]["rate_limiter"], REAL_LIMIT)
        self.assertEqual(vm.view()["balloon"]["statsPollingIntervalS"], 1)
        self.assertEqual(vm.state(), "running")

    def test_what_a_vm_has_not_is_refused_by_its_member(self):
        vm = self.create()
        for members, field in (({"drives": [{"driveId": "data"}]}, "drives[0].driveId"),
                               ({"networkInterfaces": [{"ifaceId": "eth1"}]}, "networkInterfaces[0].ifaceId"),
                               ({"balloon": {"amountMib": 1}}, "balloon"), ({"mmds": {"data": {}}}, "mmds"),
                               ({"vcpu": 2}, "vcpu")):
            self.assertEqual(self.change(vm, 400, **members).json["field"], field)
        self.change(vm, 400, drives=[{"driveId": "rootfs", "pathOnHost": "/other"}])
        self.assert_status(404, "PATCH", "/v1/vms/nobody", {})


class UnderQemu(MergenTest):
    def test_what_it_has_not_is_refused_by_its_member(self):
        for member, value, field in (("vsock", {}, "vsock"), ("balloon", {}, "balloon"), ("entropy", {}, "entropy"),
                                     ("mmds", {}, "mmds"), ("metrics", True, "metrics"),
                                     ("machineConfig", {"smt": True}, "machineConfig.smt"),
                                     ("machineConfig", {"cpuTemplate": "T2"}, "machineConfig.cpuTemplate"),
                                     ("drives", EVERYTHING["drives"][:1], "drives[0].rateLimiter"),
                                     ("networkInterfaces", EVERYTHING["networkInterfaces"],
                                      "networkInterfaces[0].rxRateLimiter")):
            reply = self.assert_status(400, "POST", "/v1/vms", self.body(**{member: value}))
            self.assertEqual(reply.json["field"], field)
        self.assertEqual(self.server.api.list(), [])


class ServerDeath(Told, CrashTest):
    """The server dies while a guest is changed: it is what its record says, whichever that is."""

    def changed(self, point):
        vm = self.create_with_all()
        vm.start()
        self.crash(point, "PATCH", vm.path, {"balloon": {"amountMib": 64}, "mmds": {"data": {"name": "b"}}})
        self.assertEqual(vm.state(), "running")
        told = self.told(vm)["balloon"]["amount_mib"]
        self.assertEqual(told, vm.view()["balloon"]["amountMib"])
        self.assertEqual(self.told(vm, "/mmds"), {"name": "a" if told == 16 else "b"})
        return told

    def test_before_the_guest_is_changed_it_stays_as_it_was(self):
        self.assertEqual(self.changed("engine.change.intent.after"), 16)

    def test_after_the_guest_is_changed_that_is_taken_back(self):
        self.assertEqual(self.changed("engine.change.guest.after"), 16)

    def test_after_the_record_is_changed_it_stays_changed(self):
        self.assertEqual(self.changed("engine.change.commit.after"), 64)
