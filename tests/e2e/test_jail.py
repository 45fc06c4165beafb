"""Firecracker in its jail: what the jail is, that disks keep what is written, and that nothing of it is left. On the
fake Firecracker and the fake jailer, which run no guest; test_real_jail has the real pair."""

import concurrent.futures
import glob
import os
import shutil
import signal
import stat
import subprocess
import unittest

import harness
import test_configuration
import test_firecracker
from harness import CrashTest
from small_data_root import JailWithoutRoom
from test_firecracker import OnTheFake
from waiting import eventually

CGROUPS = "/sys/fs/cgroup"


def status_of(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)


def cgroups_of(uuid):
    """The VM's control groups, in every hierarchy of the host."""
    return sorted(glob.glob(f"{CGROUPS}/mergen-*/{uuid}") + glob.glob(f"{CGROUPS}/*/mergen-*/{uuid}"))


class Jailed(OnTheFake):
    """Servers whose `vmm/firecracker` has a jailer."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.jailer = os.path.join(harness.BUILD.folder, "bin", "fake-jailer")
        if not os.path.exists(cls.jailer):
            raise unittest.SkipTest(f"there is no fake jailer at {cls.jailer}")

    def setUp(self):
        super().setUp()
        self.uuids = []

    def create(self, **members):
        vm = super().create(**members)
        self.uuids.append(vm.view()["uuid"])
        return vm

    def tearDown(self):
        super().tearDown()  # jails and mounts are the oracle's
        for uuid in self.uuids:
            self.assertEqual(cgroups_of(uuid), [])

    @property
    def base(self):
        return os.path.join(self.server.data_root, ".jail", os.path.basename(os.path.realpath(self.program)))

    def root_of(self, vm):
        return os.path.join(self.base, vm.view()["uuid"], "root")

    def rootfs_of(self, vm):
        return os.path.join(self.server.data_root, vm.id, "rootfs.ext4")

    def firecracker_detail(self):
        return self.component("firecracker")

    def assert_jailed(self, vm):
        pid, root = vm.pid(), self.root_of(vm)
        self.assertTrue(os.path.samestat(os.stat(f"/proc/{pid}/root"), os.stat(root)), "its root is the jail")
        self.assertNotEqual(os.readlink(f"/proc/{pid}/ns/pid"), os.readlink("/proc/self/ns/pid"))
        self.assertNotEqual(os.readlink(f"/proc/{pid}/ns/mnt"), os.readlink("/proc/self/ns/mnt"))
        self.assertNotEqual(os.readlink(f"/proc/{pid}/ns/net"), os.readlink("/proc/self/ns/net"))
        user = os.stat(self.rootfs_of(vm)).st_uid
        self.assertGreaterEqual(user, 1900000000)
        self.assertEqual(status_of(pid)["Uid"].split(), [str(user)] * 4)
        self.assertEqual(status_of(pid)["Gid"].split(), [str(user)] * 4)
        self.assertEqual(status_of(pid)["Groups"].split(), [])


class Life(Jailed):
    def test_what_the_jail_is_from_create_to_delete(self):
        vm = self.create_and_start(initrd=self.server.kernel)
        self.assertIn(f"jailed by {self.jailer}", self.firecracker_detail())
        self.assert_jailed(vm)
        uuid, root = vm.view()["uuid"], self.root_of(vm)
        for folder in (os.path.dirname(root), self.base, os.path.dirname(self.base), os.path.join(root, "vm")):
            self.assertEqual((os.stat(folder).st_uid, os.stat(folder).st_mode & 0o022), (0, 0), folder)
        # The same inodes as the VM's own files, and nothing else of the host.
        own = os.path.join(self.server.data_root, vm.id)
        for mine, jailed in (("kernel", "kernel"), ("initrd", "initrd"), ("rootfs.ext4", "disk-rootfs")):
            self.assertTrue(os.path.samefile(os.path.join(own, mine), os.path.join(root, "vm", jailed)), mine)
        self.assertEqual(sorted(os.listdir(root)), ["dev", "firecracker", "firecracker.pid", "run", "vm"])
        vm.stop()
        self.assertFalse(os.path.exists(os.path.dirname(root)))
        self.assertEqual(cgroups_of(uuid), [])
        self.assertEqual(os.stat(self.rootfs_of(vm)).st_nlink, 1)
        vm.start()
        self.assert_jailed(vm)
        vm.delete()

    def test_its_control_groups_hold_it_and_its_limits(self):
        vm = self.create_and_start(memMiB=192, vcpu=2)
        groups = cgroups_of(vm.view()["uuid"])
        if not groups:
            self.assertIn("control group", self.firecracker_detail())
            vm.delete()
            self.skipTest("this host has no control groups for memory or processes")
        limits = {"memory.limit_in_bytes": str((192 + 64) << 20), "memory.max": str((192 + 64) << 20), "pids.max": "34"}
        seen = 0
        for group in groups:
            with open(os.path.join(group, "cgroup.procs"), encoding="ascii") as file:
                self.assertIn(str(vm.pid()), file.read().split())
            for name, value in limits.items():
                if os.path.exists(os.path.join(group, name)):
                    with open(os.path.join(group, name), encoding="ascii") as file:
                        self.assertEqual(file.read().strip(), value, name)
                    seen += 1
        self.assertGreater(seen, 0)
        vm.delete()

    def test_its_resource_limits_hold(self):
        self.server.drain()
        limited = {**self.firecracker_settings(), "file_size_limit": "3GiB"}
        self.server.use_settings({**self.settings, "vmm.firecracker": limited})
        self.server.start()
        vm = self.create_and_start()
        with open(f"/proc/{vm.pid()}/limits", encoding="ascii") as file:
            limits = {line[:26].strip(): line[26:].split()[:2] for line in file}
        self.assertEqual(limits["Max open files"], ["2048", "2048"])
        self.assertEqual(limits["Max file size"], [str(3 << 30)] * 2)
        vm.delete()

    def test_the_socket_path_answers(self):
        vm = self.create_and_start()
        path = vm.view()["paths"]["socketPath"]
        self.assertTrue(os.path.islink(path))
        answer = subprocess.run(["curl", "-s", "--unix-socket", path, "http://localhost/"], capture_output=True,
                                text=True, check=True).stdout
        self.assertIn(vm.view()["uuid"], answer)
        vm.delete()

    def test_writes_to_the_root_disk_survive_stop_and_start_and_the_end_of_the_jail(self):
        vm = self.create_and_start()
        with open(f"/proc/{vm.pid()}/root/vm/disk-rootfs", "r+b") as disk:  # as the guest would
            disk.write(b"kept")
        pid = vm.pid()
        self.end_vmm(pid, lambda: os.kill(pid, signal.SIGKILL))
        vm.await_state("failed")
        with open(self.rootfs_of(vm), "rb") as disk:
            self.assertEqual(disk.read(4), b"kept")
        self.assertFalse(os.path.exists(self.base), "the jail is gone")
        vm.start()
        with open(f"/proc/{vm.pid()}/root/vm/disk-rootfs", "rb") as disk:
            self.assertEqual(disk.read(4), b"kept")
        vm.delete()

    def test_its_parent_starts_it_again_in_the_jail(self):
        vm = self.create_and_start(restartPolicy="on-failure")
        first = vm.pid()
        self.end_vmm(first, lambda: os.kill(first, signal.SIGKILL))
        eventually(lambda: vm.view()["restarts"] == 1 and vm.pid() not in (0, first), "the second run", [vm.logs()])
        vm.await_console("fake-guest: ready")
        self.assert_jailed(vm)
        vm.stop()
        vm.delete()

    def test_a_killed_parent_leaves_nothing_running(self):
        vm = self.create_and_start()
        identity = os.path.join(self.server.run_root, "supervisor", vm.view()["uuid"], "parent")
        with open(identity, encoding="ascii") as file:
            parent = int(file.readline().split()[1])
        pid = vm.pid()
        self.end_vmm(pid, lambda: os.kill(parent, signal.SIGKILL))
        vm.await_state("failed")
        self.assertFalse(os.path.exists(self.base))
        vm.delete()

    def test_many_come_and_go_at_once(self):
        vms = [self.create(memMiB=128) for _ in range(12)]
        with concurrent.futures.ThreadPoolExecutor(len(vms)) as pool:
            for _ in range(3):  # folders above jails and control groups go with the last one
                list(pool.map(lambda vm: vm.start(), vms))
                self.assertEqual(len({vm.pid() for vm in vms}), len(vms))
                list(pool.map(lambda vm: vm.stop(), vms))
                self.assertFalse(os.path.exists(os.path.dirname(self.base)))
            list(pool.map(lambda vm: [step() for step in (vm.start, vm.stop) * 3], vms))
        for vm in vms:
            vm.delete()

    def test_a_server_without_a_jailer_takes_care_of_a_jailed_vm_and_back(self):
        vm = self.create_and_start()
        self.server.kill()
        self.server.use_settings({**self.settings, "vmm.firecracker": {**self.firecracker_settings(), "jailer": "off"}})
        self.server.start()
        self.assertIn("not jailed: jailer = off", self.firecracker_detail())
        self.assertEqual(vm.state(), "running")
        vm.stop()
        self.assertFalse(os.path.exists(self.base))
        vm.start()
        self.assertFalse(os.path.exists(self.base))
        self.server.kill()
        self.server.use_settings(self.settings)
        self.server.start()
        self.assertEqual(vm.state(), "running")
        vm.stop()
        vm.start()
        self.assert_jailed(vm)
        vm.delete()

    def test_a_folder_of_jails_that_is_a_link_is_refused_and_not_followed(self):
        vm = self.create()
        elsewhere = os.path.join(self.server.folder, "elsewhere")
        victim = os.path.join(elsewhere, os.path.basename(self.program), vm.view()["uuid"])
        os.makedirs(victim)
        os.symlink(elsewhere, os.path.join(self.server.data_root, ".jail"))
        detail = self.assert_status(503, "POST", f"{vm.path}/start").json["detail"]
        self.assertIn("is a link", detail)
        self.assertTrue(os.path.isdir(victim))
        os.unlink(os.path.join(self.server.data_root, ".jail"))
        shutil.rmtree(elsewhere)
        vm.start()
        vm.delete()


class LifeAsWithout(Jailed, test_firecracker.Life):
    """The stories of an unjailed Firecracker."""


class ChangesAsWithout(Jailed, test_configuration.Change):
    """The stories of PATCH."""


class Devices(Jailed, test_configuration.Told):
    """What lies beside a guest's disks: the vsock's socket, the pipe of the metrics, the metadata."""

    def test_they_are_in_the_jail_and_of_use_from_outside(self):
        vm = self.create_with_all(restartPolicy="on-failure")
        vm.start()
        first = vm.pid()
        self.assert_at_hand(vm)
        self.end_vmm(first, lambda: os.kill(first, signal.SIGKILL))
        eventually(lambda: vm.view()["restarts"] == 1 and vm.pid() not in (0, first), "the second run", [vm.logs()])
        eventually(lambda: vm.console().count("fake-guest: ready") == 2, "the second guest", [vm.logs()])
        self.assert_jailed(vm)
        self.assert_at_hand(vm)
        vm.stop()
        self.assertFalse(os.path.exists(self.base))
        vm.delete()

    def assert_at_hand(self, vm):
        told, path = self.told(vm), vm.view()["vsock"]["udsPath"]
        self.assertEqual(told["vsock"], {"guest_cid": 7, "uds_path": "/run/vsock.sock"})
        self.assertEqual(path, os.path.join(self.root_of(vm), "run", "vsock.sock"))
        self.assertTrue(stat.S_ISSOCK(os.stat(path).st_mode))
        self.assertEqual(self.told(vm, "/mmds"), {"name": "a"})
        self.assertIn("vmm", self.assert_status(200, "GET", f"{vm.path}/metrics").json)

    def test_metrics_are_not_read_from_what_the_vm_put_in_their_place(self):
        vm = self.create_with_all()
        vm.start()
        root, elsewhere = self.root_of(vm), os.path.join(self.server.folder, "elsewhere")
        os.mkdir(elsewhere)
        os.mkfifo(os.path.join(elsewhere, "metrics.fifo"))
        os.rename(os.path.join(root, "vm"), os.path.join(root, "moved"))
        os.symlink(elsewhere, os.path.join(root, "vm"))
        reply = self.server.api.request("GET", f"{vm.path}/metrics")
        self.assertGreaterEqual(reply.status, 400)
        self.assertNotIn("vmm", reply.json)
        vm.delete()
        self.assertEqual(os.listdir(elsewhere), ["metrics.fifo"])


class OnATap(Jailed, test_firecracker.OnATap):
    """A tap in the host's namespace, opened by a jailed Firecracker."""


class CrashesAsWithout(Jailed, test_firecracker.Crashes):
    """The server dies between two calls to a jailed Firecracker."""


class Crashes(Jailed, CrashTest):
    """The server dies while a jail is made or removed. The next one clears what is left, or finishes."""

    MADE = ("jail.folder", "jail.file", "jail.made", "prepare.cgroup", "prepare.socket")
    REMOVED = ("clean_up", "clean_up.files", "jail.unmounted", "clean_up.jail")

    def test_at_every_step_of_making_it(self):
        vm = self.create()
        for point in self.MADE:
            with self.subTest(point):
                self.crash(f"vmm.firecracker.{point}", "POST", f"{vm.path}/start")
                self.assertEqual((vm.state(), vm.pid()), ("stopped", 0))
                self.assertFalse(os.path.exists(self.base))
                self.assertEqual(cgroups_of(vm.view()["uuid"]), [])
                vm.start()
                self.assert_jailed(vm)
                vm.stop()
        vm.delete()

    def test_at_every_step_of_removing_it(self):
        vm = self.create()
        for point in self.REMOVED:
            with self.subTest(point):
                vm.start()
                self.crash(f"vmm.firecracker.{point}", "POST", f"{vm.path}/stop")
                self.assertEqual((vm.state(), vm.pid()), ("stopped", 0))
                self.assertFalse(os.path.exists(self.base))
                self.assertEqual(cgroups_of(vm.view()["uuid"]), [])
        vm.start()
        vm.delete()

    def test_at_the_engines_steps_around_it(self):
        vm = self.create()
        for operation, point in (("start", "prepare.before"), ("start", "prepare.after"), ("start", "launch.after"),
                                 ("start", "boot.after"), ("stop", "guest.after"), ("stop", "run-directory.after")):
            with self.subTest(f"{operation}.{point}"):
                if operation == "stop":
                    vm.start()
                self.crash(f"engine.{operation}.{point}", "POST", f"{vm.path}/{operation}")
                if vm.state() == "running":
                    self.assert_jailed(vm)
                    vm.stop()
                self.assertEqual((vm.state(), vm.pid()), ("stopped", 0))
                self.assertFalse(os.path.exists(self.base))
                self.assertEqual(cgroups_of(vm.view()["uuid"]), [])
        vm.delete()

    def test_a_jail_without_a_record_is_removed(self):
        vm = self.create_and_start()
        uuid = "01234567-89ab-4cde-8f01-23456789abcd"
        stray = os.path.join(self.base, uuid, "root", "vm")
        os.makedirs(stray)
        self.server.kill()
        self.server.start()
        self.assertFalse(os.path.exists(os.path.join(self.base, uuid)))
        self.assert_jailed(vm)
        vm.delete()


class FullDataRoot(JailWithoutRoom, Jailed):
    def setUp(self):
        super().setUp()
        with open(harness.BUILD.tiny_guest, "rb") as guest:
            self.kernel = self.make_image("small-kernel", guest.read())

    def create(self, **members):
        return super().create(kernel=self.kernel, **members)


class DataDisk(Jailed):
    """A data disk on another file system cannot be linked: it is bound, and given back."""

    OWNER = (1234, 5678, 0o664)

    def setUp(self):
        super().setUp()
        self.disk = os.path.join(self.server.images, "elsewhere", "data.img")
        self.server.drain()
        os.mkdir(os.path.dirname(self.disk))
        subprocess.run(["mount", "-t", "tmpfs", "mergen-test", os.path.dirname(self.disk)], check=True)
        self.addCleanup(self.unmount)
        roots = f"{self.server.images}, {os.path.dirname(self.disk)}"
        self.server.use_settings({**self.settings, "paths": {"image_roots": roots}})
        self.server.start()
        with open(self.disk, "wb") as file:
            file.truncate(4 << 20)
        os.chown(self.disk, *self.OWNER[:2])
        os.chmod(self.disk, self.OWNER[2])

    def unmount(self):
        folder = os.path.dirname(self.disk)
        if os.path.ismount(folder):
            subprocess.run(["umount", "-l", folder], check=True)
        if os.path.isdir(folder):
            os.rmdir(folder)

    def tearDown(self):
        for vm in self.server.api.list():
            self.server.api.expect(200, "DELETE", f"/v1/vms/{vm['id']}")
        self.unmount()
        super().tearDown()

    def owner(self):
        status = os.stat(self.disk)
        return status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)

    def mounts_in_jails(self):
        with open("/proc/self/mountinfo", encoding="utf-8") as file:
            return [line.split()[4] for line in file if self.base in line]

    def test_it_is_bound_into_the_jail_takes_writes_and_goes_back(self):
        vm = self.create_and_start(dataDisk=self.disk)
        jailed = os.path.join(self.root_of(vm), "vm", "disk-data")
        self.assertEqual(self.mounts_in_jails(), [jailed])
        self.assertTrue(os.path.samefile(f"/proc/{vm.pid()}/root/vm/disk-data", self.disk))
        self.assertEqual(self.owner()[2], 0o600)
        with open(f"/proc/{vm.pid()}/root/vm/disk-data", "r+b") as disk:
            disk.write(b"kept")
        vm.stop()
        self.assertEqual(self.mounts_in_jails(), [])
        self.assertEqual(self.owner(), self.OWNER)
        with open(self.disk, "rb") as disk:
            self.assertEqual(disk.read(4), b"kept")
        vm.start()
        self.server.kill()
        self.server.start()
        self.assertEqual(self.mounts_in_jails(), [jailed])
        vm.delete()
        self.assertEqual((self.mounts_in_jails(), self.owner(), os.path.getsize(self.disk)), ([], self.OWNER, 4 << 20))

    def test_a_server_that_dies_over_the_mount_leaves_what_the_next_one_clears(self):
        vm = self.create(dataDisk=self.disk)
        self.server.drain()
        self.server.start(failpoints="vmm.firecracker.jail.made=crash")
        with self.assertRaises(Exception):
            self.server.api.request("POST", f"{vm.path}/start")
        self.assertEqual(self.server.wait(), -signal.SIGKILL)
        self.assertEqual(len(self.mounts_in_jails()), 1, "the test's own premise")
        self.server.start()
        self.assertEqual((self.mounts_in_jails(), self.owner(), os.path.getsize(self.disk)), ([], self.OWNER, 4 << 20))
        self.assertEqual(vm.state(), "stopped")
        vm.delete()


class Refused(Jailed):
    """What must not be used is not, and what is missing is said."""

    def with_settings(self, **settings):
        self.server.drain()
        self.server.use_settings({**self.settings, "vmm.firecracker": {**self.firecracker_settings(), **settings}})
        self.server.start()

    def script(self, name, line):
        path = os.path.join(self.server.folder, name)
        with open(path, "w", encoding="ascii") as file:
            file.write(f"#!/bin/sh\necho '{line}'\n")
        os.chmod(path, 0o755)
        return path

    def test_a_firecracker_with_known_holes(self):
        old = self.script("firecracker", "Firecracker v1.15.0")
        vm = self.create()
        self.with_settings(binary=old, jailer="off")
        detail = self.assert_start_fails(vm, 409)
        self.assertIn("Firecracker 1.15.0 has known holes", detail)
        self.assertIn("allow_vulnerable", self.firecracker_detail())
        self.with_settings(binary=old, jailer="off", allow_vulnerable="true")
        self.assertIn("1.15.0, not jailed: jailer = off", self.firecracker_detail())
        vm.delete()

    def test_a_jailer_with_known_holes_or_of_another_release(self):
        vm = self.create()
        for line, words in (("Jailer v1.14.3", "has known holes"), ("Jailer v1.16.1", "both must be of one release"),
                            ("I am no jailer", "of an unknown version")):
            with self.subTest(line):
                self.with_settings(jailer=self.script("old-jailer", line))
                self.assertIn(words, self.firecracker_detail())
                self.assertIn(words, self.assert_start_fails(vm, 409))
        self.with_settings()
        vm.start()
        vm.delete()

    def test_what_a_jailer_says_when_it_fails_is_in_the_reply_and_nothing_is_left(self):
        failing = self.script("failing-jailer", "Jailer v1.17.0")
        with open(failing, "a", encoding="ascii") as file:
            file.write('[ "$1" = --version ] || { echo "no jail today" >&2; exit 1; }\n')
        self.with_settings(jailer=failing)
        vm = self.create()
        self.assertIn("no jail today", self.assert_start_fails(vm, 503))
        self.assertFalse(os.path.exists(self.base))
        self.with_settings()
        vm.start()
        vm.delete()

    def test_auto_finds_the_one_that_lies_beside_firecracker_and_says_when_there_is_none(self):
        folder = os.path.join(self.server.folder, "programs")
        os.mkdir(folder)
        program = shutil.copy(self.program, os.path.join(folder, "firecracker"))
        self.with_settings(binary=program, jailer="auto")
        if "jailed by /usr" not in self.firecracker_detail():
            self.assertIn("not jailed: there is no jailer beside", self.firecracker_detail())
        shutil.copy(self.jailer, os.path.join(folder, "jailer"))
        self.with_settings(binary=program, jailer="auto")
        self.assertIn(f"jailed by {folder}/jailer 1.17.0", self.firecracker_detail())
        vm = self.create_and_start()
        self.assert_jailed(vm)
        vm.delete()

    def test_a_firecracker_that_needs_libraries(self):
        program = os.path.join(harness.BUILD.folder, "bin", "mergend")
        vm = self.create()
        self.with_settings(binary=program)
        self.assertIn("does not say which Firecracker it is", self.assert_start_fails(vm, 409))
        self.with_settings(binary=program, allow_vulnerable="true")
        self.assertIn("is dynamically linked", self.assert_start_fails(vm, 409))
        self.with_settings()
        vm.delete()
