"""The lock file of a VM (paths.lockPath): another program that holds it keeps the server from changing the VM."""

import contextlib
import fcntl
import os
import stat
import subprocess
import sys

from harness import MergenTest

HOLDER = """
import fcntl, sys
file = open(sys.argv[1], "a+")
fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
print("held", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def held(path):
    """Another program holds the lock; gives its pid."""
    program = subprocess.Popen([sys.executable, "-B", "-c", HOLDER, path], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, text=True)
    try:
        assert program.stdout.readline() == "held\n", f"{path} could not be locked"
        yield program.pid
    finally:
        program.communicate()


class LockFile(MergenTest):
    def lock_of(self, vm):
        return vm.view()["paths"]["lockPath"]

    def assert_locked(self, pid, method, path, body=None):
        problem = self.assert_status(409, method, path, body).json
        self.assertEqual(problem["error"], "conflict")
        self.assertIn("lock file", problem["message"])
        self.assertIn(f"process {pid} (python3", problem["message"])

    def test_a_held_lock_refuses_start_stop_and_delete_and_changes_nothing(self):
        vm = self.create(id="locked")
        lock = self.lock_of(vm)
        with held(lock) as pid:
            before = self.snapshot_with_files(contents=True)
            for method, path in (("POST", vm.path + "/start"), ("DELETE", vm.path)):
                self.assert_locked(pid, method, path)
            self.assertEqual(vm.state(), "created")
            self.assert_same_host(before, lambda: self.snapshot_with_files(contents=True), "while it was locked")
        vm.start()
        page = vm.await_page()
        with held(lock) as pid:
            self.assert_locked(pid, "POST", vm.path + "/stop")
            self.assert_locked(pid, "DELETE", vm.path)
            self.assertEqual(vm.state(), "running")
            self.assertEqual(vm.fetch(), page, "the guest does not notice")
        vm.stop()
        vm.delete()
        self.assertFalse(os.path.exists(lock))

    def test_a_create_whose_lock_is_held_makes_nothing(self):
        lock = os.path.join(self.server.run_root, "wanted.lock")
        with held(lock) as pid:
            before = self.snapshot_with_files()
            self.assert_locked(pid, "POST", "/v1/vms", self.body(id="wanted"))
            self.assertEqual(self.server.api.list(), [])
            self.assert_same_host(before, self.snapshot_with_files, "after the refused create")
        self.create(id="wanted").delete()
        self.assertFalse(os.path.exists(lock))

    def test_neither_the_vmm_nor_its_parent_inherits_it_and_their_user_cannot_take_it(self):
        vm = self.create_and_start()
        lock = self.lock_of(vm)
        status = os.stat(lock)
        self.assertEqual((status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)), (0, 0, 0o640))
        vmm = vm.pid()
        with open(f"/proc/{vmm}/stat", encoding="ascii") as file:
            parent = int(file.read().rsplit(")", 1)[1].split()[1])
        for pid in (vmm, parent):
            folder = f"/proc/{pid}/fd"
            self.assertNotIn(lock, [os.readlink(os.path.join(folder, name)) for name in os.listdir(folder)])
        with open(lock, encoding="ascii") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # free while the VM runs
        with open(f"/proc/{vmm}/status", encoding="ascii") as file:
            user = next(int(line.split()[1]) for line in file if line.startswith("Uid:"))
        self.assertNotEqual(user, 0)
        done = subprocess.run(["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "cat", lock],
                              capture_output=True, text=True, check=False)
        self.assertIn("Permission denied", done.stderr)

    def test_recovery_waits_for_a_lock_and_the_server_starts_all_the_same(self):
        other = self.create_and_start(id="other")
        vm = self.create_and_start(id="locked")
        pid = vm.pid()
        self.server.kill()
        self.end_vmm(pid, lambda: os.kill(pid, 9))
        with held(os.path.join(self.server.run_root, "locked.lock")) as holder:
            self.server.start()
            self.assertEqual(other.state(), "running")
            self.assertIn("postponed", vm.events()[-1]["cause"])
            self.assertEqual(vm.state(), "running", "nobody may write down what has become of it")
            self.assert_locked(holder, "POST", vm.path + "/start")
        vm.await_state("failed")
        self.assertIn("signal 9", vm.view()["failure"])
        vm.start()
        vm.delete()
