"""How a VM's life ends, and what is noticed of it. On the fake Firecracker, which ends, hangs and prints as it is told."""

import os
import signal

from test_firecracker import OnTheFake
from waiting import eventually

# The fake prints the guest's command line, and so can be made to print a kernel's words.
PANIC = "Kernel panic - not syncing: Attempted to kill init!"
# In the VM's run directory, where the fake is at home: it ends when the file appears.
TRIGGER = "end-now"


class LifeEnds(OnTheFake):
    vm_settings = {"stop_grace": "2s", "kill_grace": "1s", "control_timeout": "1s",
                   "probe_interval": "100ms", "probe_timeout": "300ms", "probe_failures": "2"}

    def create_ready(self, **members):
        vm = self.create_and_start(**members)
        eventually(lambda: "fake-guest: ready" in vm.console(), f"the guest of {vm.id}", [vm.logs()])
        return vm

    def end_guest(self, vm):
        """The guest ends by itself."""
        trigger = os.path.join(vm.view()["paths"]["runDir"], TRIGGER)
        self.end_vmm(vm.pid(), lambda: open(trigger, "wb").close())
        return trigger

    def freeze(self, vm):
        os.kill(vm.pid(), signal.SIGSTOP)

    def await_settled(self, vm, state):
        """The view of the VM in `state` after a probe's operation, which is over."""
        def look():
            view = vm.view()
            end = view["lastEnd"] or {"operation": None}
            done = view["state"] == state and view["operation"] is None and end["operation"] == "probe"
            return view if done else None
        return eventually(look, f"state {state} of {vm.id} by a probe, which is {vm.view()}")

    # ---- panics

    def test_a_panic_makes_the_vm_failed_with_the_kernels_words(self):
        vm = self.create_ready(bootArgs=f"console=ttyS0 {PANIC} fake.exit=0 fake.exit-on-file={TRIGGER}")
        self.end_guest(vm)
        vm.await_state("failed")
        view = vm.view()
        self.assertEqual((view["lastEnd"]["by"], view["lastEnd"]["status"]), ("panic", 0))
        self.assertIn(PANIC, view["failure"])
        vm.delete()

    def test_on_failure_restarts_after_a_panic(self):
        vm = self.create_ready(bootArgs=f"console=ttyS0 {PANIC} fake.exit=0 fake.exit-on-file={TRIGGER}",
                               restartPolicy="on-failure")
        os.unlink(self.end_guest(vm))
        eventually(lambda: vm.view()["restarts"] > 0 and vm.pid() != 0, "the restart", [vm.logs()])
        view = vm.view()
        self.assertEqual((view["state"], view["lastEnd"]["by"]), ("running", "panic"))
        self.assertTrue(any(event["operation"] == "restart" and PANIC in event["cause"] for event in vm.events()))
        vm.delete()

    def test_on_failure_does_not_restart_after_a_clean_end(self):
        vm = self.create_ready(bootArgs=f"console=ttyS0 fake.exit=0 fake.exit-on-file={TRIGGER}", restartPolicy="on-failure")
        self.end_guest(vm)
        vm.await_state("stopped")
        view = vm.view()
        self.assertEqual((view["lastEnd"]["by"], view["restarts"], view["failure"]), ("guest", 0, None))
        vm.delete()

    def test_a_guest_that_ends_at_once_has_been_started(self):
        for words, state, by in (("", "stopped", "guest"), (PANIC, "failed", "panic")) * 5:
            with self.subTest(words=words):
                self.assert_end_is_told(f"console=ttyS0 {words} fake.exit=0", state, by)

    def test_a_crash_has_the_vmms_last_words(self):
        vm = self.create_ready(bootArgs=f"console=ttyS0 fake.exit=3 fake.exit-on-file={TRIGGER}")
        self.end_guest(vm)
        vm.await_state("failed")
        view = vm.view()
        self.assertEqual((view["lastEnd"]["by"], view["lastEnd"]["status"]), ("vmm", 3))
        self.assertIn("its last output: ", view["failure"])
        self.assertIn("fake-guest: ready", view["failure"])
        vm.delete()

    # ---- stops

    def test_a_guest_that_has_halted_runs_until_it_is_stopped_by_a_signal(self):
        vm = self.create_ready(bootArgs="console=ttyS0 fake.ignore-shutdown")
        view = vm.view()
        self.assertEqual((view["state"], view["unresponsive"]), ("running", None))
        self.assertEqual(vm.stop(), {"id": vm.id, "status": "stopped", "endedBy": "SIGTERM"})
        self.assertEqual(vm.stop()["endedBy"], "none")
        self.assertEqual(vm.view()["lastEnd"]["operation"], "stop")
        vm.start()
        self.assertEqual(vm.delete()["endedBy"], "SIGTERM")

    def test_a_paused_guest_is_woken_and_obeys(self):
        vm = self.create_ready()
        self.server.api.expect(200, "POST", f"{vm.path}/pause")
        self.assertEqual(vm.stop()["endedBy"], "guest")
        self.assertEqual(vm.view()["lastEnd"]["by"], "guest")
        vm.delete()

    def test_a_frozen_vmm_is_killed_within_the_deadlines(self):
        for paused in (False, True):
            with self.subTest(paused=paused):
                vm = self.create_ready()
                if paused:
                    self.server.api.expect(200, "POST", f"{vm.path}/pause")
                self.freeze(vm)
                self.assertEqual(vm.stop()["endedBy"], "SIGKILL")  # SIGTERM waits for a SIGCONT
                view = vm.view()
                self.assertEqual((view["state"], view["lastEnd"]["signal"]), ("stopped", 9))
                vm.delete()

    # ---- VMMs that do not answer

    def test_a_vmm_that_hangs_is_unresponsive_until_it_answers(self):
        vm = self.create_ready()
        pid = vm.pid()
        self.freeze(vm)
        told = eventually(lambda: vm.view()["unresponsive"], f"{vm.id} to be unresponsive")
        self.assertTrue(told["since"] and told["cause"], told)
        self.assertEqual(vm.state(), "running")
        os.kill(pid, signal.SIGCONT)
        eventually(lambda: vm.view()["unresponsive"] is None, f"{vm.id} to answer")
        self.assertEqual((vm.state(), vm.pid()), ("running", pid))
        said = [event["cause"] for event in vm.events() if event["operation"] == "probe"]
        self.assertIn("does not answer", said[0])
        self.assertIn("answers again", said[-1])
        vm.delete()

    def test_the_policy_stop_ends_it_for_good(self):
        vm = self.create_ready(onUnresponsive="stop", restartPolicy="always")
        self.freeze(vm)
        view = self.await_settled(vm, "failed")
        self.assertEqual((view["lastEnd"]["by"], view["lastEnd"]["signal"], view["restarts"]), ("mergen", 9, 0))
        self.assertIn("had not answered", view["failure"])
        vm.delete()

    def test_the_policy_restart_starts_it_again(self):
        vm = self.create_ready(onUnresponsive="restart")
        pid = vm.pid()
        self.freeze(vm)
        view = self.await_settled(vm, "running")
        self.assertNotIn(view["systemd"]["mainPID"], (0, pid))
        self.assertEqual((view["onUnresponsive"], view["unresponsive"]), ("restart", None))
        vm.delete()

    def test_one_that_hangs_since_a_dead_servers_time_is_noticed_by_the_next(self):
        vm = self.create_ready(onUnresponsive="stop")
        pid = vm.pid()
        self.server.kill()
        os.kill(pid, signal.SIGSTOP)
        self.server.start()
        self.await_settled(vm, "failed")
        vm.delete()
