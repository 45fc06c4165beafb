"""A server whose data root is a small file system of its own, to be filled up."""

import os
import subprocess


class SmallDataRoot:
    """Before a MergenTest among the bases of a test."""

    def setUp(self):
        super().setUp()
        self.server.drain()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m,mode=751", "mergen-test", self.server.data_root], check=True)
        self.addCleanup(subprocess.run, ["umount", "-l", self.server.data_root], check=False, stderr=subprocess.DEVNULL)
        self.server.start()

    def tearDown(self):
        for vm in self.server.api.list():
            self.server.api.expect(200, "DELETE", f"/v1/vms/{vm['id']}")
        self.assertEqual(sorted(os.listdir(self.server.data_root)), [".lock", "instance"])
        self.server.drain()
        subprocess.run(["umount", self.server.data_root], check=True)
        super().tearDown()

    def fill(self):
        """Takes all room that there is, and gives the file that holds it."""
        path = os.path.join(self.server.data_root, "filler")
        with open(path, "wb", buffering=0) as file:
            try:
                while file.write(bytes(4096)) == 4096:
                    pass
            except OSError:
                pass
        return path


class JailWithoutRoom(SmallDataRoot):
    """The jailer copies its program into the jail. To be mixed into a test of jailed VMs."""

    def test_a_start_for_whose_jail_there_is_no_room_says_so(self):
        vm = self.create()
        filler = self.fill()
        problem = self.assert_status(507, "POST", f"{vm.path}/start").json
        self.assertEqual(problem["error"], "resource_exhausted")
        self.assertIn("a jail needs", problem["detail"])
        self.assertEqual((vm.state(), vm.pid()), ("failed", 0))
        os.unlink(filler)
        vm.start()
        self.assertEqual(vm.state(), "running")
