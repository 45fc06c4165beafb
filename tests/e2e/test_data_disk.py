"""A data disk is used in place: lent to one VM while that runs, and given back as it was."""

import os
import stat

from harness import CrashTest

OWNER = (1234, 5678, 0o664)  # nobody's on this host


class DataDisk(CrashTest):
    def setUp(self):
        super().setUp()
        self.disk = self.make_image("data.img", size=4 << 20, owner=OWNER)

    def owner(self):
        status = os.stat(self.disk)
        return status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)

    def user_of(self, pid):
        with open(f"/proc/{pid}/status", encoding="ascii") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("Uid:"))

    def scribbler(self):
        return self.create(dataDisk=self.disk, bootArgs="console=ttyS0 reboot=k panic=1 mergen.scribble")

    def content(self):
        with open(self.disk, "rb") as file:
            return file.read(4)

    def test_the_guest_writes_to_it_and_it_goes_back_to_its_former_owner_and_mode(self):
        vm = self.scribbler()
        self.assertEqual(self.owner(), OWNER, "a VM that does not run needs nothing")
        vm.start()
        vm.await_page()
        user = self.user_of(vm.pid())
        self.assertEqual(self.owner(), (user, user, 0o600))
        vm.await_console("disk nvme0n2 of 4194304 bytes, takes writes")

        self.server.kill()
        self.server.start()
        self.assertEqual(vm.state(), "running")
        vm.stop()
        self.assertEqual(self.owner(), OWNER)
        self.assertEqual(self.content(), b"\x7fELF", "what the guest wrote")

        vm.start()
        self.assertEqual(self.owner()[2], 0o600)
        vm.delete()
        self.assertEqual(self.owner(), OWNER)
        self.assertEqual(os.path.getsize(self.disk), 4 << 20, "it is not deleted with the VM")

    def test_a_crash_while_it_is_lent_or_taken_back_loses_no_owner(self):
        vm = self.create(dataDisk=self.disk)
        self.crash_while_lent(vm, lambda: self.assertEqual(self.owner(), OWNER))

    def test_it_has_one_owner_under_whatever_name(self):
        first = self.create(id="first", dataDisk=self.disk)
        link = os.path.join(self.server.images, "another-name.img")
        os.link(self.disk, link)
        own = os.path.join(self.server.images, "own.img")
        os.link(os.path.join(first.view()["paths"]["dataDir"], "rootfs.ext4"), own)
        before = self.snapshot_with_files()
        for members, field in (({"dataDisk": self.disk}, "dataDisk"), ({"dataDisk": link}, "dataDisk"),
                               ({"rootfs": link}, "rootfs"), ({"kernel": self.disk}, "kernel"),
                               ({"initrd": link}, "initrd"), ({"dataDisk": own}, "dataDisk"), ({"rootfs": own}, "rootfs")):
            with self.subTest(members=members):
                problem = self.assert_status(409, "POST", "/v1/vms", self.body(**members)).json
                self.assertEqual(problem["field"], field)
                self.assertIn("'first'", problem["message"])
        self.server.kill()
        self.server.start()
        self.assert_status(409, "POST", "/v1/vms", self.body(dataDisk=link))
        self.assert_same_host({"files": before["files"]}, lambda: {"files": self.snapshot_with_files()["files"]},
                              "after refused creates")
        first.delete()
        second = self.create(dataDisk=link)
        second.delete()
        os.unlink(link)
        os.unlink(own)

    def test_what_another_program_writes_to_is_refused(self):
        vm = self.create(dataDisk=self.disk)
        images = {"rootfs": self.server.rootfs, "kernel": self.server.kernel}
        for field, path in images.items():
            with open(path, "r+b"):
                problem = self.assert_status(409, "POST", "/v1/vms", self.body()).json
                self.assertEqual((problem["error"], problem["field"]), ("conflict", field))
                self.assertIn("open for writing", problem["message"])
        with open(self.disk, "r+b"):
            self.assertIn("open for writing", self.assert_status(409, "POST", f"{vm.path}/start").json["message"])
            self.assertEqual(vm.state(), "created", "it has not even begun")
        self.assertEqual(self.owner(), OWNER)
        vm.start()
        vm.delete()
