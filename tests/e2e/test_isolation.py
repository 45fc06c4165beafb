"""What a guest may reach, and what not. Each "not" is first shown to be there for somebody else."""

from harness import Elsewhere, Listener, MergenTest

PORT = 8765


class Isolation(MergenTest):
    def setUp(self):
        self.elsewhere = Elsewhere()
        self.addCleanup(self.elsewhere.remove)
        super().setUp()

    def listener(self, *arguments):
        listener = Listener(*arguments)
        self.addCleanup(listener.close)
        return listener

    def test_a_guest_reaches_the_outside_but_neither_the_host_nor_another_guest(self):
        vm, other = self.create_and_start(), self.create_and_start()
        vm.await_page()
        other.await_page()

        outside = self.listener(Elsewhere.THERE, PORT, self.elsewhere)
        self.assertEqual(vm.probe(Elsewhere.THERE, PORT), "open")
        self.assertEqual(outside.next_peer(), Elsewhere.HERE, "the outside sees the host's address")
        outside.close()

        # Between guests there is a rule and, in this topology, no way either; network tests show the rule alone.
        self.assertEqual(vm.probe(other.address(), 80), "blocked", "guest to guest")
        self.assertEqual(vm.probe(Elsewhere.HERE, other.host_port()), "blocked", "guest to another's published port")

        everywhere = self.listener("0.0.0.0", PORT)
        gateway = vm.address().rsplit(".", 1)[0] + ".1"
        for address in (Elsewhere.HERE, gateway, "169.254.169.254"):
            self.assertNotEqual(vm.probe(address, PORT), "open", f"guest to the host's {address}")
        # The listener was reachable all the time: the first who got through is the one who should.
        self.elsewhere.connect(Elsewhere.HERE, PORT)
        self.assertEqual(everywhere.next_peer(), Elsewhere.THERE)
        everywhere.close()
