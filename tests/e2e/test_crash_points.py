"""The server dies in the middle of an operation: after a restart nothing is lost and nothing is left."""

import http.client
import os
import shutil
import signal

from harness import MergenTest, Vm


class CrashPoints(MergenTest):
    def crash(self, point, method, path, body=None):
        """Starts the server so that it kills itself at `point`, lets it run into that, and starts it anew."""
        if self.server.pid is not None:
            self.server.drain()
        self.server.start(failpoints=f"{point}=crash")
        try:
            reply = self.server.api.request(method, path, body)
            self.fail(f"{point} was not reached: {reply}")
        except (OSError, http.client.HTTPException):
            pass
        self.assertEqual(self.server.wait(), -signal.SIGKILL)
        self.server.start()

    def test_create(self):
        for point in ("record.before", "record.after", "disks.before", "disks.after", "commit.before", "commit.after"):
            with self.subTest(point=point):
                self.crash(f"engine.create.{point}", "POST", "/v1/vms", self.body(id="crash"))
                vms = self.server.api.list()
                if vms:
                    # What is listed is whole: it can be used.
                    self.assertEqual([(vm["id"], vm["state"]) for vm in vms], [("crash", "created")])
                    Vm(self, "crash").delete()
                self.assert_idle_host(f"after a crash at create.{point}, a restart and a delete")
                self.create(id="crash").delete()

    def test_a_delete_that_keeps_data_keeps_it_over_a_crash(self):
        for point in ("intent.after", "network.after", "record.before"):
            with self.subTest(point=point):
                vm = self.create()
                folder = vm.view()["paths"]["dataDir"]
                self.crash(f"engine.delete.{point}", "DELETE", f"{vm.path}?retainData=true")
                self.assertEqual(self.server.api.list(), [], "the delete is completed")
                self.assertTrue(os.listdir(folder))
                shutil.rmtree(folder)

    def test_start(self):
        vm = self.create()
        for point in ("intent.after", "network.after", "launch.before", "launch.after", "boot.after", "publish.after"):
            with self.subTest(point=point):
                self.crash(f"engine.start.{point}", "POST", f"{vm.path}/start")
                self.assertIn(vm.state(), ("running", "stopped", "failed", "created"))
                vm.start()
                self.assertEqual(vm.state(), "running")
                vm.stop()
        vm.delete()

    def test_stop_and_delete(self):
        vm = self.create()
        for point in ("intent.after", "guest.after", "network.after", "run-directory.after"):
            with self.subTest(point=point):
                vm.start()
                self.crash(f"engine.stop.{point}", "POST", f"{vm.path}/stop")
                vm.stop()
                self.assertEqual(vm.state(), "stopped")
        for point in ("intent.after", "guest.after", "network.after", "disks.after", "record.after"):
            with self.subTest(point=point):
                doomed = self.create()
                doomed.start()
                self.crash(f"engine.delete.{point}", "DELETE", doomed.path)
                self.assertNotIn(doomed.id, [one["id"] for one in self.server.api.list()], "the delete is completed")
        vm.delete()
