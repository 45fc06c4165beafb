"""A hundred VMs at once, asked for over thirty-two connections: whoever hands something out twice is found here."""

import collections
import os
import shutil
import tempfile
import threading

import harness
from harness import MergenTest
from many import CONNECTIONS, Caller, ManyVms

VMS = 100

# VMMs that cost next to nothing, where the build has one: program, backend, and the settings that lead to it.
FAKES = (
    ("firecracker", "firecracker", {"probe": "false", "jailer": "off"}),
    ("fake-qemu", "qemu", {"accel": "tcg"}),
)


def cheap_vmm(folder):
    """(backend, its settings), with the program copied to `folder`: VMs run as users of their own, to whom the build's may be
    closed. Nothing if the build has none."""
    for program, backend, settings in FAKES:
        path = os.path.join(harness.BUILD.folder, "bin", program)
        if os.access(path, os.X_OK):
            return backend, {"binary": shutil.copy(path, folder), **settings}
    return None


class Crowd(ManyVms, MergenTest):
    settings = {"vm": {"stop_grace": "30s"}}

    def setUp(self):
        programs = tempfile.mkdtemp(prefix="mergen-crowd.", dir="/var/tmp")
        self.addCleanup(shutil.rmtree, programs)
        os.chmod(programs, 0o711)
        vmm = cheap_vmm(programs)
        if vmm is None:
            self.skipTest("the build has no fake VMM, and a hundred real guests are too much for a test")
        self.backends = {"vmm": vmm[0]}
        self.settings = {**self.settings, f"vmm.{vmm[0]}": vmm[1]}
        super().setUp()
        # The fake boots nothing, and a hundred copies of a system's images cost much.
        self.kernel = shutil.copy(harness.BUILD.tiny_guest, self.server.images)
        self.rootfs = os.path.join(self.server.images, "small.ext4")
        with open(self.rootfs, "wb") as target:
            target.write(bytes(64 << 10))
        self.idle = self.snapshot_with_files()

    def small_body(self, number):
        return {"rootfs": self.rootfs, "kernel": self.kernel, "memMiB": 128, "name": f"vm {number}",
                "ports": [{"guest": 80, "host": 0}, {"guest": 443, "host": 0}]}

    def test_a_hundred_at_once_share_nothing_and_leave_nothing(self):
        ids = self.crowd(lambda caller, number: caller.expect(201, "POST", "/v1/vms", self.small_body(number))["id"],
                         range(VMS))
        self.assert_nothing_is_shared(self.assert_count(VMS, "created"))

        started = self.crowd(lambda caller, vm: caller.expect(200, "POST", f"/v1/vms/{vm}/start"), ids)
        vms = self.assert_count(VMS, "running")
        self.assertEqual(len(started), VMS)
        self.assert_nothing_is_shared(vms)
        self.assert_running_apart(vms)

        self.crowd(lambda caller, vm: caller.expect(200, "POST", f"/v1/vms/{vm}/stop"), ids)
        self.assert_nothing_is_shared(self.assert_count(VMS, "stopped"))

        self.crowd(lambda caller, vm: caller.expect(200, "DELETE", f"/v1/vms/{vm}"), ids)
        self.assert_count(0, "stopped")
        self.assert_idle_host("after a hundred VMs were deleted at once")

    def test_lives_that_overlap_are_kept_apart(self):
        """Nobody waits for anybody: what one VM gives back is handed out again while others begin and end."""
        done = threading.Event()
        lists = []

        def watch():
            caller = Caller(self.server.api.port)
            while not done.is_set():
                lists.append(caller.expect(200, "GET", "/v1/vms")["items"])
            caller.close()

        watcher = threading.Thread(target=watch)
        watcher.start()

        def live(caller, number):
            vm = caller.expect(201, "POST", "/v1/vms", self.small_body(number))["id"]
            for step in ("start", "stop", "start"):
                caller.expect(200, "POST", f"/v1/vms/{vm}/{step}")
            caller.expect(200, "DELETE", f"/v1/vms/{vm}")
            self.assertEqual(caller.request("GET", f"/v1/vms/{vm}")[0], 404)

        try:
            self.crowd(live, range(VMS))
        finally:
            done.set()
            watcher.join()
        self.assertGreater(max(len(vms) for vms in lists), 1, "no two lives overlapped")
        for vms in lists:
            self.assert_nothing_is_shared(vms)
        self.assert_count(0, "stopped")
        self.assert_idle_host("after a hundred lives")

    def test_of_many_who_want_one_name_and_port_one_gets_it(self):
        def want(caller, number):
            return caller.request("POST", "/v1/vms", {**self.small_body(number), "id": "the-one",
                                                      "ports": [{"guest": 80, "host": 21500}]})
        replies = self.crowd(want, range(CONNECTIONS))
        self.assertEqual(collections.Counter(status for status, _ in replies), {201: 1, 409: CONNECTIONS - 1})
        self.assertEqual([vm["id"] for vm in self.assert_count(1, "created")], ["the-one"])
