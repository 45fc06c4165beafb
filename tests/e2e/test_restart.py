"""A VM's parent starts it again by its policy, with the server or without; and a stop is a stop."""

import os
import signal

from harness import MergenTest, ask
from waiting import eventually


class Restart(MergenTest):
    def page_again(self, vm, port, boots):
        """The page of the guest's next boot on the same port, asked for without the server."""
        def try_once():
            try:
                page = ask("GET", "127.0.0.1", port, timeout=0.5)
            except Exception:  # the guest is not up yet
                return None
            return page if f"boots: {boots}" in page.replace("<b>", "").replace("</b>", "") else None
        return eventually(try_once, f"boot {boots} on port {port}", seconds=90)

    def test_a_guest_that_reboots_while_the_server_is_down_serves_its_page_again(self):
        vm = self.create_and_start(restartPolicy="always")
        vm.await_page()
        port, pid = vm.host_port(), vm.pid()
        self.server.kill()
        self.end_vmm(pid, lambda: ask("POST", "127.0.0.1", port, "/cgi-bin/reboot", b""))
        self.page_again(vm, port, 2)
        self.server.start()
        view = vm.view()
        self.assertEqual((view["state"], view["restarts"], view["restartPolicy"]), ("running", 1, "always"))
        self.assertNotIn(view["systemd"]["mainPID"], (0, pid))
        self.assertEqual((view["lastEnd"]["by"], view["lastEnd"]["status"]), ("guest", 0))
        events = {event["operation"]: event for event in vm.events()}
        self.assertIn("restart 1 in a row", events["restart"]["cause"])
        self.assertLess(events["exit"]["at"], events["recover"]["at"], "it has the time at which it happened")
        self.assertEqual(vm.boots(), 2)

        # Ctrl-Alt-Del reaches the new run, and it is not started once more.
        vm.stop()
        self.assertEqual(vm.state(), "stopped")
        self.assertEqual(vm.view()["lastEnd"]["operation"], "stop")
        vm.start()
        vm.await_page()
        self.assertEqual(vm.view()["restarts"], 0)

    def test_a_killed_vmm_is_started_again_on_failure_and_a_reboot_is_not(self):
        vm = self.create_and_start(restartPolicy="on-failure")
        vm.await_page()
        port, pid = vm.host_port(), vm.pid()
        self.end_vmm(pid, lambda: os.kill(pid, signal.SIGKILL))
        self.page_again(vm, port, 2)
        eventually(lambda: vm.view()["restarts"] == 1, "the restart to be counted")
        view = vm.view()
        self.assertEqual((view["state"], view["lastEnd"]["by"], view["lastEnd"]["signal"]), ("running", "other", 9))
        self.assertEqual(vm.host_port(), port)
        self.end_vmm(vm.pid(), lambda: vm.request("POST", "/cgi-bin/reboot", b""))
        vm.await_state("stopped")
        self.assertEqual(vm.view()["lastEnd"]["by"], "guest")

    def test_a_paused_guest_is_frozen_and_goes_on(self):
        vm = self.create_and_start()
        page = vm.await_page()
        self.assertEqual(self.server.api.expect(200, "POST", f"{vm.path}/pause").json, {"id": vm.id, "status": "paused"})
        self.assertEqual(vm.state(), "paused")
        with self.assertRaises(OSError):
            vm.fetch(timeout=1)
        self.server.kill()
        self.server.start()
        self.assertEqual(vm.state(), "paused")
        self.assertEqual(self.server.api.expect(200, "POST", f"{vm.path}/resume").json, {"id": vm.id, "status": "resumed"})
        self.assertEqual(vm.fetch(), page)
        self.server.api.expect(200, "POST", f"{vm.path}/pause")
        vm.stop()
        self.assertEqual((vm.state(), vm.view()["lastEnd"]["by"]), ("stopped", "guest"))
        self.assert_status(409, "POST", f"{vm.path}/pause")
