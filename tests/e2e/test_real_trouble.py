"""A real Firecracker in trouble: the server dies in the midst of a start, disks are bad or full, a guest prints without
end, or ends at once. Nothing is left over, and the server goes on."""

import os
import subprocess

from harness import CrashTest
from real_firecracker import OnARealFirecracker
from small_data_root import JailWithoutRoom, SmallDataRoot
from waiting import eventually

LIMIT = 64 << 10  # of the console


class ServerDeath(OnARealFirecracker, CrashTest):
    """The server is killed in the midst of a start: the next one undoes it, or finishes it if the guest runs."""

    undone = ("engine.start.intent.after", "engine.start.launch.before", "engine.start.launch.after",
              "engine.start.network.after", "vmm.firecracker.boot.before_start")
    finished = ("vmm.firecracker.boot.after_start", "engine.start.boot.after", "engine.start.publish.after")

    def test_a_start_is_undone_before_the_guest_runs_and_finished_from_then_on(self):
        vm = self.create()
        for point in self.undone + self.finished:
            with self.subTest(point=point):
                self.crash(point, "POST", f"{vm.path}/start")
                if point in self.undone:
                    self.assertEqual((vm.state(), vm.pid()), ("stopped", 0))
                    self.assert_nothing_of(vm)
                    vm.start()
                self.assertEqual(vm.state(), "running")
                vm.await_page()
                vm.stop()
        vm.delete()

    def assert_nothing_of(self, vm):
        """No process has the VM's uuid among its arguments, and no folder is made for a run of it."""
        view = vm.view()
        for name in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{name}/cmdline", "rb") as file:
                    self.assertNotIn(view["uuid"].encode(), file.read())
            except (FileNotFoundError, ProcessLookupError):
                continue
        self.assertFalse(os.path.exists(view["paths"]["runDir"]))
        self.assertFalse(os.path.exists(os.path.join(self.server.data_root, ".jail")))


class ServerDeathInAJail(ServerDeath):
    jailer = "auto"
    undone = ServerDeath.undone + ("vmm.firecracker.jail.folder", "vmm.firecracker.jail.file", "vmm.firecracker.jail.made",
                                   "vmm.firecracker.prepare.cgroup", "vmm.firecracker.prepare.socket")


class EndsAtOnce(OnARealFirecracker):
    """A guest that ends within milliseconds of its start has been started."""

    def test_the_start_succeeded_and_the_end_is_the_guests(self):
        for words, state, by in (("tiny.exit", "stopped", "guest"), ("tiny.panic", "failed", "panic")) * 5:
            with self.subTest(words=words):
                self.assert_end_is_told(f"console=ttyS0 {words}", state, by)


class EndsAtOnceInAJail(EndsAtOnce):
    jailer = "auto"


class BadDisks(OnARealFirecracker):
    def test_what_is_no_disk_is_refused_by_its_member_and_leaves_nothing(self):
        missing = os.path.join(self.server.images, "missing")
        for member in ("rootfs", "dataDisk"):
            for path in (missing, self.server.images):
                with self.subTest(member=member, path=path):
                    problem = self.assert_status(400, "POST", "/v1/vms", self.body(**{member: path})).json
                    self.assertEqual(problem["field"], member)
                    self.assertIn(path, problem["detail"])
                    self.assert_idle_host("after a refusal")
        self.assertEqual(self.server.api.list(), [])

    def test_of_a_disk_that_is_no_whole_number_of_sectors_the_guest_has_the_whole_ones(self):
        odd = self.make_image("odd.img", size=3 * 512 + 100)
        vm = self.create_and_start(dataDisk=odd)
        self.assertIn(f"disk 1: {3 * 512} bytes", vm.await_page())
        vm.delete()
        self.assertEqual(os.path.getsize(odd), 3 * 512 + 100)

    def test_a_disk_that_is_gone_at_the_start_fails_it_and_nothing_runs(self):
        data = self.make_image("data.img", size=1 << 20)
        vm = self.create(dataDisk=data)
        os.unlink(data)
        reply = self.assert_status(503, "POST", f"{vm.path}/start")
        self.assertIn(f"{data}: No such file or directory", reply.json["detail"])
        self.assertEqual(vm.state(), "created", "as it was")
        self.assertEqual((vm.pid(), os.path.exists(vm.view()["paths"]["runDir"])), (0, False))
        vm.delete()


class BadDisksInAJail(BadDisks):
    jailer = "auto"


class FullDisk(SmallDataRoot, OnARealFirecracker):
    def setUp(self):
        super().setUp()
        self.small = self.make_image("small.ext4", size=8 << 20)

    def create(self, **members):
        return super().create(**{"rootfs": self.small, **members})

    def test_a_create_that_does_not_fit_leaves_nothing(self):
        large = self.make_image("large", os.urandom(1 << 20) * 30)
        problem = self.assert_status(507, "POST", "/v1/vms", self.body(rootfs=large)).json
        self.assertEqual(problem["error"], "resource_exhausted")
        self.assertEqual(self.server.api.list(), [])
        self.assertEqual(sorted(os.listdir(self.server.data_root)), [".lock", "instance"])

    def test_a_guest_that_writes_where_no_room_is_gets_an_error_and_the_server_goes_on(self):
        vm = self.create_and_start()
        vm.await_page()
        filler = self.fill()
        self.assertEqual(vm.fetch("/disk/0/write?lost"), "disk 0: failed with status 1\n")
        self.assertEqual(vm.fetch("/disk/0"), "disk 0: \n")
        self.assert_status(200, "GET", "/healthz")
        self.assertEqual(vm.state(), "running")
        os.unlink(filler)
        self.assertEqual(vm.fetch("/disk/0/write?kept"), "disk 0: written\n")
        filler = self.fill()
        vm.stop()
        self.assertEqual(vm.view()["lastEnd"]["by"], "guest")
        os.unlink(filler)
        vm.start()
        vm.await_page()
        self.assertEqual(vm.fetch("/disk/0"), "disk 0: kept\n")


class FullDiskInAJail(JailWithoutRoom, FullDisk):
    jailer = "auto"


class Flood(OnARealFirecracker):
    """A guest that prints without end."""

    def setUp(self):
        super().setUp()
        self.server.drain()
        self.server.use_settings({**self.settings, "vm": {**self.settings["vm"], "console_limit": str(LIMIT)}})
        self.server.start()

    def console_bytes(self, vm):
        """Of all files of the console."""
        folder = vm.logs()
        return sum(os.stat(os.path.join(folder, name)).st_size for name in os.listdir(folder))

    def test_its_console_stays_within_bounds_and_it_stops(self):
        vm = self.create_and_start(words="tiny.flood")
        eventually(lambda: os.path.exists(os.path.join(vm.logs(), "console.log.1")), "more than a half of the console",
                   [vm.logs()])
        first = vm.console()
        for _ in range(50):
            self.assertLessEqual(self.console_bytes(vm), 2 * LIMIT)
            self.assert_status(200, "GET", "/healthz")
        eventually(lambda: vm.console() != first, "more of it", [vm.logs()])
        self.assertEqual(vm.state(), "running")
        vm.stop()
        self.assertEqual((vm.state(), vm.view()["lastEnd"]["by"]), ("stopped", "guest"))
        self.assertIn("tiny: Ctrl-Alt-Del", vm.console())
        self.assertLessEqual(self.console_bytes(vm), 2 * LIMIT)
        vm.delete()


class FloodInAJail(Flood):
    jailer = "auto"
