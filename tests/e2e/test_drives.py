"""Drives beside the root disk and the data disk: one that takes writes is used in place and lent while the VM runs, one
that takes none is copied. On the fake Firecracker, in a jail and not; QEMU's guest sees them too."""

import os
import stat

import test_firecracker
import test_jail
from harness import CrashTest, MergenTest

OWNER = (1234, 5678, 0o664)  # nobody's on this host
SIZE = 4 << 20


def owner_of(path):
    status = os.stat(path)
    return status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)


class WithDisks(MergenTest):
    def setUp(self):
        super().setUp()
        self.logs = self.make_image("logs.img", size=SIZE, owner=OWNER)
        self.tools = self.make_image("tools.img", b"tools", SIZE, owner=(0, 0, 0o644))

    def drives(self):
        return [{"driveId": "logs", "pathOnHost": self.logs, "rateLimiter": {"ops": {"size": 9, "refillTime": 100}}},
                {"driveId": "tools", "pathOnHost": self.tools, "isReadOnly": True}]


class Drives(WithDisks, test_firecracker.OnTheFake, CrashTest):
    vm_settings = {"stop_grace": "1s", "kill_grace": "5s"}

    def in_guest(self, vm):
        """(id, whether it takes writes) of each drive, as the fake's guest lists them."""
        vm.await_console("fake-guest: ready")
        words = [line.split("drive ")[1] for line in vm.console().splitlines() if "fake-guest: drive " in line]
        return [(word.split(",")[0], "takes writes" in word) for word in words]

    def test_the_guest_has_them_in_order_and_what_takes_writes_goes_back_to_its_owner(self):
        vm = self.create(drives=self.drives())
        self.assertEqual(owner_of(self.logs), OWNER, "a VM that does not run needs nothing")
        vm.start()
        self.assertEqual(self.in_guest(vm), [("rootfs", True), ("logs", True), ("tools", False)])
        user = os.stat(f"/proc/{vm.pid()}").st_uid
        self.assertEqual(owner_of(self.logs), (user, user, 0o600))
        self.assertEqual(owner_of(self.tools), (0, 0, 0o644), "the VM has a copy")
        self.assertEqual([drive["driveId"] for drive in vm.view()["drives"]], ["logs", "tools"])
        self.server.kill()
        self.server.start()
        self.assertEqual((vm.state(), owner_of(self.logs)), ("running", (user, user, 0o600)))
        vm.stop()
        self.assertEqual(owner_of(self.logs), OWNER)
        vm.start()
        vm.delete()
        self.assertEqual((owner_of(self.logs), os.path.getsize(self.logs)), (OWNER, SIZE))

    def test_what_takes_no_writes_is_each_vms_own_copy(self):
        tools = self.drives()[1]
        first, second = self.create(drives=[tools]), self.create(drives=[tools])
        os.unlink(self.tools)
        first.delete()
        copy = os.path.join(second.view()["paths"]["dataDir"], "drives", "tools")
        with open(copy, "rb") as file:
            self.assertEqual(file.read(5), b"tools")
        status = os.stat(copy)
        self.assertEqual((status.st_uid, stat.S_IMODE(status.st_mode)), (0, 0o440))
        second.start()
        self.assertEqual(self.in_guest(second), [("rootfs", True), ("tools", False)])
        second.delete()

    def test_a_crash_while_they_are_lent_or_taken_back_loses_no_owner(self):
        data = self.make_image("data.img", size=SIZE, owner=OWNER)
        vm = self.create(dataDisk=data, drives=self.drives())
        self.crash_while_lent(vm, lambda: self.assertEqual((owner_of(self.logs), owner_of(data)), (OWNER, OWNER)))

    def test_a_crash_while_they_are_copied_leaves_nothing(self):
        before = self.snapshot_with_files()
        self.crash("engine.disks.drive_copied", "POST", "/v1/vms", self.body(drives=self.drives()))
        self.assertEqual(self.server.api.list(), [])
        self.assert_same_host({"files": before["files"]}, lambda: {"files": self.snapshot_with_files()["files"]},
                              "after a create that was cut off")
        self.create(drives=self.drives()).delete()

    def test_what_cannot_be_is_refused_by_field_and_nothing_is_made(self):
        logs, tools = self.drives()
        owner = self.create(id="first", drives=[logs])
        before = self.snapshot_with_files()
        missing = os.path.join(self.server.images, "missing")
        many = [{**tools, "driveId": f"tools{number}"} for number in range(8)]
        for drives, status, field, words in (
                ([logs], 409, "drives[0].pathOnHost", "'first'"),
                ([{**logs, "isReadOnly": True}], 409, "drives[0].pathOnHost", "'first'"),
                ([tools, {**tools, "driveId": "twice", "isReadOnly": False}], 400, "drives[1].pathOnHost", "given as"),
                ([tools, tools], 400, "drives[1].driveId", "the id of two drives"),
                ([{**tools, "pathOnHost": missing}], 400, "drives[0].pathOnHost", missing),
                ([{**tools, "pathOnHost": "/etc/passwd"}], 400, "drives[0].pathOnHost", "not below an allowed folder"),
                ([{"driveId": "tools"}], 400, "drives[0].pathOnHost", "missing"),
                (many, 400, "drives", "at most 8")):
            with self.subTest(field=field, words=words):
                problem = self.assert_status(status, "POST", "/v1/vms", self.body(drives=drives)).json
                self.assertEqual(problem["field"], field, problem)
                self.assertIn(words, problem["message"])
        self.assert_same_host({"files": before["files"]}, lambda: {"files": self.snapshot_with_files()["files"]},
                              "after refused creates")
        owner.delete()

    def test_their_limits_and_sizes_can_be_changed_and_their_files_not(self):
        vm = self.create_and_start(drives=self.drives())
        limit = {"bandwidth": {"size": 1 << 20, "refillTime": 100}}
        self.assert_status(200, "PATCH", vm.path, {"drives": [{"driveId": "tools", "rateLimiter": limit}]})
        told = self.server.api.get(f"{vm.path}/vmm-config")["drives"]
        self.assertEqual([drive["drive_id"] for drive in told], ["rootfs", "logs", "tools"])
        self.assertEqual(told[2]["rate_limiter"]["bandwidth"]["size"], 1 << 20)
        os.truncate(self.logs, 2 * SIZE)
        self.assert_status(200, "PATCH", vm.path, {"drives": [{"driveId": "logs", "pathOnHost": self.logs}]})
        vm.await_console(f"fake-guest: drive logs, new size {2 * SIZE}\n")
        copied = "copy of its own"
        for drive, path, words in (("logs", self.tools, "it is " + self.logs), ("tools", self.logs, copied),
                                   ("tools", self.tools, copied), ("rootfs", self.server.rootfs, copied)):
            with self.subTest(drive=drive, path=path):
                change = {"drives": [{"driveId": drive, "pathOnHost": path}]}
                problem = self.assert_status(400, "PATCH", vm.path, change).json
                self.assertEqual(problem["field"], "drives[0].pathOnHost")
                self.assertIn(words, problem["message"])
        vm.delete()


class DrivesInAJail(test_jail.Jailed, Drives):
    def test_each_is_brought_in_as_what_it_is(self):
        vm = self.create_and_start(drives=self.drives())
        inside = f"/proc/{vm.pid()}/root/vm"
        self.assertTrue(os.path.samefile(os.path.join(inside, "disk-logs"), self.logs))
        with open(os.path.join(inside, "disk-logs"), "r+b") as disk:
            disk.write(b"kept")
        copy = os.path.join(vm.view()["paths"]["dataDir"], "drives", "tools")
        with open(os.path.join(inside, "disk-tools"), "rb") as disk:
            self.assertEqual(disk.read(5), b"tools")
        self.assertTrue(os.path.samefile(os.path.join(inside, "disk-tools"), copy), "root's, and nobody's to write to")
        vm.stop()
        with open(self.logs, "rb") as disk:
            self.assertEqual(disk.read(4), b"kept")
        vm.delete()


class DrivesOfQemu(WithDisks, MergenTest):
    settings = {"vm": {"stop_grace": "30s"}}

    def test_a_linux_sees_them_all(self):
        drives = self.drives()
        del drives[0]["rateLimiter"]
        vm = self.create_and_start(drives=drives, bootArgs="console=ttyS0 reboot=k panic=1 mergen.scribble")
        vm.await_page()
        vm.await_console(f"disk nvme0n2 of {SIZE} bytes, takes writes")
        vm.await_console(f"disk nvme0n3 of {SIZE} bytes, takes no writes")
        vm.delete()
        with open(self.logs, "rb") as file:
            self.assertEqual(file.read(4), b"\x7fELF", "what the guest wrote")
