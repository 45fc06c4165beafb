"""The server dies while it makes or starts a VM."""

from harness import CrashTest, Vm


class CrashInCreateAndStart(CrashTest):
    def test_a_create_is_whole_or_has_never_been(self):
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

    def test_a_start_is_finished_or_undone_and_can_be_asked_for_again(self):
        vm = self.create()
        for point in ("intent.after", "network.after", "launch.before", "launch.after", "boot.after", "publish.after"):
            with self.subTest(point=point):
                self.crash(f"engine.start.{point}", "POST", f"{vm.path}/start")
                self.assertIn(vm.state(), ("running", "stopped", "failed", "created"))
                vm.start()
                self.assertEqual(vm.state(), "running")
                vm.stop()
        vm.delete()
