"""The server dies while it stops or deletes a VM."""

import os
import shutil

from harness import CrashTest


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
