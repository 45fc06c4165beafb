"""Every other combination of backends runs a VM too."""

from harness import MergenTest
from waiting import eventually


class MemoryStorage(MergenTest):
    backends = {"storage": "memory"}

    def test_a_vm_whose_record_is_in_memory_serves_its_page(self):
        vm = self.create_and_start()
        self.assertIn(vm.address(), vm.await_page())
        vm.delete()


class StubNetwork(MergenTest):
    backends = {"network": "stub"}

    def test_a_vm_without_a_wire_boots_and_touches_no_network(self):
        before = self.snapshot()
        vm = self.create_and_start()
        eventually(lambda: "mergen-guest: ready" in vm.console(), "the guest's last word of booting", [vm.logs()])
        now = self.snapshot()
        for section in ("network namespaces", "links", "addresses", "routes", "filter rules", "sysctls"):
            self.assertEqual(now.get(section), before.get(section), section)
        self.assertEqual(len(vm.view()["network"]["ports"]), 1, "a port is allocated all the same")
        vm.delete()
