"""Records in memory are gone with the server, and so are its VMs: ended by its orderly end, cleared after a crash."""

import os

from harness import MergenTest


class MemoryStorageEnds(MergenTest):
    backends = {"storage": "memory"}
    settings = {"vm": {"stop_grace": "1s"}}  # the guests have not booted far enough to obey

    def assert_nothing_left(self, when):
        self.assertEqual(self.server.api.list(), [])
        self.assert_idle_host(when)

    def test_an_orderly_end_of_the_server_ends_its_vms(self):
        self.create_and_start()
        self.create()
        self.server.drain()
        self.assertIn("engine.vms.removed", self.server.log())
        self.server.start()
        self.assert_nothing_left("after the server was drained and started")

    def test_what_a_crash_leaves_is_removed_by_the_next_server(self):
        vm = self.create_and_start()
        self.create()
        pid = vm.pid()
        self.server.kill()
        os.kill(pid, 0)  # it runs on, until somebody tells that nobody knows it
        self.server.start()
        self.assert_nothing_left("after the server was killed and started")
        self.assertIn("engine.stray.removed", self.server.log())
        again = self.create_and_start()
        again.delete()
