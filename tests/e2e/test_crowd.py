"""A hundred VMs at once, asked for over thirty-two connections: whoever hands something out twice is found here."""

import collections
import http.client
import json
import os
import shutil
import tempfile
import threading

import harness
from harness import MergenTest

CONNECTIONS = 32
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


class Caller:
    """One connection that is kept."""

    def __init__(self, port):
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)

    def request(self, method, path, body=None):
        """(status, what the body says)"""
        headers = {"Content-Type": "application/json"} if body is not None else {}
        self._connection.request(method, path, json.dumps(body) if body is not None else None, headers)
        response = self._connection.getresponse()
        return response.status, json.loads(response.read())

    def expect(self, status, method, path, body=None):
        seen, said = self.request(method, path, body)
        if seen != status:
            raise AssertionError(f"{method} {path}: expected status {status}, got {seen} {said}")
        return said

    def close(self):
        self._connection.close()


class Crowd(MergenTest):
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

    def crowd(self, work, items):
        """Calls work(caller, item) for every item, on as many threads as there are connections, all let go at once; gives
        the results in the order of the items."""
        items = list(items)
        waiting = collections.deque(enumerate(items))
        results, failures = [None] * len(items), []
        together = threading.Barrier(CONNECTIONS)

        def run():
            caller = Caller(self.server.api.port)
            try:
                together.wait(60)
                while True:
                    try:
                        index, item = waiting.popleft()
                    except IndexError:
                        return
                    results[index] = work(caller, item)
            except Exception as error:  # pylint: disable=broad-except
                failures.append(f"{type(error).__name__}: {error}")
            finally:
                caller.close()

        threads = [threading.Thread(target=run) for _ in range(CONNECTIONS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(failures[:3], [], f"{len(failures)} connections failed")
        return results

    def assert_distinct(self, what, values):
        values = list(values)
        self.assertNotIn(None, values, what)
        shared = [value for value, times in collections.Counter(values).items() if times > 1]
        self.assertEqual(shared, [], f"{what}: given to more than one VM")

    def assert_nothing_is_shared(self, vms):
        """Of VMs that exist at one time."""
        for name in ("id", "uuid"):
            self.assert_distinct(name, (vm[name] for vm in vms))
        for name in ("guestIP", "mac", "tapName", "netns"):
            self.assert_distinct(name, (vm["network"][name] for vm in vms))
        self.assert_distinct("host port", (port["host"] for vm in vms for port in vm["network"]["ports"]))
        for name in ("configDir", "dataDir", "runDir", "socketPath"):
            self.assert_distinct(name, (vm["paths"][name] for vm in vms))

    def assert_count(self, count, state):
        vms = self.server.api.list()
        self.assertEqual(collections.Counter(vm["state"] for vm in vms), {state: count} if count else {})
        return vms

    def test_a_hundred_at_once_share_nothing_and_leave_nothing(self):
        ids = self.crowd(lambda caller, number: caller.expect(201, "POST", "/v1/vms", self.small_body(number))["id"],
                         range(VMS))
        self.assert_nothing_is_shared(self.assert_count(VMS, "created"))

        started = self.crowd(lambda caller, vm: caller.expect(200, "POST", f"/v1/vms/{vm}/start"), ids)
        vms = self.assert_count(VMS, "running")
        self.assertEqual(len(started), VMS)
        self.assert_nothing_is_shared(vms)
        pids = [vm["systemd"]["mainPID"] for vm in vms]
        self.assert_distinct("process", pids)
        self.assert_distinct("uid", (os.stat(f"/proc/{pid}").st_uid for pid in pids))
        self.assert_distinct("network namespace", (os.readlink(f"/proc/{pid}/ns/net") for pid in pids))

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
