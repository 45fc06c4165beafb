"""The manager is not in the VM's way: VMs run on without it, and it finds them again."""

import threading

from harness import MergenTest, ask
from waiting import start_time


class Visitor(threading.Thread):
    """Asks for a page again and again, and keeps count of what fails."""

    def __init__(self, port, page):
        super().__init__()
        self._port, self._page = port, page
        self._enough = threading.Event()
        self.answered = 0
        self.failures = []

    def run(self):
        while not self._enough.is_set():
            try:
                if ask("GET", "127.0.0.1", self._port) == self._page:
                    self.answered += 1
                else:
                    self.failures.append("another page")
            except Exception as error:  # whatever it is, it is a visitor that was not served
                self.failures.append(repr(error))

    def end(self):
        self._enough.set()
        self.join()


class ServerDeath(MergenTest):
    def guest_outlives(self, end_server):
        vm = self.create_and_start()
        page = vm.await_page()
        before, began, console, port = vm.view(), start_time(vm.pid()), vm.console(), vm.host_port()

        visitor = Visitor(port, page)
        visitor.start()
        try:
            end_server()
            self.assertEqual(ask("GET", "127.0.0.1", port), page, "the guest serves without the server")
            self.server.start()
            self.assertEqual(ask("GET", "127.0.0.1", port), page)
        finally:
            visitor.end()
        self.assertEqual(visitor.failures, [])
        self.assertGreater(visitor.answered, 0)

        after = vm.view()
        self.assertEqual(after["state"], "running")
        self.assertEqual(after["systemd"]["mainPID"], before["systemd"]["mainPID"])
        self.assertEqual(start_time(vm.pid()), began, "it is the very process")
        self.assertEqual(after["network"], before["network"])
        self.assertTrue(vm.console().startswith(console), "nothing of the console is lost")
        self.assertIn("recover", [event["operation"] for event in vm.events()])

        self.assertEqual(vm.stop()["status"], "stopped")
        self.assertIn("mergen-guest: shutting down", vm.console())
        self.assertEqual(vm.start()["status"], "started")
        vm.await_page()
        self.assertEqual(vm.boots(), 2)
        vm.delete()

    def test_a_guest_serves_on_while_the_server_is_killed_and_started_again(self):
        self.guest_outlives(self.server.kill)

    def test_a_drained_server_leaves_the_guest_running(self):
        self.guest_outlives(self.server.drain)

    def test_a_guest_that_ends_while_the_server_is_down_is_found_stopped(self):
        vm = self.create_and_start()
        vm.await_page()
        pid, port = vm.pid(), vm.host_port()
        self.server.kill()
        self.end_vmm(pid, lambda: ask("POST", "127.0.0.1", port, "/cgi-bin/reboot", b""))
        self.server.start()
        self.assertEqual(vm.state(), "stopped")
        self.assertEqual(vm.pid(), 0)
        vm.delete()
