"""What a request says of a guest, as a real Firecracker has it: by the exported file, and changed while the guest runs or is
paused. It is Firecracker's own answer that counts."""

import json
import os
import shutil
import subprocess

from real_firecracker import OnARealFirecracker
from test_configuration import EVERYTHING, LIMIT, REAL_LIMIT
from waiting import read_until

OTHER, REAL_OTHER = {"ops": {"size": 5, "refillTime": 10}}, {"bandwidth": None,
                                                             "ops": {"size": 5, "one_time_burst": None, "refill_time": 10}}


class Exported(OnARealFirecracker):
    """`firecracker --config-file` with what GET /v1/vms/{id}/vmm-config gave, without Mergen beside it."""

    def run_exported(self, vm, ready):
        """Runs it until the guest, or Firecracker, prints `ready`; and gives what was printed. Its taps are made for the
        occasion, as root may."""
        view = vm.view()
        os.makedirs(view["paths"]["runDir"])
        file = os.path.join(view["paths"]["runDir"], "exported.json")
        with open(file, "w", encoding="utf-8") as out:
            json.dump(self.server.api.get(f"{vm.path}/vmm-config"), out)
        process = subprocess.Popen([self.program, "--no-api", "--config-file", file], stdout=subprocess.PIPE,
                                   stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, bufsize=0)
        try:
            return read_until(ready, process.stdout, "Firecracker with the exported file")
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
            shutil.rmtree(view["paths"]["runDir"])

    def test_it_brings_the_guest_up(self):
        vm = self.create()
        printed = self.run_exported(vm, "tiny: ready")
        self.assertIn(f" ip={vm.address()}::", printed)
        self.assertIn("tiny: 1 cards, 1 disks", printed)
        vm.delete()

    def test_it_brings_the_guest_up_with_all_that_a_request_may_say(self):
        vm = self.create(**EVERYTHING, memMiB=192)
        printed = self.run_exported(vm, "tiny: ready")
        self.assertIn("tiny: 1 cards, 1 disks", printed)
        vm.delete()


class Changes(OnARealFirecracker):
    def create_with_all(self):
        members = {**EVERYTHING, "machineConfig": {"vcpuCount": 1, "memSizeMib": 192}}
        return self.create_and_start(**members, memMiB=192)

    def change(self, vm, status=200, **members):
        return self.assert_status(status, "PATCH", vm.path, members)

    def assert_told(self, vm, drive, receive, transmit, interval, name):
        told = vm.told()
        self.assertEqual(told["drives"][0]["rate_limiter"], drive)
        card = told["network-interfaces"][0]
        self.assertEqual((card["rx_rate_limiter"], card["tx_rate_limiter"]), (receive, transmit))
        self.assertEqual(told["balloon"]["stats_polling_interval_s"], interval)
        self.assertEqual(vm.told("/mmds"), {"name": name})

    def test_a_start_tells_it_all(self):
        vm = self.create_with_all()
        told = vm.told()
        self.assert_told(vm, REAL_LIMIT, REAL_LIMIT, None, 1, "a")
        self.assertEqual(told["drives"][0]["io_engine"], "Async")
        self.assertEqual(told["entropy"], {"rate_limiter": REAL_LIMIT})
        self.assertEqual((told["balloon"]["amount_mib"], told["balloon"]["deflate_on_oom"]), (16, True))
        self.assertEqual(told["vsock"]["guest_cid"], 7)
        self.assertEqual((told["mmds-config"]["version"], told["mmds-config"]["ipv4_address"]), ("V2", "169.254.1.2"))
        self.assertEqual(told["machine-config"]["mem_size_mib"], 192)
        vm.delete()

    def assert_changes(self, vm):
        self.change(vm, drives=[{"driveId": "rootfs", "rateLimiter": OTHER}],
                    networkInterfaces=[{"ifaceId": "eth0", "rxRateLimiter": {}, "txRateLimiter": LIMIT}],
                    balloon={"statsPollingIntervalS": 2}, mmds={"data": {"name": "b"}})
        self.assert_told(vm, REAL_OTHER, None, REAL_LIMIT, 2, "b")

    def test_a_guest_that_runs_is_changed_at_once_and_starts_so_again(self):
        vm = self.create_with_all()
        self.assert_changes(vm)
        vm.await_page()
        vm.stop()
        vm.start()
        self.assert_told(vm, REAL_OTHER, None, REAL_LIMIT, 2, "b")
        vm.delete()

    def test_a_paused_guest_is_changed_and_stays_paused(self):
        vm = self.create_with_all()
        vm.await_page()
        self.assert_status(200, "POST", f"{vm.path}/pause")
        self.assert_changes(vm)
        self.assertEqual((vm.state(), vm.told("/")["state"]), ("paused", "Paused"))
        self.assert_status(200, "POST", f"{vm.path}/resume")
        self.assertTrue(vm.await_page())
        self.assert_told(vm, REAL_OTHER, None, REAL_LIMIT, 2, "b")
        vm.delete()

    def test_a_balloon_that_the_guest_has_not_taken_is_refused_and_nothing_is_changed(self):
        vm = self.create_with_all()
        reply = self.change(vm, 409, drives=[{"driveId": "rootfs", "rateLimiter": OTHER}], balloon={"amountMib": 64},
                            mmds={"data": {"name": "b"}})
        self.assertIn("Device not activated yet", reply.json["detail"])
        self.assert_told(vm, REAL_LIMIT, REAL_LIMIT, None, 1, "a")
        self.assertEqual((vm.told()["balloon"]["amount_mib"], vm.view()["balloon"]["amountMib"]), (16, 16))
        self.assertEqual(vm.state(), "running")
        vm.delete()


class ChangesInAJail(Changes):
    jailer = "auto"


class Limits(OnARealFirecracker):
    """Firecracker counts what a limit held back; no clock is read."""

    def throttled(self, vm, device, counter, traffic):
        """What is counted while there is traffic, from now until there is something."""
        self.assert_status(200, "GET", f"{vm.path}/metrics")
        for _ in range(20):
            traffic()
            counted = self.assert_status(200, "GET", f"{vm.path}/metrics").json[device][counter]
            if counted > 0:
                return counted
        return 0

    def test_a_disk_is_held_back_by_its_limit_and_not_without(self):
        vm = self.create_and_start(metrics=True)
        vm.await_page()

        def write():
            self.assertEqual(vm.fetch("/disk/0/write?kept", timeout=60), "disk 0: written\n")

        def limit(**limiter):
            self.assert_status(200, "PATCH", vm.path, {"drives": [{"driveId": "rootfs", "rateLimiter": limiter}]})

        self.assertEqual(self.throttled(vm, "block", "rate_limiter_throttled_events", write), 0)
        limit(ops={"size": 1, "refillTime": 200})
        self.assertGreater(self.throttled(vm, "block", "rate_limiter_throttled_events", write), 0)
        vm.delete()

    def test_a_card_is_held_back_by_its_limit_and_not_without(self):
        vm = self.create_and_start(metrics=True)
        vm.await_page()

        def fetch():
            self.assertIn("tiny guest", vm.fetch(timeout=60))

        self.assertEqual(self.throttled(vm, "net", "tx_rate_limiter_throttled", fetch), 0)
        self.assert_status(200, "PATCH", vm.path, {"networkInterfaces": [
            {"ifaceId": "eth0", "txRateLimiter": {"ops": {"size": 1, "refillTime": 200}}}]})
        self.assertGreater(self.throttled(vm, "net", "tx_rate_limiter_throttled", fetch), 0)
        vm.delete()
