"""What a guest is told of its wire, the other topology, and host ports that are really held."""

import errno
import os
import socket
import subprocess

from harness import Elsewhere, MergenTest, ask


def can_bind(port, kind=socket.SOCK_STREAM):
    """Whether another program could have the port now."""
    with socket.socket(socket.AF_INET, kind) as program:
        try:
            program.bind(("0.0.0.0", port))
            return True
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            return False


class OnATapOfTheHost(MergenTest):
    settings = {"network.linux": {"topology": "tap", "mtu": "1420", "dns": "9.9.9.9, 1.1.1.1"}}

    def setUp(self):
        self.elsewhere = Elsewhere()
        self.addCleanup(self.elsewhere.remove)
        super().setUp()

    def test_a_guest_serves_knows_mtu_and_name_servers_and_outlives_the_server(self):
        vm = self.create()
        self.assertTrue(vm.view()["bootArgs"].endswith("::eth0:off:9.9.9.9:1.1.1.1"), vm.view())
        vm.start()
        page = vm.await_page()
        self.assertEqual(self.elsewhere.connect(Elsewhere.HERE, vm.host_port()), page, "from another host")
        self.assertEqual(vm.probe(Elsewhere.HERE, vm.host_port()), "blocked", "not through the host")
        self.assertEqual(os.listdir("/run/netns"), [Elsewhere.NAME], "no namespace is made")
        for line in ("eth0 has an MTU of 1420", "nameserver 9.9.9.9", "nameserver 1.1.1.1"):
            vm.await_console(f"mergen-guest: {line}")

        pid, port = vm.pid(), vm.host_port()
        self.server.kill()
        self.assertEqual(ask("GET", "127.0.0.1", port), page, "without a server too")
        self.server.start()
        self.assertEqual(vm.pid(), pid)
        self.assertEqual(vm.fetch(), page)
        vm.stop()
        links = subprocess.run(["ip", "-o", "link"], check=True, capture_output=True, text=True).stdout
        self.assertNotIn("tap-", links, "a stopped VM has no tap")
        vm.start()
        self.assertIn("boots: 2", vm.await_page())
        vm.delete()


class HeldPorts(MergenTest):
    def test_a_port_is_held_from_create_to_delete_and_again_after_a_restart(self):
        vm = self.create(ports=[{"guest": 80, "host": 21500}, {"guest": 53, "host": 21500, "protocol": "udp"}])
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            self.assertFalse(can_bind(21500, kind), "while the VM is stopped")
        self.server.kill()
        self.assertTrue(can_bind(21500), "no server, nobody holds it")
        self.server.start()
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            self.assertFalse(can_bind(21500, kind))
        vm.delete()
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            self.assertTrue(can_bind(21500, kind))

    def test_a_port_that_a_program_took_while_no_server_ran_is_left_to_it(self):
        vm = self.create(ports=[{"guest": 80, "host": 21500}])
        self.server.kill()
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as program:
            program.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            program.bind(("::", 21500))
            self.server.start()
            reply = self.assert_status(409, "POST", f"{vm.path}/start")
            self.assertIn("21500", str(reply))
            self.assertEqual(vm.state(), "created")
            self.assertTrue(any("21500" in event.get("cause", "") for event in vm.events()), vm.events())
        vm.start()
        self.assertFalse(can_bind(21500), "held at last")
        vm.delete()

    def test_a_udp_port_is_published_beside_tcp(self):
        vm = self.create_and_start(ports=[{"guest": 80, "host": 21500}, {"guest": 53, "host": 21500, "protocol": "udp"}])
        rules = subprocess.run(["nft", "list", "ruleset"], check=True, capture_output=True, text=True).stdout
        for name, guest_port in (("published_tcp", 80), ("published_udp", 53)):
            body = rules.split(f"map {name} ", 1)[1].split("}\n", 1)[0]
            self.assertIn("21500", body)
            self.assertIn(f"{vm.address()} . {guest_port}", body)
        vm.delete()
