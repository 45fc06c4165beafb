"""A hundred VMs, and a server that is killed in every state of every operation: the next one adopts them all, quickly."""

import concurrent.futures
import os
import re
import shutil
import signal
import tempfile
import time

import harness
from harness import MergenTest, Vm
from waiting import eventually, wait_for_end

VMS = 100
FROZEN = 5
LIMIT_MS = 2000  # of an adoption, as the server measures it
AT_ONCE = 8

RECOVERED = re.compile(r"engine\.recovered .*?vms=(\d+) .*?pending=(\d+) .*?took_ms=(\d+)")
STEP = re.compile(r"vm\.step .*?operation=(\S+) .*?step=(\S+) .*?outcome=ok")


class Adopt(MergenTest):
    """The VMM is a program that costs nothing, and each VM's disk a page: it is the server that is tested here."""

    @classmethod
    def setUpClass(cls):
        # VMs run as users of their own, to whom the build's folder may be closed.
        cls.programs = tempfile.mkdtemp(prefix="mergen-fakes.", dir="/var/tmp")
        cls.addClassCleanup(shutil.rmtree, cls.programs)
        os.chmod(cls.programs, 0o711)
        vmm = os.path.join(cls.programs, "fake-qemu")
        shutil.copy(os.path.join(harness.BUILD.folder, "bin", "fake-qemu"), vmm)
        os.chmod(vmm, 0o755)
        cls.settings = {"vmm.qemu": {"binary": vmm, "accel": "tcg"},
                        "vm": {"stop_grace": "2s"},
                        "supervisor.process": {"restart_delay": "3s"}}

    def setUp(self):
        self.pids = {}  # VMM of each VM of the herd
        super().setUp()
        for name in ("disk", "kernel"):
            with open(os.path.join(self.server.images, name), "wb") as file:
                file.write(b"x" * 4096)
        self.idle = self.snapshot_with_files()

    def body(self, **members):
        return super().body(rootfs=os.path.join(self.server.images, "disk"),
                            kernel=os.path.join(self.server.images, "kernel"), memMiB=128, **members)

    def in_parallel(self, call, items):
        with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
            return list(pool.map(call, items))

    def make_herd(self):
        """VMS running VMs, FROZEN of which do not answer any more: their first ones."""
        herd = self.in_parallel(lambda number: self.create_and_start(id=f"vm-{number}"), range(VMS))
        self.pids = {vm.id: vm.pid() for vm in herd}
        for vm in herd[:FROZEN]:
            os.kill(self.pids[vm.id], signal.SIGSTOP)
        self.addCleanup(self.thaw)
        return herd

    def thaw(self):
        for pid in self.pids.values():
            try:
                os.kill(pid, signal.SIGCONT)
            except ProcessLookupError:
                continue

    def explain(self):
        """Without the hundred VMs' steps."""
        lines = [line for line in self.server.log().splitlines() if not line.startswith("[DEBUG]")]
        return "--- log of mergend, last lines:\n" + "\n".join(lines[-40:])

    def assert_adopted(self, gone=()):
        """The server that has just been started was quick, and every VM of the herd is the process that it was."""
        vms, pending, took = (int(number) for number in RECOVERED.findall(self.server.log())[-1])
        self.assertGreaterEqual(vms, VMS - len(gone))
        self.assertEqual(pending, 0)
        self.assertLess(took, LIMIT_MS, f"adoption of {vms} VMs took {took} ms")
        seen = {one["id"]: (one["state"], one["systemd"]["mainPID"]) for one in self.server.api.list()}
        for vm_id, pid in self.pids.items():
            if vm_id not in gone:
                self.assertEqual(seen.get(vm_id), ("running", pid), vm_id)
        return seen

    def tearDown(self):
        self.thaw()
        if self.server.pid is None:
            self.server.start()
        self.in_parallel(lambda one: self.server.api.expect(200, "DELETE", f"/v1/vms/{one['id']}"), self.server.api.list())
        super().tearDown()

    def causes(self, vm):
        return [event["cause"] for event in vm.events() if event["cause"]]

    def test_a_hundred_vms_are_adopted_and_what_happened_meanwhile_is_known(self):
        herd = self.make_herd()
        rebooted, failed, killed, orphaned, talkative = herd[10:15]
        phoenix = self.create_and_start(id="phoenix", restartPolicy="always")
        ends = {vm.id: os.pidfd_open(self.pids[vm.id]) for vm in (rebooted, failed, killed, orphaned)}
        phoenix_pid = phoenix.pid()
        logs = {vm.id: vm.logs() for vm in (talkative, phoenix)}

        self.server.kill()
        os.kill(self.pids[rebooted.id], signal.SIGUSR1)
        os.kill(self.pids[failed.id], signal.SIGUSR2)
        os.kill(self.pids[killed.id], signal.SIGKILL)
        with open(f"/proc/{self.pids[orphaned.id]}/stat", encoding="ascii") as file:
            os.kill(int(file.read().rsplit(")", 1)[1].split()[1]), signal.SIGKILL)  # its parent
        os.kill(self.pids[talkative.id], signal.SIGHUP)
        os.kill(phoenix_pid, signal.SIGUSR1)
        for pidfd in ends.values():
            wait_for_end(pidfd, 30, "the end of a VMM")
            os.close(pidfd)

        def printed(vm, text, times):
            with open(os.path.join(logs[vm.id], "console.log"), encoding="ascii") as file:
                return file.read().count(text) >= times
        eventually(lambda: printed(talkative, "guest prints", 1), "a line of the console", [logs[talkative.id]])
        eventually(lambda: printed(phoenix, "guest boots", 2), "a restart without the server", [logs[phoenix.id]])
        self.server.start()

        self.assert_adopted(gone={vm.id for vm in (rebooted, failed, killed, orphaned)})
        for vm in herd[:FROZEN]:
            self.assertTrue(any("does not answer" in cause for cause in self.causes(vm)), vm.events())
        for vm, state, by, code in ((rebooted, "stopped", "guest", ("status", 0)), (failed, "failed", "vmm", ("status", 3)),
                                    (killed, "failed", "other", ("signal", 9)), (orphaned, "failed", "lost", None)):
            view = vm.view()
            self.assertEqual((view["state"], view["lastEnd"]["by"]), (state, by), view)
            if code:
                self.assertEqual(view["lastEnd"][code[0]], code[1])
        self.assertIn("guest prints", talkative.console())
        view = phoenix.view()
        self.assertEqual((view["state"], view["restarts"], view["lastEnd"]["by"]), ("running", 1, "guest"))
        self.assertNotEqual(view["systemd"]["mainPID"], phoenix_pid)
        operations = [event["operation"] for event in phoenix.events()]
        self.assertIn("exit", operations)
        self.assertIn("restart", operations)

    # ---- the server is killed at every step of every operation

    def subject(self):
        return Vm(self, "subject")

    def subject_body(self):
        return self.body(id="subject", restartPolicy="on-failure")

    def state_of_subject(self):
        reply = self.server.api.request("GET", "/v1/vms/subject")
        return reply.json["state"] if reply.status == 200 else None

    def bring_subject_to(self, wanted):
        """Without the operation that is about to be crashed, which ends in another state."""
        state = self.state_of_subject()
        if wanted is None:
            if state is not None:
                self.subject().delete()
            return
        if state is None:
            self.server.api.create(self.subject_body())
        if wanted == "stopped":
            self.subject().stop()
            return
        if state not in ("running", "paused"):
            self.subject().start()
            state = "running"
        if wanted != state:
            self.server.api.expect(200, "POST", "/v1/vms/subject/" + ("pause" if wanted == "paused" else "resume"))

    OPERATIONS = {  # name: (state before, method, path)
        "create": (None, "POST", "/v1/vms"),
        "start": ("stopped", "POST", "/v1/vms/subject/start"),
        "pause": ("running", "POST", "/v1/vms/subject/pause"),
        "resume": ("paused", "POST", "/v1/vms/subject/resume"),
        "stop": ("running", "POST", "/v1/vms/subject/stop"),
        "delete": ("running", "DELETE", "/v1/vms/subject"),
    }

    def ask_for(self, operation):
        _, method, path = self.OPERATIONS[operation]
        return self.server.api.request(method, path, self.subject_body() if operation == "create" else None)

    def points(self):
        """Every step that each operation has, as the server's log names them when all goes well."""
        for operation, (before, _, _) in self.OPERATIONS.items():
            self.bring_subject_to(before)
            reply = self.ask_for(operation)
            self.assertIn(reply.status, (200, 201), str(reply))
        found = []
        for operation, step in STEP.findall(self.server.log()):
            if operation in self.OPERATIONS and (operation, step) not in found:
                found.append((operation, step))
        self.assertGreater(len(found), 25, found)
        return [(operation, f"engine.{operation}.{step}.{moment}") for operation, step in found for moment in ("before", "after")]

    def test_a_server_killed_at_every_step_of_every_operation_adopts_them_all(self):
        points = self.points()
        self.make_herd()
        self.server.drain()
        for operation, point in points:
            with self.subTest(point=point):
                if self.server.pid is None:
                    self.server.start(failpoints=f"{point}=crash")
                self.assert_adopted()
                self.bring_subject_to(self.OPERATIONS[operation][0])
                try:
                    reply = self.ask_for(operation)
                    self.fail(f"{point} was not reached: {reply}")
                except OSError:
                    pass
                except Exception as error:  # http.client's words for a connection that ended
                    self.assertNotIsInstance(error, AssertionError, str(error))
                self.assertEqual(self.server.wait(), -signal.SIGKILL)
        self.server.start()
        self.assert_adopted()
        self.assertNotIn(self.state_of_subject(), ("creating", "starting", "stopping", "deleting"))

    def test_a_server_killed_during_the_back_off_of_a_restart_adopts_it(self):
        self.make_herd()
        phoenix = self.create_and_start(id="phoenix", restartPolicy="on-failure", maxRestarts=3)
        os.kill(phoenix.pid(), signal.SIGUSR2)
        eventually(lambda: phoenix.pid() == 0, "the end of the VMM")
        self.server.kill()
        self.server.start()
        self.assert_adopted()
        self.assertEqual(phoenix.state(), "running")
        eventually(lambda: phoenix.pid() != 0, "the restart")
        self.assertEqual(phoenix.view()["restarts"], 1)
        os.kill(phoenix.pid(), signal.SIGUSR2)
        eventually(lambda: phoenix.pid() == 0, "the end of the VMM")
        phoenix.stop()
        self.assertEqual(phoenix.state(), "stopped", "a stop ends the waiting")
