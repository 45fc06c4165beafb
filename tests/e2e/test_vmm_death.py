"""A VMM that ends without having been asked to."""

import os
import signal

from harness import MergenTest


class VmmDeath(MergenTest):
    def network_sections(self):
        kept = self.snapshot()
        return {name: kept[name] for name in ("network namespaces", "links", "addresses", "routes", "filter rules")}

    def test_a_killed_vmm_makes_the_vm_failed_with_its_cause_and_takes_its_wire_along(self):
        idle = self.network_sections()
        vm = self.create_and_start()
        vm.await_page()
        pid = vm.pid()
        self.end_vmm(pid, lambda: os.kill(pid, signal.SIGKILL))
        vm.await_state("failed")
        view = vm.view()
        self.assertIn("signal 9", view["failure"])
        self.assertEqual((view["lastExit"]["signalled"], view["lastExit"]["code"]), (True, 9))
        self.assertEqual(view["systemd"]["mainPID"], 0)
        self.assert_same_host(idle, self.network_sections, "after the VMM was killed")

        vm.start()
        vm.await_page()
        self.assertEqual(vm.boots(), 2)
        pid = vm.pid()
        self.end_vmm(pid, lambda: os.kill(pid, signal.SIGKILL))
        vm.await_state("failed")
        vm.delete()

    def test_a_guest_that_reboots_by_itself_is_stopped(self):
        vm = self.create_and_start()
        vm.await_page()
        self.end_vmm(vm.pid(), lambda: vm.request("POST", "/cgi-bin/reboot", b""))
        vm.await_state("stopped")
        view = vm.view()
        self.assertEqual((view["lastExit"]["signalled"], view["lastExit"]["code"]), (False, 0))
        self.assertIsNone(view["failure"])
        vm.start()
        vm.await_page()
        self.assertEqual(vm.boots(), 2)
        vm.delete()
