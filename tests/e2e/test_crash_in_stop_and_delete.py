"""The server dies while it stops or deletes a VM."""

import http.client
import os
import shutil
import signal
import subprocess

from harness import CrashTest
from waiting import eventually


def rules():
    return subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True, check=True).stdout


class CrashInStopAndDelete(CrashTest):
    def test_a_stop_is_completed(self):
        vm = self.create()
        for point in ("intent.after", "guest.after", "network.after", "run-directory.after"):
            with self.subTest(point=point):
                vm.start()
                self.crash(f"engine.stop.{point}", "POST", f"{vm.path}/stop")
                vm.stop()
                self.assertEqual(vm.state(), "stopped")
        vm.delete()

    def test_a_delete_is_completed(self):
        for point in ("intent.after", "guest.after", "network.after", "disks.after", "record.after"):
            with self.subTest(point=point):
                doomed = self.create()
                doomed.start()
                self.crash(f"engine.delete.{point}", "DELETE", doomed.path)
                self.assertNotIn(doomed.id, [one["id"] for one in self.server.api.list()], "the delete is completed")
                self.assert_idle_host(f"after a crash at delete.{point} and a restart")

    def test_a_delete_that_keeps_data_keeps_it_over_a_crash(self):
        for point in ("intent.after", "network.after", "record.before"):
            with self.subTest(point=point):
                vm = self.create()
                folder = vm.view()["paths"]["dataDir"]
                self.crash(f"engine.delete.{point}", "DELETE", f"{vm.path}?retainData=true")
                self.assertEqual(self.server.api.list(), [], "the delete is completed")
                self.assertTrue(os.listdir(folder))
                shutil.rmtree(folder)

    def test_what_was_left_to_do_after_the_answer_is_done_by_the_next_server(self):
        for point in ("network.linux.detach.flows", "network.linux.detach.filter"):
            for method, path in (("POST", "/stop"), ("DELETE", "")):
                with self.subTest(point=point, method=method):
                    vm = self.create()
                    vm.start()
                    address = vm.view()["network"]["guestIP"]
                    self.server.drain()
                    self.server.start(failpoints=f"{point}=crash")
                    try:
                        self.server.api.expect(200, method, f"{vm.path}{path}")
                    except (OSError, http.client.HTTPException):
                        pass  # it died before it had answered
                    self.assertEqual(self.server.wait(), -signal.SIGKILL)
                    if point.endswith("flows"):
                        self.assertIn(address, rules(), "its flows may still be there")
                    self.server.start()
                    eventually(lambda: address not in rules(), f"{address} gone from the rules")
                    if method == "POST":
                        self.assertEqual(vm.state(), "stopped")
                        vm.delete()
                    self.assert_idle_host(f"after a crash at {point} and a restart")
